// Every function with what it must refuse, without an engine: NULL, wrong sizes, unknown flags.
#include <doctest/doctest.h>
#include <expert/expert.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <thread>

namespace {

std::string message() { return expert_last_error()->message; }

#define CHECK_REFUSED(call, words)                                        \
  do {                                                                    \
    CHECK((call) == EXPERT_ERROR_INVALID_REQUEST);                        \
    CHECK(expert_last_error()->status == EXPERT_ERROR_INVALID_REQUEST);   \
    CHECK_MESSAGE(message().find(words) != std::string::npos, message()); \
  } while (false)

expert_engine* const kNoEngine = nullptr;

}  // namespace

TEST_CASE("engine functions refuse NULL") {
  char* text = reinterpret_cast<char*>(1);
  int32_t number = 5;
  CHECK_REFUSED(expert_engine_open(nullptr, nullptr), "out is NULL");
  CHECK_REFUSED(expert_engine_close(kNoEngine, 0), "engine is NULL");
  CHECK_REFUSED(expert_engine_info(kNoEngine, &text), "engine is NULL");
  CHECK(text == nullptr);
  CHECK_REFUSED(expert_engine_info(kNoEngine, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_engine_stats(kNoEngine, &text), "engine is NULL");
  CHECK_REFUSED(expert_engine_stats(kNoEngine, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_engine_experts(kNoEngine, &text), "engine is NULL");
  CHECK_REFUSED(expert_engine_experts(kNoEngine, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_engine_vocab_size(kNoEngine, &number), "engine is NULL");
  CHECK(number == 0);
  CHECK_REFUSED(expert_engine_vocab_size(kNoEngine, nullptr), "out is NULL");
  CHECK_REFUSED(expert_engine_hidden_size(kNoEngine, &number), "engine is NULL");
  CHECK_REFUSED(expert_engine_hidden_size(kNoEngine, nullptr), "out is NULL");
  expert_engine_free(nullptr);
}

TEST_CASE("expert functions refuse NULL, getters give empty values") {
  expert_expert* expert = reinterpret_cast<expert_expert*>(1);
  CHECK_REFUSED(expert_load(kNoEngine, "sql", &expert), "engine is NULL");
  CHECK(expert == nullptr);
  CHECK_REFUSED(expert_load(kNoEngine, "sql", nullptr), "out is NULL");
  CHECK_REFUSED(expert_unload(kNoEngine, nullptr), "engine is NULL");
  CHECK(std::string(expert_expert_name(nullptr)).empty());
  CHECK(std::string(expert_expert_version(nullptr)).empty());
  CHECK(std::string(expert_expert_kinds(nullptr)) == "[]");
  CHECK(std::string(expert_expert_manifest(nullptr)) == "null");
  CHECK(std::string(expert_expert_warnings(nullptr)) == "[]");
  CHECK(expert_expert_size_bytes(nullptr) == 0);
  expert_expert_free(nullptr);
}

TEST_CASE("requests and streams refuse NULL") {
  const expert_request request = EXPERT_REQUEST_INIT;
  expert_result* result = reinterpret_cast<expert_result*>(1);
  expert_stream* stream = nullptr;
  expert_chunk* chunk = nullptr;
  char* text = nullptr;
  CHECK_REFUSED(expert_infer(kNoEngine, &request, &result), "engine is NULL");
  CHECK(result == nullptr);
  CHECK_REFUSED(expert_infer(kNoEngine, &request, nullptr), "out is NULL");
  CHECK_REFUSED(expert_submit(kNoEngine, &request, &stream), "engine is NULL");
  CHECK_REFUSED(expert_submit(kNoEngine, &request, nullptr), "out is NULL");
  CHECK_REFUSED(expert_stream_next(nullptr, 0, &chunk), "stream is NULL");
  CHECK_REFUSED(expert_stream_next(nullptr, 0, nullptr), "out is NULL");
  CHECK_REFUSED(expert_stream_wait(nullptr, 0, &result), "stream is NULL");
  CHECK_REFUSED(expert_stream_wait(nullptr, 0, nullptr), "out is NULL");
  CHECK_REFUSED(expert_route(kNoEngine, &request, &text), "engine is NULL");
  CHECK_REFUSED(expert_route(kNoEngine, &request, nullptr), "out_json is NULL");
  CHECK(expert_stream_done(nullptr) == 1);
  expert_cancel(nullptr);
  expert_stream_free(nullptr);
  expert_chunk_free(nullptr);
}

TEST_CASE("result and chunk getters on NULL give empty values") {
  size_t length = 9;
  CHECK(std::string(expert_result_text(nullptr, &length)).empty());
  CHECK(length == 0);
  CHECK(std::string(expert_result_output(nullptr, nullptr)).empty());
  expert_result_tokens(nullptr, &length);
  CHECK(length == 0);
  CHECK(expert_result_expert_count(nullptr) == 0);
  CHECK(expert_result_finish_reason(nullptr) == EXPERT_FINISH_ERROR);
  CHECK(std::string(expert_result_plan(nullptr)) == "null");
  CHECK(std::string(expert_result_json(nullptr)) == "null");
  expert_usage usage = EXPERT_USAGE_INIT;
  expert_timings timings = EXPERT_TIMINGS_INIT;
  CHECK_REFUSED(expert_result_usage(nullptr, &usage), "result is NULL");
  CHECK_REFUSED(expert_result_timings(nullptr, &timings), "result is NULL");
  CHECK_REFUSED(expert_result_expert(nullptr, 0, nullptr, nullptr, nullptr), "result is NULL");
  CHECK(std::string(expert_chunk_text(nullptr, &length)).empty());
  expert_chunk_tokens(nullptr, &length);
  CHECK(length == 0);
  CHECK(expert_chunk_result(nullptr) == nullptr);
  expert_result_free(nullptr);
}

TEST_CASE("text functions refuse NULL") {
  int32_t* ids = nullptr;
  char* text = nullptr;
  float number = 0;
  size_t count = 3;
  CHECK_REFUSED(expert_tokenize(kNoEngine, "a", 1, 0, &ids, &count), "engine is NULL");
  CHECK(count == 0);
  CHECK_REFUSED(expert_tokenize(kNoEngine, "a", 1, 0, nullptr, &count), "out_ids is NULL");
  CHECK_REFUSED(expert_tokenize(kNoEngine, "a", 1, 64, &ids, &count), "unknown bits 0x40");
  CHECK_REFUSED(expert_detokenize(kNoEngine, nullptr, 0, 0, &text, nullptr), "engine is NULL");
  CHECK_REFUSED(expert_detokenize(kNoEngine, nullptr, 0, 0, nullptr, nullptr), "out_text is NULL");
  CHECK_REFUSED(expert_detokenize(kNoEngine, nullptr, 0, 2, &text, nullptr), "unknown bits");
  CHECK_REFUSED(expert_apply_chat_template(kNoEngine, "[]", nullptr, nullptr, 0, &text, nullptr), "engine is NULL");
  CHECK_REFUSED(expert_apply_chat_template(kNoEngine, nullptr, nullptr, nullptr, 0, &text, nullptr),
                "messages is NULL");
  CHECK_REFUSED(expert_logits(kNoEngine, nullptr, 0, nullptr, 0, &number, 1), "engine is NULL");
  CHECK_REFUSED(expert_embed(kNoEngine, "a", 1, nullptr, nullptr, 0, 0, &number, 1), "engine is NULL");
}

TEST_CASE("packages, models and bench refuse NULL and nonsense") {
  char* text = nullptr;
  CHECK_REFUSED(expert_package_install("/nonexistent", nullptr, 0, &text), "source is NULL");
  CHECK_REFUSED(expert_package_install("/nonexistent", "x", 0, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_package_install("/nonexistent", "x", 8, &text), "unknown bits 0x8");
  CHECK_REFUSED(expert_package_uninstall("/nonexistent", nullptr), "name is NULL");
  CHECK_REFUSED(expert_package_list("/nonexistent", 0, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_package_list("/nonexistent", 2, &text), "unknown bits");
  CHECK_REFUSED(expert_package_info("/nonexistent", nullptr, &text), "name_or_path is NULL");
  CHECK_REFUSED(expert_model_add("/nonexistent", nullptr, nullptr, &text), "directory is NULL");
  CHECK_REFUSED(expert_model_remove("/nonexistent", nullptr), "name is NULL");
  CHECK_REFUSED(expert_model_set_default("/nonexistent", nullptr), "name is NULL");
  CHECK_REFUSED(expert_model_list("/nonexistent", nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_bench(nullptr, nullptr, nullptr, nullptr), "out_json is NULL");
  CHECK_REFUSED(expert_bench("{", nullptr, nullptr, &text), "bench options");
  CHECK_REFUSED(expert_bench("{\"expert\": [1]}", nullptr, nullptr, &text), "unknown option \"expert\"");
  CHECK_REFUSED(expert_bench("{\"experts\": [-1]}", nullptr, nullptr, &text), "\"experts\"");
  CHECK_REFUSED(expert_bench("{\"experts\": []}", nullptr, nullptr, &text), "empty");
  CHECK_REFUSED(expert_bench("{\"prompt_tokens\": [0]}", nullptr, nullptr, &text), "\"prompt_tokens\"");
  CHECK_REFUSED(expert_bench("{\"repeat\": 0}", nullptr, nullptr, &text), "\"repeat\"");
  CHECK(text == nullptr);
  expert_free(nullptr);
}

TEST_CASE("option structs that are not ours are refused") {
  expert_engine* engine = nullptr;
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.struct_size = 0;
  CHECK_REFUSED(expert_engine_open(&options, &engine), "struct_size is 0");
  options = EXPERT_ENGINE_OPTIONS_INIT;
  options.flags = UINT32_C(1) << 31;
  CHECK_REFUSED(expert_engine_open(&options, &engine), "unknown bits");
  options = EXPERT_ENGINE_OPTIONS_INIT;
  options.rope_scaling = "{\"type\":";
  CHECK_REFUSED(expert_engine_open(&options, &engine), "options.rope_scaling");
  CHECK(engine == nullptr);
}

TEST_CASE("every status has a name of its own") {
  std::set<std::string> names;
  for (int status = EXPERT_OK; status <= EXPERT_ERROR_TIMEOUT; ++status) {
    names.insert(expert_status_name(static_cast<expert_status>(status)));
  }
  CHECK(names.size() == static_cast<size_t>(EXPERT_ERROR_TIMEOUT) + 1);
  CHECK(names.count("unknown") == 0);
  CHECK(std::string(expert_status_name(static_cast<expert_status>(15))) == "unknown");
  CHECK(std::string(expert_finish_reason_name(static_cast<expert_finish_reason>(7))) == "unknown");
}

TEST_CASE("the last error belongs to its thread") {
  CHECK_REFUSED(expert_engine_close(kNoEngine, 0), "engine is NULL");
  std::string elsewhere = "?";
  std::thread([&] { elsewhere = expert_last_error()->message; }).join();
  CHECK(elsewhere.empty());
  CHECK(message() == "engine is NULL");
}
