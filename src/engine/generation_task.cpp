#include "engine/generation_task.h"

#include <algorithm>

namespace expert {
namespace {

double milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

}  // namespace

GenerationTask::GenerationTask(PreparedRequest request, std::shared_ptr<const Tokenizer> tokenizer,
                               std::shared_ptr<Stream> stream, std::shared_ptr<Counters> counters,
                               Clock::time_point submitted)
    : Sequence(request.prompt, request.experts),
      request_(std::move(request)),
      stream_(std::move(stream)),
      counters_(std::move(counters)),
      sampler_(request_.sampling, request_.prompt),
      answer_(std::move(tokenizer), request_.sampling.stop),
      prompt_tokens_(static_cast<int32_t>(request_.prompt.size())),
      submitted_(submitted),
      ended_(submitted) {
  priority = request_.priority;
  caller = request_.caller;
  arrived = submitted;
  prefix = request_.prefix;
  constexpr double kLongest = 1e12;  // ms; beyond it a deadline is none
  if (request_.deadline_ms > 0 && request_.deadline_ms < kLongest) {
    deadline = submitted + std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double, std::milli>(request_.deadline_ms));
  }
  tokens_.reserve(static_cast<size_t>(max_positions()) + 1);
  if (request_.trace) {
    trace_.emplace(submitted);
    trace_->add("submitted", submitted, {{"prompt_tokens", prompt_tokens_}, {"priority", priority}});
    trace_->add("queued", Clock::now());
  }
}

void GenerationTask::on_admitted(Clock::time_point now) {
  admitted_ = now;
  if (trace_) trace_->add("admitted", now, {{"level", level}, {"cached_tokens", cached_tokens}});
}

void GenerationTask::on_preempted(Clock::time_point now) {
  if (trace_) trace_->add("preempted", now, {{"tokens", tokens_.size()}, {"times", preemptions}});
}

void GenerationTask::on_step(const StepShare& share, Clock::time_point now) {
  if (!trace_) return;
  trace_->add("step", now,
              {{"step", share.step},
               {"rows", share.rows},
               {"batch_rows", share.batch_rows},
               {"batch_requests", share.batch_requests},
               {"computed", computed}});
}

int64_t GenerationTask::max_positions() const noexcept {
  return std::min(int64_t{virtual_rows()} + prompt_tokens_ + request_.sampling.max_tokens, request_.context_size);
}

bool GenerationTask::is_end_token(int32_t token) const {
  const auto& ends = request_.eos_token_ids;
  return !request_.sampling.ignore_eos && std::find(ends.begin(), ends.end(), token) != ends.end();
}

bool GenerationTask::on_rows(std::span<float> logits, Clock::time_point now) {
  ended_ = now;
  if (!first_token_) first_token_ = now;
  TokenLogprobs logprobs;
  const bool wants_logprobs = request_.sampling.logprobs > 0;
  const int32_t token = sampler_.sample(logits, wants_logprobs ? &logprobs : nullptr);
  if (is_end_token(token)) return finish(FinishReason::stop);
  if (wants_logprobs) logprobs_.push_back(std::move(logprobs));
  return accept(token);
}

bool GenerationTask::accept(int32_t token) {
  tokens_.push_back(token);
  chunk_.tokens.push_back(token);
  chunk_.text += answer_.push(token);
  if (answer_.stopped()) return finish(FinishReason::stop);
  if (virtual_rows() + static_cast<int64_t>(tokens_.size()) >= max_positions()) return finish(FinishReason::length);
  if (chunk_.text.empty()) return false;
  if (stream_->push(std::move(chunk_))) {
    chunk_ = {};
    return false;
  }
  on_error(Error(ErrorCode::inference, "the stream's queue is full: its reader fell too far behind",
                 "read chunks faster, or wait for the result instead"));
  return true;
}

bool GenerationTask::ends_now(Clock::time_point now) {
  if (stream_->cancel_requested()) return finish(FinishReason::cancelled);
  if (now >= deadline) return finish(FinishReason::timeout);
  if (const Error* missing = why_not_resident()) {
    error_ = *missing;
    return true;
  }
  return false;
}

// A stop string that was complete, but waited for one that begins earlier, still counts.
bool GenerationTask::finish(FinishReason reason) {
  chunk_.text += answer_.finish();
  reason_ = answer_.stopped() ? FinishReason::stop : reason;
  return true;
}

// True: the request goes on under another task, and this one says nothing.
bool GenerationTask::hand_over() {
  if (why_not_resident() == nullptr || !error_ || !request_.otherwise) return false;
  try {
    request_.otherwise(*error_);
    return true;
  } catch (const Error& error) {
    error_ = error;
    return false;
  }
}

void GenerationTask::deliver_end() {
  if (hand_over()) return;
  const auto completion = tokens_.size() - static_cast<size_t>(prompt_tokens_);
  if (error_) reason_ = FinishReason::error;
  ended_ = Clock::now();
  ++counters_->finished[static_cast<size_t>(reason_)];
  counters_->prompt_tokens += static_cast<uint64_t>(std::clamp(computed - virtual_rows(), 0, prompt_tokens_));
  counters_->completion_tokens += completion;
  count(completion);
  // Experts are free for unload before the caller hears of the end.
  release_experts();
  if (error_) return stream_->fail(*error_);
  chunk_.result = result();
  stream_->finish(std::move(chunk_));
}

void GenerationTask::count(size_t completion) const {
  const Timings times = timings();
  counters_->total_ms.add(times.total_ms);
  if (!admitted_) return;
  counters_->queue_ms.add(times.queue_ms);
  if (!first_token_) return;
  counters_->prefill_ms.add(times.prefill_ms);
  counters_->first_token_ms.add(times.first_token_ms);
  if (completion > 1) counters_->token_ms.add(times.decode_ms / static_cast<double>(completion - 1));
}

std::shared_ptr<const Result> GenerationTask::result() {
  auto result = std::make_shared<Result>();
  result->text = answer_.text();
  result->output = output_of(result->text, request_.inside_think);
  result->tokens.assign(tokens_.begin() + prompt_tokens_, tokens_.end());
  result->logprobs = std::move(logprobs_);
  result->experts_used = std::move(request_.experts_used);
  result->finish_reason = reason_;
  result->usage.prompt_tokens = prompt_tokens_;
  result->usage.cached_tokens = cached_tokens;
  result->usage.completion_tokens = static_cast<int32_t>(result->tokens.size());
  result->usage.prompt_virtual_tokens = virtual_rows();
  result->timings = timings();
  result->plan = std::move(request_.plan);
  if (trace_) {
    trace_->add("ended", ended_, {{"finish_reason", name_of(reason_)}, {"tokens", result->tokens.size()}});
    result->trace = trace_->take();
  }
  return result;
}

Timings GenerationTask::timings() const {
  Timings timings;
  const Clock::time_point admitted = admitted_.value_or(ended_);
  const Clock::time_point first = first_token_.value_or(ended_);
  timings.queue_ms = milliseconds(admitted - submitted_);
  timings.prefill_ms = milliseconds(first - admitted);
  timings.first_token_ms = first_token_ ? milliseconds(first - submitted_) : 0;
  timings.decode_ms = milliseconds(ended_ - first);
  timings.total_ms = milliseconds(ended_ - submitted_);
  const auto decoded = static_cast<double>(tokens_.size()) - prompt_tokens_ - 1;
  if (decoded > 0 && timings.decode_ms > 0) timings.tokens_per_second = decoded * 1000.0 / timings.decode_ms;
  return timings;
}

}  // namespace expert
