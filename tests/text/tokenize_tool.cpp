// Speaks JSON lines with tests/oracle/test_tokenizer.py; a tool of the tests, not shipped.
//   tokenize_tool MODEL_DIR < requests > answers
// Request {"text": …, "special_in_text": true, "add_post_processor": false} → {"ids": […], "decoded": …, "skipped": …,
// "pieces": […]}; request {"ids": […]} → the same without "ids"; with "ids_only": true → {"ids": […]}; a refusal →
// {"error": …}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.h"
#include "text/tokenizer.h"

namespace {

using nlohmann::json;

json answer(const std::shared_ptr<const expert::Tokenizer>& tokenizer, const json& request) {
  json result;
  std::vector<int32_t> ids;
  if (request.contains("text")) {
    ids = tokenizer->encode(request["text"].get_ref<const std::string&>(),
                            {request.value("special_in_text", true), request.value("add_post_processor", false)});
    result["ids"] = ids;
    if (request.value("ids_only", false)) return result;
  } else {
    ids = request["ids"].get<std::vector<int32_t>>();
  }
  result["decoded"] = tokenizer->decode(ids, false);
  result["skipped"] = tokenizer->decode(ids, true);
  expert::TokenStream stream(tokenizer, false);
  for (const int32_t id : ids) result["pieces"].push_back(stream.push(id));
  result["pieces"].push_back(stream.flush());
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const auto tokenizer = expert::Tokenizer::load(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      try {
        std::cout << answer(tokenizer, json::parse(line)).dump() << '\n';
      } catch (const expert::Error& error) {
        std::cout << json{{"error", error.what()}}.dump() << '\n';
      }
    }
  } catch (const expert::Error& error) {
    std::cout << json{{"load_error", error.what()}, {"code", static_cast<int>(error.code())}}.dump() << '\n';
    return 1;
  }
}
