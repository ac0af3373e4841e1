// The bundled model through the C interface: what works, what is refused, threads, cancelling, fork.
#include <doctest/doctest.h>
#include <expert/expert.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

using Json = nlohmann::json;

struct Free {
  void operator()(expert_engine* handle) const { expert_engine_free(handle); }
  void operator()(expert_expert* handle) const { expert_expert_free(handle); }
  void operator()(expert_stream* handle) const { expert_stream_free(handle); }
  void operator()(expert_chunk* handle) const { expert_chunk_free(handle); }
  void operator()(expert_result* handle) const { expert_result_free(handle); }
  void operator()(char* text) const { expert_free(text); }
  void operator()(int32_t* ids) const { expert_free(ids); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

const std::string kModel = std::string(EXPERT_SOURCE_DIR) + "/models/base";

expert_engine* open_engine() {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = kModel.c_str();
  options.threads = 1;
  options.home = "/nonexistent/expert-home";
  expert_engine* engine = nullptr;
  REQUIRE_MESSAGE(expert_engine_open(&options, &engine) == EXPERT_OK, expert_last_error()->message);
  return engine;
}

// One engine for all tests; opening is tested by itself.
expert_engine* engine() {
  static const Owned<expert_engine> shared(open_engine());
  return shared.get();
}

expert_request base_request(const char* prompt) {
  expert_request request = EXPERT_REQUEST_INIT;
  request.prompt = prompt;
  request.flags = EXPERT_REQUEST_BASE_ONLY;
  request.temperature = 0;
  request.max_tokens = 8;
  return request;
}

Owned<expert_result> infer(const expert_request& request) {
  expert_result* result = nullptr;
  REQUIRE_MESSAGE(expert_infer(engine(), &request, &result) == EXPERT_OK, expert_last_error()->message);
  return Owned<expert_result>(result);
}

expert_status refused(const expert_request& request) {
  expert_result* result = reinterpret_cast<expert_result*>(1);
  const expert_status status = expert_infer(engine(), &request, &result);
  CHECK(result == nullptr);
  return status;
}

std::string text_of(const expert_result* result) {
  size_t length = 0;
  const char* text = expert_result_text(result, &length);
  return {text, length};
}

}  // namespace

TEST_CASE("a model that is not there is a load error with a hint") {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = "/nonexistent/model";
  expert_engine* opened = reinterpret_cast<expert_engine*>(1);
  CHECK(expert_engine_open(&options, &opened) == EXPERT_ERROR_LOAD);
  CHECK(opened == nullptr);
  CHECK(std::string(expert_last_error()->message).find("/nonexistent/model") != std::string::npos);
  CHECK(std::string(expert_last_error()->hint) != "");
}

TEST_CASE("what is not built yet is refused by name") {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = kModel.c_str();
  expert_engine* opened = nullptr;
  options.device = "cuda";
  CHECK(expert_engine_open(&options, &opened) == EXPERT_ERROR_UNSUPPORTED);
  CHECK(std::string(expert_last_error()->message).find("cuda") != std::string::npos);
}

TEST_CASE("a progress callback that returns non-zero ends the loading") {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = kModel.c_str();
  options.flags = EXPERT_ENGINE_NO_WEIGHT_CACHE;
  options.progress = [](void* calls, double fraction) {
    ++*static_cast<int*>(calls);
    CHECK(fraction >= 0);
    CHECK(fraction <= 1);
    return 1;
  };
  int calls = 0;
  options.progress_user_data = &calls;
  expert_engine* opened = nullptr;
  CHECK(expert_engine_open(&options, &opened) == EXPERT_ERROR_CANCELLED);
  CHECK(calls == 1);
  CHECK(opened == nullptr);
}

TEST_CASE("one answer: getters and JSON say the same") {
  const Owned<expert_result> result = infer(base_request("Hello there"));
  size_t count = 0;
  const int32_t* tokens = expert_result_tokens(result.get(), &count);
  const Json json = Json::parse(expert_result_json(result.get()));
  CHECK(json.at("text") == text_of(result.get()));
  CHECK(json.at("output") == expert_result_output(result.get(), nullptr));
  CHECK(json.at("tokens") == std::vector<int32_t>(tokens, tokens + count));
  CHECK(json.at("finish_reason") == expert_finish_reason_name(expert_result_finish_reason(result.get())));
  CHECK(json.at("experts_used").empty());
  CHECK(json.at("plan") == Json::parse(expert_result_plan(result.get())));
  expert_usage usage = EXPERT_USAGE_INIT;
  REQUIRE(expert_result_usage(result.get(), &usage) == EXPERT_OK);
  CHECK(usage.completion_tokens > 0);
  CHECK(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens);
  CHECK(json.at("usage").at("total_tokens") == usage.total_tokens);
  expert_timings timings = EXPERT_TIMINGS_INIT;
  REQUIRE(expert_result_timings(result.get(), &timings) == EXPERT_OK);
  CHECK(timings.total_ms >= timings.first_token_ms);
  usage.struct_size = 4;
  CHECK(expert_result_usage(result.get(), &usage) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_result_expert(result.get(), 0, nullptr, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("the texts of a result are made once, whoever asks first") {
  const Owned<expert_result> result = infer(base_request("Hello"));
  const char* seen[4] = {};
  std::vector<std::thread> threads;
  for (const char*& text : seen) {
    threads.emplace_back([&] { text = expert_result_json(result.get()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const char* text : seen) CHECK(text == expert_result_json(result.get()));
  CHECK(expert_result_plan(result.get()) == expert_result_plan(result.get()));
}

TEST_CASE("a prompt with a length may hold NUL bytes, and the rest of the buffer is not read") {
  expert_request request = base_request(nullptr);
  const char prompt[] = {'a', '\0', 'b', 'X', 'X'};
  request.prompt = prompt;
  request.prompt_length = 3;
  const Json with_nul = Json::parse(expert_result_json(infer(request).get()));
  request.prompt_length = 1;
  const Json without = Json::parse(expert_result_json(infer(request).get()));
  CHECK(with_nul["usage"]["prompt_tokens"].get<int>() > without["usage"]["prompt_tokens"].get<int>());
}

TEST_CASE("bad parameters are refused before anything runs") {
  expert_request request = base_request("");
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.temperature = -1;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(std::string(expert_last_error()->message).find("temperature") != std::string::npos);
  request = base_request("x");
  request.temperature = INFINITY;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.top_p = 0;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.max_tokens = 0;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.flags |= UINT32_C(1) << 20;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.messages = "[]";
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request(nullptr);
  request.messages = "[{\"role\": ";
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  request.messages = deep.c_str();
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.stop_count = 1;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request = base_request("x");
  request.logit_bias_count = 1;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("wrong experts are refused") {
  expert_request request = base_request("x");
  expert_use use = {nullptr, "no-such-expert", 1};
  request.experts = &use;
  request.expert_count = 1;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);  // BASE_ONLY and experts
  request.flags = 0;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(std::string(expert_last_error()->message).find("no-such-expert") != std::string::npos);
  use = {nullptr, nullptr, 1};
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  use = {nullptr, "sql", NAN};
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
  request.experts = nullptr;
  CHECK(refused(request) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("only if quick: nothing is submitted where an expert had to be read first") {
  const Owned<expert_engine> fresh(open_engine());
  const auto submit = [&](const expert_request& request) {
    expert_stream* stream = reinterpret_cast<expert_stream*>(1);
    REQUIRE(expert_submit(fresh.get(), &request, &stream) == EXPERT_OK);
    return Owned<expert_stream>(stream);
  };
  expert_request named = base_request("Hello");
  const expert_use use = {nullptr, "sql", 1.0F};
  named.experts = &use;
  named.expert_count = 1;
  named.flags = 0;
  expert_request routed = base_request("Hello");
  routed.flags = 0;
  for (expert_request* request : {&named, &routed}) {
    request->flags = EXPERT_REQUEST_IF_QUICK;
    CHECK(submit(*request) == nullptr);
    request->flags = 0;
    const Owned<expert_stream> first = submit(*request);
    expert_result* result = nullptr;
    REQUIRE(expert_stream_wait(first.get(), -1, &result) == EXPERT_OK);
    expert_result_free(result);
    request->flags = EXPERT_REQUEST_IF_QUICK;
    CHECK(submit(*request) != nullptr);
  }
  expert_request base = base_request("Hello");
  base.flags |= EXPERT_REQUEST_IF_QUICK;
  CHECK(submit(base) != nullptr);
  // Errors are errors, and who waits for the answer anyway has no use for the flag.
  const expert_use unknown = {nullptr, "nobody", 1.0F};
  named.experts = &unknown;
  CHECK(submit(named) == nullptr);  // whether a folder has it is not looked up here
  CHECK(refused(base) == EXPERT_ERROR_INVALID_REQUEST);
  base.max_tokens = -1;
  expert_stream* none = nullptr;
  CHECK(expert_submit(fresh.get(), &base, &none) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("chunks of a stream add up to the result") {
  expert_request request = base_request("Tell me about users");
  request.max_tokens = 16;
  request.flags |= EXPERT_REQUEST_IGNORE_EOS;
  expert_stream* submitted = nullptr;
  REQUIRE(expert_submit(engine(), &request, &submitted) == EXPERT_OK);
  const Owned<expert_stream> stream(submitted);
  std::string text;
  std::vector<int32_t> tokens;
  bool saw_result = false;
  while (true) {
    expert_chunk* next = nullptr;
    REQUIRE(expert_stream_next(stream.get(), -1, &next) == EXPERT_OK);
    const Owned<expert_chunk> chunk(next);
    if (chunk == nullptr) break;
    CHECK_FALSE(saw_result);
    size_t length = 0;
    const char* piece = expert_chunk_text(chunk.get(), &length);
    text.append(piece, length);
    size_t count = 0;
    const int32_t* ids = expert_chunk_tokens(chunk.get(), &count);
    tokens.insert(tokens.end(), ids, ids + count);
    if (const expert_result* result = expert_chunk_result(chunk.get())) {
      saw_result = true;
      CHECK(text_of(result) == text);
    }
  }
  CHECK(saw_result);
  CHECK(tokens.size() == 16);
  expert_chunk* after = reinterpret_cast<expert_chunk*>(1);
  CHECK(expert_stream_next(stream.get(), 0, &after) == EXPERT_OK);
  CHECK(after == nullptr);
  expert_result* result = nullptr;
  REQUIRE(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
  CHECK(text_of(Owned<expert_result>(result).get()) == text);
  CHECK(expert_stream_done(stream.get()) == 1);
}

TEST_CASE("a cancelled stream ends with what it had") {
  expert_request request = base_request("Count");
  request.max_tokens = 900;
  request.flags |= EXPERT_REQUEST_IGNORE_EOS;
  expert_stream* submitted = nullptr;
  REQUIRE(expert_submit(engine(), &request, &submitted) == EXPERT_OK);
  const Owned<expert_stream> stream(submitted);
  expert_chunk* first = nullptr;
  REQUIRE(expert_stream_next(stream.get(), -1, &first) == EXPERT_OK);
  expert_chunk_free(first);
  expert_cancel(stream.get());
  expert_cancel(stream.get());
  expert_result* ended = nullptr;
  REQUIRE(expert_stream_wait(stream.get(), -1, &ended) == EXPERT_OK);
  const Owned<expert_result> result(ended);
  CHECK(expert_result_finish_reason(result.get()) == EXPERT_FINISH_CANCELLED);
  size_t count = 0;
  expert_result_tokens(result.get(), &count);
  CHECK(count >= 1);
  CHECK(count < 900);
}

TEST_CASE("a wait that is too short times out and the request goes on") {
  expert_request request = base_request("Count");
  request.max_tokens = 300;
  request.flags |= EXPERT_REQUEST_IGNORE_EOS;
  expert_stream* submitted = nullptr;
  REQUIRE(expert_submit(engine(), &request, &submitted) == EXPERT_OK);
  const Owned<expert_stream> stream(submitted);
  expert_result* result = nullptr;
  CHECK(expert_stream_wait(stream.get(), 0, &result) == EXPERT_ERROR_TIMEOUT);
  CHECK(result == nullptr);
  REQUIRE(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
  CHECK(expert_result_finish_reason(result) == EXPERT_FINISH_LENGTH);
  expert_result_free(result);
}

TEST_CASE("a loaded expert: metadata, use by handle, and after unloading") {
  const std::string source = std::string(EXPERT_SOURCE_DIR) + "/models/experts/sql";
  expert_expert* loaded = nullptr;
  REQUIRE_MESSAGE(expert_load(engine(), source.c_str(), &loaded) == EXPERT_OK, expert_last_error()->message);
  const Owned<expert_expert> sql(loaded);
  CHECK(std::string(expert_expert_name(sql.get())) == "expert-sql");
  CHECK(Json::parse(expert_expert_kinds(sql.get())) == Json::array({"lora"}));
  CHECK(Json::parse(expert_expert_manifest(sql.get())).at("name") == "expert-sql");
  CHECK(Json::parse(expert_expert_warnings(sql.get())).is_array());
  CHECK(expert_expert_size_bytes(sql.get()) > 100000);

  const expert_use use = {sql.get(), nullptr, 0.25F};
  expert_request request = base_request("Find all users older than 25");
  request.flags = 0;
  request.experts = &use;
  request.expert_count = 1;
  const Owned<expert_result> result = infer(request);
  REQUIRE(expert_result_expert_count(result.get()) == 1);
  const char* name = nullptr;
  const char* version = nullptr;
  float weight = 0;
  CHECK(expert_result_expert(result.get(), 0, &name, &version, &weight) == EXPERT_OK);
  CHECK(std::string(name) == "expert-sql");
  CHECK(std::string(version) == expert_expert_version(sql.get()));
  CHECK(weight == 0.25F);

  CHECK(expert_unload(engine(), sql.get()) == EXPERT_OK);
  CHECK(expert_unload(engine(), sql.get()) == EXPERT_OK);
  CHECK(refused(request) == EXPERT_ERROR_CLOSED);
  CHECK(expert_load(engine(), "/nonexistent/x.expert", &loaded) == EXPERT_ERROR_LOAD);
  CHECK(loaded == nullptr);
}

TEST_CASE("an expert at weight 0 changes nothing, at weight 1 it does") {
  const int32_t ids[] = {5, 6, 7};
  int32_t vocab = 0;
  REQUIRE(expert_engine_vocab_size(engine(), &vocab) == EXPERT_OK);
  const auto size = static_cast<size_t>(vocab) * 3;
  std::vector<float> base(size), none(size), with(size);
  const std::string source = std::string(EXPERT_SOURCE_DIR) + "/models/experts/sql";
  expert_use use = {nullptr, source.c_str(), 0};
  REQUIRE(expert_logits(engine(), ids, 3, nullptr, 0, base.data(), size) == EXPERT_OK);
  REQUIRE(expert_logits(engine(), ids, 3, &use, 1, none.data(), size) == EXPERT_OK);
  use.weight = 1;
  REQUIRE(expert_logits(engine(), ids, 3, &use, 1, with.data(), size) == EXPERT_OK);
  CHECK(base == none);
  CHECK(base != with);
  CHECK(expert_logits(engine(), ids, 3, nullptr, 0, base.data(), size - 1) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_logits(engine(), ids, 0, nullptr, 0, base.data(), size) == EXPERT_ERROR_INVALID_REQUEST);
  const int32_t outside[] = {vocab};
  CHECK(expert_logits(engine(), outside, 1, nullptr, 0, base.data(), size) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("tokens and back") {
  const std::string text = "SELECT name FROM users;";
  int32_t* given = nullptr;
  size_t count = 0;
  REQUIRE(expert_tokenize(engine(), text.data(), text.size(), 0, &given, &count) == EXPERT_OK);
  const Owned<int32_t> ids(given);
  CHECK(count > 2);
  char* back = nullptr;
  size_t length = 0;
  REQUIRE(expert_detokenize(engine(), ids.get(), count, 0, &back, &length) == EXPERT_OK);
  CHECK(std::string(Owned<char>(back).get(), length) == text);
  const int32_t outside[] = {-1};
  CHECK(expert_detokenize(engine(), outside, 1, 0, &back, &length) != EXPERT_OK);
  CHECK(back == nullptr);
}

TEST_CASE("an embedding has length 1 unless asked otherwise") {
  int32_t width = 0;
  REQUIRE(expert_engine_hidden_size(engine(), &width) == EXPERT_OK);
  std::vector<float> state(static_cast<size_t>(width));
  for (const char* pooling : {"last", "mean"}) {
    REQUIRE(expert_embed(engine(), "hello", EXPERT_NUL_TERMINATED, pooling, nullptr, 0, 0, state.data(),
                         state.size()) == EXPERT_OK);
    double squares = 0;
    for (float value : state) squares += static_cast<double>(value) * static_cast<double>(value);
    CHECK(squares == doctest::Approx(1.0).epsilon(1e-4));
  }
  CHECK(expert_embed(engine(), "hello", EXPERT_NUL_TERMINATED, "max", nullptr, 0, 0, state.data(), state.size()) ==
        EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("route and info are JSON objects") {
  expert_request request = EXPERT_REQUEST_INIT;
  request.prompt = "Find all users older than 25";
  request.schema = "users(id,name,age)";
  char* text = nullptr;
  REQUIRE(expert_route(engine(), &request, &text) == EXPERT_OK);
  const Json plan = Json::parse(Owned<char>(text).get());
  for (const char* key : {"experts", "parameters", "confidence", "explanation"}) CHECK(plan.contains(key));
  REQUIRE(plan.at("experts").size() == 1);
  CHECK(plan.at("experts")[0].at("name") == "expert-sql");
  REQUIRE(expert_engine_info(engine(), &text) == EXPERT_OK);
  const Json info = Json::parse(Owned<char>(text).get());
  CHECK(info.at("fingerprint").get<std::string>().size() == 64);
  for (const char* key : {"model", "architecture", "weights", "kv", "isa", "threads", "context_size", "warnings"}) {
    CHECK_MESSAGE(info.contains(key), key);
  }
  REQUIRE(expert_engine_stats(engine(), &text) == EXPERT_OK);
  CHECK(Json::parse(Owned<char>(text).get()).is_object());
  REQUIRE(expert_engine_experts(engine(), &text) == EXPERT_OK);
  CHECK(Json::parse(Owned<char>(text).get()).is_array());
}

TEST_CASE("byte budgets are options: no prefix cache, and room for one expert") {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  CHECK(options.prefix_cache_bytes == EXPERT_UNSET_BYTES);
  options.base_model = kModel.c_str();
  options.threads = 1;
  options.home = "/nonexistent/expert-home";
  options.prefix_cache_bytes = 0;
  options.expert_cache_bytes = 1 << 20;
  expert_engine* opened = nullptr;
  REQUIRE(expert_engine_open(&options, &opened) == EXPERT_OK);
  const Owned<expert_engine> own(opened);
  const expert_request request = base_request("A prompt that is longer than one block of sixteen tokens, by quite a bit.");
  const auto cached = [&](expert_engine* engine) {
    expert_usage usage = EXPERT_USAGE_INIT;
    for (int i = 0; i < 2; ++i) {
      expert_result* result = nullptr;
      REQUIRE(expert_infer(engine, &request, &result) == EXPERT_OK);
      REQUIRE(expert_result_usage(Owned<expert_result>(result).get(), &usage) == EXPERT_OK);
    }
    return usage.cached_tokens;
  };
  CHECK(cached(own.get()) == 0);
  CHECK(cached(engine()) > 0);
  char* text = nullptr;
  REQUIRE(expert_engine_stats(own.get(), &text) == EXPERT_OK);
  CHECK(Json::parse(Owned<char>(text).get()).at("/experts/tiers/host/budget_bytes"_json_pointer) == 1 << 20);
}

TEST_CASE("many threads get the answer that one gets") {
  const std::string alone = text_of(infer(base_request("Hello there")).get());
  std::vector<std::string> answers(8);
  std::vector<std::thread> threads;
  for (std::string& answer : answers) {
    threads.emplace_back([&answer] { answer = text_of(infer(base_request("Hello there")).get()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& answer : answers) CHECK(answer == alone);
}

TEST_CASE("handles outlive the engine they came from, in any order of freeing") {
  Owned<expert_engine> own(open_engine());
  expert_request request = base_request("Count");
  request.max_tokens = 900;
  request.flags |= EXPERT_REQUEST_IGNORE_EOS;
  expert_stream* submitted = nullptr;
  REQUIRE(expert_submit(own.get(), &request, &submitted) == EXPERT_OK);
  const Owned<expert_stream> stream(submitted);
  expert_expert* loaded = nullptr;
  REQUIRE(expert_load(own.get(), (std::string(EXPERT_SOURCE_DIR) + "/models/experts/sql").c_str(), &loaded) ==
          EXPERT_OK);
  const Owned<expert_expert> sql(loaded);
  own.reset();
  expert_result* result = nullptr;
  REQUIRE(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
  CHECK(expert_result_finish_reason(result) == EXPERT_FINISH_CANCELLED);
  expert_result_free(result);
  CHECK(std::string(expert_expert_name(sql.get())) == "expert-sql");
}

TEST_CASE("a closed engine refuses, twice closing is harmless") {
  const Owned<expert_engine> own(open_engine());
  CHECK(expert_engine_close(own.get(), 4) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_engine_close(own.get(), EXPERT_CLOSE_DRAIN) == EXPERT_OK);
  CHECK(expert_engine_close(own.get(), 0) == EXPERT_OK);
  const expert_request request = base_request("x");
  expert_result* result = nullptr;
  CHECK(expert_infer(own.get(), &request, &result) == EXPERT_ERROR_CLOSED);
}

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("a child process may free inherited handles, and every other call on them fails") {
  const Owned<expert_engine> own(open_engine());
  const pid_t child = fork();
  if (child == 0) {
    const expert_request request = base_request("x");
    expert_result* result = nullptr;
    const bool refused = expert_infer(own.get(), &request, &result) == EXPERT_ERROR_CLOSED;
    expert_engine_free(own.get());
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif
