// The scenario through expert.h alone.
#include <expert/expert.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "steps.h"

namespace {

using scenario::Json;

struct Freed {
  void operator()(expert_engine* handle) const { expert_engine_free(handle); }
  void operator()(expert_expert* handle) const { expert_expert_free(handle); }
  void operator()(expert_stream* handle) const { expert_stream_free(handle); }
  void operator()(expert_chunk* handle) const { expert_chunk_free(handle); }
  void operator()(expert_result* handle) const { expert_result_free(handle); }
  void operator()(char* text) const { expert_free(text); }
  void operator()(int32_t* ids) const { expert_free(ids); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freed>;

struct Status {
  expert_status status;
};
void check(expert_status status) {
  if (status != EXPERT_OK) throw Status{status};
}

// Owns what an expert_request points to.
struct Request {
  std::vector<std::string> texts;
  std::vector<std::pair<std::string, float>> named;
  std::vector<expert_use> uses;
  std::vector<const char*> stop;
  std::vector<int32_t> bias_tokens;
  std::vector<float> bias_values;
  expert_request view = EXPERT_REQUEST_INIT;

  explicit Request(const Json& from) {
    texts.reserve(64);
    text(from, "prompt", view.prompt, &view.prompt_length);
    text(from, "schema", view.schema, &view.schema_length);
    text(from, "body", view.body, &view.body_length);
    if (from.contains("messages")) view.messages = keep(from["messages"].dump());
    for (const auto& [name, field] : {std::pair{"temperature", &view.temperature},
                                      {"top_p", &view.top_p},
                                      {"min_p", &view.min_p},
                                      {"repetition_penalty", &view.repetition_penalty},
                                      {"presence_penalty", &view.presence_penalty},
                                      {"frequency_penalty", &view.frequency_penalty}}) {
      if (from.contains(name)) *field = from[name].get<float>();
    }
    for (const auto& [name, field] :
         {std::pair{"top_k", &view.top_k}, {"max_tokens", &view.max_tokens}, {"logprobs", &view.logprobs}}) {
      if (from.contains(name)) *field = from[name].get<int32_t>();
    }
    if (from.contains("seed")) view.seed = from["seed"].get<uint64_t>();
    if (from.value("raw", false)) view.flags |= EXPERT_REQUEST_RAW;
    if (from.value("ignore_eos", false)) view.flags |= EXPERT_REQUEST_IGNORE_EOS;
    if (!from.value("special_in_text", true)) view.flags |= EXPERT_REQUEST_PLAIN_TEXT;
    lists(from);
  }
  const char* keep(std::string value) { return texts.emplace_back(std::move(value)).c_str(); }
  void text(const Json& from, const char* name, const char*& pointer, size_t* length) {
    if (!from.contains(name)) return;
    pointer = keep(from[name].get<std::string>());
    *length = texts.back().size();
  }
  void lists(const Json& from) {
    if (from.contains("experts") && from["experts"].empty()) view.flags |= EXPERT_REQUEST_BASE_ONLY;
    named = scenario::pairs(from.value("experts", Json::array()));
    for (const auto& [name, weight] : named) uses.push_back({nullptr, name.c_str(), weight});
    for (const Json& entry : from.value("stop", Json::array())) stop.push_back(keep(entry));
    const Json bias = from.value("logit_bias", Json::object());
    for (const auto& [token, value] : bias.items()) {
      bias_tokens.push_back(std::stoi(token));
      bias_values.push_back(value);
    }
    view.experts = uses.data();
    view.expert_count = uses.size();
    view.stop = stop.data();
    view.stop_count = stop.size();
    view.logit_bias_tokens = bias_tokens.data();
    view.logit_bias_values = bias_values.data();
    view.logit_bias_count = bias_tokens.size();
  }
};

Json outcome_of(const expert_result* result) { return scenario::outcome(Json::parse(expert_result_json(result))); }

Json infer(expert_engine* engine, const Json& step) {
  const Request request(step["request"]);
  expert_result* given = nullptr;
  check(expert_infer(engine, &request.view, &given));
  return outcome_of(Owned<expert_result>(given).get());
}

Json stream(expert_engine* engine, const Json& step) {
  const Request request(step["request"]);
  expert_stream* submitted = nullptr;
  check(expert_submit(engine, &request.view, &submitted));
  const Owned<expert_stream> running(submitted);
  std::string text;
  Json last;
  while (true) {
    expert_chunk* next = nullptr;
    check(expert_stream_next(running.get(), -1, &next));
    const Owned<expert_chunk> chunk(next);
    if (chunk == nullptr) break;
    size_t length = 0;
    const char* piece = expert_chunk_text(chunk.get(), &length);
    text.append(piece, length);
    if (expert_chunk_result(chunk.get()) != nullptr) last = outcome_of(expert_chunk_result(chunk.get()));
  }
  return {{"text", text}, {"result", last}};
}

Json infer_batch(expert_engine* engine, const Json& step) {
  std::vector<std::unique_ptr<Request>> owned;
  std::vector<const expert_request*> requests;
  for (const Json& request : step["requests"]) {
    requests.push_back(&owned.emplace_back(std::make_unique<Request>(request))->view);
  }
  std::vector<expert_result*> results(requests.size());
  check(expert_infer_batch(engine, requests.data(), requests.size(), results.data(), nullptr));
  Json out = Json::array();
  for (expert_result* result : results) out.push_back(outcome_of(Owned<expert_result>(result).get()));
  return out;
}

Json route(expert_engine* engine, const Json& step) {
  const Request request(step["request"]);
  char* given = nullptr;
  check(expert_route(engine, &request.view, &given));
  return scenario::plan(Json::parse(Owned<char>(given).get()));
}

Json tokenize(expert_engine* engine, const Json& step) {
  const std::string text = step["text"];
  int32_t* ids = nullptr;
  size_t count = 0;
  check(expert_tokenize(engine, text.data(), text.size(), 0, &ids, &count));
  const Owned<int32_t> owned(ids);
  return std::vector<int32_t>(ids, ids + count);
}

Json detokenize(expert_engine* engine, const Json& step) {
  const std::vector<int32_t> ids = step["ids"];
  char* given = nullptr;
  size_t length = 0;
  check(expert_detokenize(engine, ids.data(), ids.size(), 0, &given, &length));
  return std::string(Owned<char>(given).get(), length);
}

Json apply_chat_template(expert_engine* engine, const Json& step) {
  char* given = nullptr;
  check(expert_apply_chat_template(engine, step["messages"].dump().c_str(), nullptr, nullptr, 0, &given, nullptr));
  return Owned<char>(given).get();
}

Json logits(expert_engine* engine, const Json& step) {
  const Request experts(Json{{"experts", step["experts"]}});
  const std::vector<int32_t> ids = step["ids"];
  int32_t columns = 0;
  check(expert_engine_vocab_size(engine, &columns));
  std::vector<float> out(ids.size() * static_cast<size_t>(columns));
  check(
      expert_logits(engine, ids.data(), ids.size(), experts.uses.data(), experts.uses.size(), out.data(), out.size()));
  return scenario::largest_of_rows(out, static_cast<size_t>(columns));
}

Json embed(expert_engine* engine, const Json& step) {
  const std::string text = step["text"];
  const std::string pooling = step.value("pooling", "last");
  int32_t size = 0;
  check(expert_engine_hidden_size(engine, &size));
  std::vector<float> out(static_cast<size_t>(size));
  check(expert_embed(engine, text.data(), text.size(), pooling.c_str(), nullptr, 0, 0, out.data(), out.size()));
  return scenario::rounded(out);
}

Json load_expert(expert_engine* engine, const Json& step) {
  expert_expert* loaded = nullptr;
  check(expert_load(engine, step["source"].get<std::string>().c_str(), &loaded));
  return expert_expert_name(Owned<expert_expert>(loaded).get());
}

Json run(expert_engine* engine, const Json& step) {
  using Call = Json (*)(expert_engine*, const Json&);
  const std::vector<std::pair<const char*, Call>> calls = {{"infer", infer},
                                                           {"stream", stream},
                                                           {"infer_batch", infer_batch},
                                                           {"route", route},
                                                           {"tokenize", tokenize},
                                                           {"detokenize", detokenize},
                                                           {"logits", logits},
                                                           {"embed", embed},
                                                           {"apply_chat_template", apply_chat_template},
                                                           {"load_expert", load_expert}};
  for (const auto& [name, call] : calls) {
    if (step["call"] == name) return call(engine, step);
  }
  throw std::runtime_error("no call " + step["call"].dump());
}

}  // namespace

int main(int /*argc*/, char** argv) {
  const Json story = scenario::read(argv[1]);
  const std::string model = std::string(argv[1]) + "/" + story["engine"]["base_model"].get<std::string>();
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = model.c_str();
  options.home = argv[2];
  options.threads = story["engine"]["threads"];
  expert_engine* opened = nullptr;
  if (expert_engine_open(&options, &opened) != EXPERT_OK) {
    std::cerr << expert_last_error()->message << "\n";
    return 1;
  }
  const Owned<expert_engine> engine(opened);
  return scenario::tell(story, [&](const Json& step) -> Json {
    try {
      return run(engine.get(), step);
    } catch (const Status& failure) {
      return {{"error", expert_status_name(failure.status)}};
    }
  });
}
