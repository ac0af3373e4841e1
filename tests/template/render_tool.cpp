// Renders for the oracle: one JSON object per line in, one per line out.
//   {"template": "...", "messages": [...], "tools": ..., "variables": {...}, "add_generation_prompt": true, "now":
//   seconds} → {"text": "..."} or {"error": "...", "code": n}
// {"directory": "..."} in place of the template loads it as a model's.
#include <chrono>
#include <iostream>
#include <string>

#include "core/error.h"
#include "text/chat_template.h"

namespace {

using expert::ChatTemplate;
using expert::Json;

Json answer(const Json& request) {
  try {
    const auto chat_template = request.contains("directory")
                                   ? ChatTemplate::load(request["directory"].get<std::string>())
                                   : ChatTemplate::parse(request["template"].get<std::string>(), "template");
    if (!chat_template) return {{"error", "no template"}, {"code", -1}};
    ChatTemplate::Options options;
    options.tools = request.value("tools", Json());
    options.variables = request.value("variables", Json());
    options.add_generation_prompt = request.value("add_generation_prompt", true);
    if (request.contains("now"))
      options.now = std::chrono::system_clock::time_point(std::chrono::seconds(request["now"].get<int64_t>()));
    return {{"text", chat_template->render(request["messages"], options)}};
  } catch (const expert::Error& error) {
    return {{"error", error.what()}, {"code", static_cast<int>(error.code())}};
  }
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);)
    std::cout << answer(Json::parse(line)).dump() << '\n' << std::flush;
}
