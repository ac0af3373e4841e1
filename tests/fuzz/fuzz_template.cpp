// Template text → parse → render. The input is a template, then (after a NUL byte, optionally) messages as JSON.
// What the template or the messages get wrong must be a typed error; memory, time and recursion stay within the limits.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "core/json_reader.h"
#include "text/chat_template.h"

namespace {

const expert::Json& standard_messages() {
  using expert::Json;
  static const Json messages =
      Json::array({{{"role", "user"}, {"content", "Hello <think>x</think> wörld"}},
                   {{"role", "assistant"},
                    {"content", ""},
                    {"tool_calls", Json::array({{{"function", {{"name", "f"}, {"arguments", {{"a", 1.5}}}}}}})}}});
  return messages;
}

const expert::Json& tools() {
  using expert::Json;
  static const Json list = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
  return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using expert::Json;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t separator = input.find('\0');
  Json messages = standard_messages();
  if (separator != input.npos) {
    const std::string_view text = input.substr(separator + 1);
    try {
      messages = expert::parse_json(text, "fuzz", {.max_bytes = 1 << 16, .max_depth = 100});
    } catch (const expert::Error&) {
      // No conversation: the standard one.
    }
  }
  try {
    const auto chat_template = expert::ChatTemplate::parse(input.substr(0, separator), "fuzz");
    expert::ChatTemplate::Options options;
    options.tools = tools();
    options.limits = {
        .steps = 4'000, .bytes = 4 << 20, .output_bytes = 1 << 18, .string_bytes = 1 << 18, .depth = 1200};
    chat_template->render(messages, options);
  } catch (const expert::Error& error) {
    if (error.code() == expert::ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
