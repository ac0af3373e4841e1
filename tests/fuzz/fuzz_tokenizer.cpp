// Bytes → tokenizer.json, and after a NUL a text: whatever parses must encode, decode and stream without harm, and a
// stream must give what decode gives.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer.h"

namespace {

void use(const std::shared_ptr<const expert::Tokenizer>& tokenizer, std::string_view text) {
  for (const bool special : {true, false}) {
    const auto ids = tokenizer->encode(text, {special, special});
    expert::TokenStream stream(tokenizer, !special);
    std::string pieces;
    for (const int32_t id : ids) pieces += stream.push(id);
    pieces += stream.flush();
    if (pieces != tokenizer->decode(ids, !special)) std::abort();
  }
  for (int32_t id = 0; id < tokenizer->size() && id < 64; ++id)
    if (tokenizer->has_id(id)) (void)tokenizer->token_bytes(id);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view text =
      end == std::string_view::npos ? "ab <s>\n'S \u2581e\u0301 \U0001F600" : input.substr(end + 1);
  try {
    expert::TokenizerFiles files;
    files.tokenizer_json = std::string(input.substr(0, end));
    use(expert::Tokenizer::parse(files), text);
  } catch (const expert::Error&) {
  }
  return 0;
}
