// Bytes → regular expression of a Split pre-tokenizer, and after a NUL a text. What compiles must cut the text into
// matches that go forwards, end on characters' borders and stay within the budget.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/utf8.h"
#include "text/regex.h"

namespace {

bool at_border(std::string_view text, size_t at) {
  return at == text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
}

void cut(const expert::Regex& regex, std::string_view text) {
  expert::Regex::Budget budget(size_t{2'000});  // more would be spent on repeating loops
  for (size_t pos = 0; pos < text.size();) {
    const auto [begin, end] = regex.find(text, pos, budget);
    if (begin < pos || end < begin || end > text.size() || !at_border(text, begin) || !at_border(text, end))
      __builtin_trap();
    pos = end > pos ? end : pos + 1;
    while (!at_border(text, pos)) ++pos;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view text = end == input.npos ? "Ab 12\n'S \u2581e\u0301 \U0001F600" : input.substr(end + 1);
  try {
    const expert::Regex regex{input.substr(0, end)};
    if (expert::unicode::is_utf8(text)) cut(regex, text);
  } catch (const expert::Error& error) {
    if (error.code() == expert::ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
