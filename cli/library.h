// The C interface with owners: what expert.h gives is freed when these go.
#pragma once

#include <expert/expert.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "failure.h"

namespace cli {

using Json = nlohmann::ordered_json;

struct Deleter {
  void operator()(expert_engine* engine) const { expert_engine_free(engine); }
  void operator()(expert_stream* stream) const { expert_stream_free(stream); }
  void operator()(expert_chunk* chunk) const { expert_chunk_free(chunk); }
  void operator()(expert_result* result) const { expert_result_free(result); }
  void operator()(char* text) const { expert_free(text); }
};

using Engine = std::unique_ptr<expert_engine, Deleter>;
using Stream = std::unique_ptr<expert_stream, Deleter>;
using Chunk = std::unique_ptr<expert_chunk, Deleter>;
using Result = std::unique_ptr<expert_result, Deleter>;
using Text = std::unique_ptr<char, Deleter>;

// json_from(expert_model_list, home): calls a function whose last parameter is `char** out_json`.
template <typename Function, typename... Arguments>
Json json_from(Function function, Arguments... arguments) {
  char* text = nullptr;
  check(function(arguments..., &text));
  return Json::parse(Text(text).get());
}

// One pretty document, and a line end.
std::string pretty(const Json& json);

// Warnings of the library to stderr; with `debug` everything it says.
void log_to_stderr(bool debug);

}  // namespace cli
