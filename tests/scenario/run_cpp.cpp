// The scenario through expert.hpp.
#include <algorithm>
#include <cmath>
#include <expert/expert.hpp>

#include "steps.h"

namespace {

using scenario::Json;

template <typename T>
void set(const Json& from, const char* name, std::optional<T>& field) {
  if (from.contains(name)) field = from[name].get<T>();
}

std::vector<expert::Use> uses_of(const Json& experts) {
  std::vector<expert::Use> out;
  for (const auto& [name, weight] : scenario::pairs(experts)) out.emplace_back(name, weight);
  return out;
}

expert::Request request_of(const Json& from) {
  expert::Request out;
  set(from, "prompt", out.prompt);
  set(from, "schema", out.schema);
  set(from, "body", out.body);
  if (from.contains("messages")) out.messages = from["messages"].dump();
  if (from.contains("experts")) out.experts = uses_of(from["experts"]);
  set(from, "temperature", out.temperature);
  set(from, "top_p", out.top_p);
  set(from, "min_p", out.min_p);
  set(from, "repetition_penalty", out.repetition_penalty);
  set(from, "presence_penalty", out.presence_penalty);
  set(from, "frequency_penalty", out.frequency_penalty);
  set(from, "top_k", out.top_k);
  set(from, "max_tokens", out.max_tokens);
  set(from, "seed", out.seed);
  out.logprobs = from.value("logprobs", 0);
  out.raw = from.value("raw", false);
  out.ignore_eos = from.value("ignore_eos", false);
  out.special_in_text = from.value("special_in_text", true);
  out.stop = from.value("stop", std::vector<std::string>());
  const Json bias = from.value("logit_bias", Json::object());
  for (const auto& [token, value] : bias.items()) {
    out.logit_bias.emplace_back(std::stoi(token), value.get<float>());
  }
  return out;
}

Json outcome_of(const expert::Result& result) { return scenario::outcome(Json::parse(result.json())); }

Json stream(const expert::Engine& engine, const Json& step) {
  std::string text;
  Json last;
  expert::Stream running = engine.stream(request_of(step["request"]));
  for (const expert::Chunk& chunk : running) {
    text += chunk.text();
    if (const auto result = chunk.result()) last = outcome_of(*result);
  }
  return {{"text", text}, {"result", last}};
}

Json infer_batch(const expert::Engine& engine, const Json& step) {
  std::vector<expert::Request> requests;
  for (const Json& request : step["requests"]) requests.push_back(request_of(request));
  Json out = Json::array();
  for (const expert::Result& result : engine.infer_batch(requests)) out.push_back(outcome_of(result));
  return out;
}

Json run(const expert::Engine& engine, const Json& step) {
  const std::string call = step["call"];
  if (call == "infer") return outcome_of(engine.infer(request_of(step["request"])));
  if (call == "stream") return stream(engine, step);
  if (call == "infer_batch") return infer_batch(engine, step);
  if (call == "route") return scenario::plan(Json::parse(engine.route(request_of(step["request"]))));
  if (call == "tokenize") return engine.tokenize(step["text"].get<std::string>());
  if (call == "detokenize") return engine.detokenize(step["ids"].get<std::vector<int32_t>>());
  if (call == "apply_chat_template") return engine.apply_chat_template(step["messages"].dump());
  if (call == "logits") {
    return scenario::largest_of_rows(engine.logits(step["ids"].get<std::vector<int32_t>>(), uses_of(step["experts"])),
                                     static_cast<size_t>(engine.vocab_size()));
  }
  if (call == "embed")
    return scenario::rounded(engine.embed(step["text"].get<std::string>(), step.value("pooling", "last")));
  if (call == "load_expert") return engine.load_expert(step["source"]).name();
  throw std::runtime_error("no call " + call);
}

}  // namespace

int main(int /*argc*/, char** argv) {
  const Json story = scenario::read(argv[1]);
  const expert::Engine engine(
      {.base_model = std::string(argv[1]) + "/" + story["engine"]["base_model"].get<std::string>(),
       .home = argv[2],
       .threads = story["engine"]["threads"].get<int32_t>()});
  return scenario::tell(story, [&](const Json& step) -> Json {
    try {
      return run(engine, step);
    } catch (const expert::Error& error) {
      return {{"error", expert_status_name(error.status())}};
    }
  });
}
