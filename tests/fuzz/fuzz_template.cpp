// Template text → parse → render. The input is a template, then (after a NUL byte, optionally) messages as JSON.
// What the template or the messages get wrong must be a typed error; memory, time and recursion stay within the limits.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using expert::Json;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t separator = input.find('\0');
  Json messages =
      Json::array({{{"role", "user"}, {"content", "Hello <think>x</think> wörld"}},
                   {{"role", "assistant"},
                    {"content", ""},
                    {"tool_calls", Json::array({{{"function", {{"name", "f"}, {"arguments", {{"a", 1.5}}}}}}})}}});
  if (separator != input.npos) {
    const std::string_view text = input.substr(separator + 1);
    size_t depth = 0;  // the JSON library's own parser has no limit; the caller's does
    for (char c : text) depth += c == '[' || c == '{';
    Json parsed = depth > 100 ? Json() : Json::parse(text, nullptr, false);
    if (!parsed.is_discarded()) messages = std::move(parsed);
  }
  try {
    const auto chat_template = expert::ChatTemplate::parse(input.substr(0, separator), "fuzz");
    expert::ChatTemplate::Options options;
    options.tools = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
    options.limits = {
        .steps = 20'000, .bytes = 16 << 20, .output_bytes = 1 << 20, .string_bytes = 1 << 20, .depth = 1200};
    chat_template->render(messages, options);
  } catch (const expert::Error& error) {
    if (error.code() == expert::ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
