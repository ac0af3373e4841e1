// Requests, the streams that carry their answers, and results.
#include <algorithm>

#include "convert.h"
#include "handles.h"

using namespace expert;
using namespace expert::capi;

static_assert(EXPERT_FINISH_STOP == static_cast<int>(FinishReason::stop));
static_assert(EXPERT_FINISH_LENGTH == static_cast<int>(FinishReason::length));
static_assert(EXPERT_FINISH_TIMEOUT == static_cast<int>(FinishReason::timeout));
static_assert(EXPERT_FINISH_CANCELLED == static_cast<int>(FinishReason::cancelled));
static_assert(EXPERT_FINISH_ERROR == static_cast<int>(FinishReason::error));

namespace {

std::shared_ptr<Generation> submit(expert_engine* engine, const expert_request* request,
                                   uint32_t flags = kRequestFlags) {
  Engine& running = require(engine, "engine").held.get();
  return running.submit(request_of(request, flags));
}

// The next chunk of a stream that has not ended; nullopt: it has ended now.
std::optional<StreamChunk> next_chunk(expert_stream& stream, int64_t timeout_ms) try {
  std::optional<StreamChunk> chunk = stream.held.get().next(timeout_of(timeout_ms));
  if (!chunk && !waits_for_ever(timeout_ms) && !stream.ended) {
    fail(ErrorCode::timeout, "nothing came within {} ms", timeout_ms);
  }
  if (!chunk || chunk->result != nullptr) stream.ended = true;
  return chunk;
} catch (const Error& error) {
  if (error.code() != ErrorCode::timeout) stream.ended = true;
  throw;
}

const char* give_view(const std::string& text, size_t* out_length) {
  if (out_length != nullptr) *out_length = text.size();
  return text.c_str();
}

const int32_t* give_view(const std::vector<int32_t>& tokens, size_t* out_count) {
  if (out_count != nullptr) *out_count = tokens.size();
  return tokens.data();
}

const std::string& nothing() {
  static const std::string empty;
  return empty;
}

// "null" also when memory runs out: these functions have no status.
template <typename Get>
const char* text_or_null(const expert_result* result, Get&& get) {
  const char* text = "null";
  if (result != nullptr) static_cast<void>(guard([&] { text = get(); }));
  return text;
}

const Result& result_of(const expert_result* result) { return *require(result, "result").result; }

}  // namespace

expert_status expert_infer(expert_engine* engine, const expert_request* request, expert_result** out) {
  return guard([&] {
    require(out, "out") = nullptr;
    *out = new expert_result(submit(engine, request)->wait(timeout_of(-1)));
  });
}

expert_status expert_submit(expert_engine* engine, const expert_request* request, expert_stream** out) {
  return guard([&] {
    require(out, "out") = nullptr;
    std::shared_ptr<Generation> submitted = submit(engine, request, kRequestFlags | EXPERT_REQUEST_IF_QUICK);
    if (submitted) *out = new expert_stream{Held<Generation>(std::move(submitted))};
  });
}

expert_status expert_stream_next(expert_stream* stream, int64_t timeout_ms, expert_chunk** out) {
  return guard([&] {
    require(out, "out") = nullptr;
    if (require(stream, "stream").ended) return;
    std::optional<StreamChunk> chunk = next_chunk(*stream, timeout_ms);
    if (!chunk) return;
    auto given = std::make_unique<expert_chunk>();
    given->text = std::move(chunk->text);
    given->tokens = std::move(chunk->tokens);
    if (chunk->result != nullptr) given->result.emplace(std::move(chunk->result));
    *out = given.release();
  });
}

expert_status expert_stream_wait(expert_stream* stream, int64_t timeout_ms, expert_result** out) {
  return guard([&] {
    require(out, "out") = nullptr;
    *out = new expert_result(require(stream, "stream").held.get().wait(timeout_of(timeout_ms)));
  });
}

int expert_stream_done(const expert_stream* stream) {
  int done = 1;
  if (stream != nullptr) static_cast<void>(guard([&] { done = stream->held.get().done() ? 1 : 0; }));
  return done;
}

void expert_cancel(expert_stream* stream) {
  if (stream != nullptr) static_cast<void>(guard([&] { stream->held.get().cancel(); }));
}

void expert_stream_free(expert_stream* stream) {
  if (stream == nullptr) return;
  if (!stream->held.inherited()) expert_cancel(stream);
  delete stream;
}

const char* expert_chunk_text(const expert_chunk* chunk, size_t* out_length) {
  return give_view(chunk != nullptr ? chunk->text : nothing(), out_length);
}

const int32_t* expert_chunk_tokens(const expert_chunk* chunk, size_t* out_count) {
  static const std::vector<int32_t> none;
  return give_view(chunk != nullptr ? chunk->tokens : none, out_count);
}

const expert_result* expert_chunk_result(const expert_chunk* chunk) {
  return chunk != nullptr && chunk->result ? &*chunk->result : nullptr;
}

void expert_chunk_free(expert_chunk* chunk) { delete chunk; }

const char* expert_result_text(const expert_result* result, size_t* out_length) {
  return give_view(result != nullptr ? result->result->text : nothing(), out_length);
}

const char* expert_result_output(const expert_result* result, size_t* out_length) {
  return give_view(result != nullptr ? result->result->output : nothing(), out_length);
}

const int32_t* expert_result_tokens(const expert_result* result, size_t* out_count) {
  static const std::vector<int32_t> none;
  return give_view(result != nullptr ? result->result->tokens : none, out_count);
}

expert_finish_reason expert_result_finish_reason(const expert_result* result) {
  return result != nullptr ? static_cast<expert_finish_reason>(result->result->finish_reason) : EXPERT_FINISH_ERROR;
}

const char* expert_finish_reason_name(expert_finish_reason reason) {
  const bool known = reason >= EXPERT_FINISH_STOP && reason <= EXPERT_FINISH_ERROR;
  return known ? name_of(static_cast<FinishReason>(reason)) : "unknown";
}

size_t expert_result_expert_count(const expert_result* result) {
  return result != nullptr ? result->result->experts_used.size() : 0;
}

expert_status expert_result_expert(const expert_result* result, size_t index, const char** out_name,
                                   const char** out_version, float* out_weight) {
  return guard([&] {
    const auto& used = result_of(result).experts_used;
    if (index >= used.size()) fail(ErrorCode::invalid_request, "expert {} of {}", index, used.size());
    if (out_name != nullptr) *out_name = used[index].name.c_str();
    if (out_version != nullptr) *out_version = used[index].version.c_str();
    if (out_weight != nullptr) *out_weight = used[index].weight;
  });
}

expert_status expert_result_usage(const expert_result* result, expert_usage* out) {
  return guard([&] {
    const Usage& usage = result_of(result).usage;
    const expert_usage filled = {0,
                                 usage.prompt_tokens,
                                 usage.completion_tokens,
                                 usage.prompt_tokens + usage.completion_tokens,
                                 usage.prompt_virtual_tokens,
                                 usage.cached_tokens};
    give_struct(filled, out, sizeof(expert_usage));
  });
}

expert_status expert_result_timings(const expert_result* result, expert_timings* out) {
  return guard([&] {
    const Timings& timings = result_of(result).timings;
    const expert_timings filled = {0,
                                   timings.queue_ms,
                                   timings.prefill_ms,
                                   timings.first_token_ms,
                                   timings.decode_ms,
                                   timings.total_ms,
                                   timings.tokens_per_second};
    give_struct(filled, out, sizeof(expert_timings));
  });
}

const char* expert_result_plan(const expert_result* result) {
  return text_or_null(result, [&] { return result->plan.get([&] { return dump(result->result->plan); }); });
}

const char* expert_result_json(const expert_result* result) {
  return text_or_null(result, [&] { return result->json.get([&] { return dump(to_json(*result->result)); }); });
}

void expert_result_free(expert_result* result) { delete result; }
