// One request for text on the engine thread: sampler, detokenisation, ends, and the chunks its caller reads.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/answer_text.h"
#include "engine/parameters.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/stream.h"
#include "engine/telemetry.h"
#include "engine/trace.h"

namespace expert {

// A request after preparation.
struct PreparedRequest {
  std::vector<int32_t> prompt;
  SamplingParameters sampling;
  std::vector<int32_t> eos_token_ids;
  std::shared_ptr<ExpertLease> experts;  // null: the base alone
  ContentHash set_hash{};                // of the set they make
  bool chosen_by_router = false;
  std::vector<ExpertUsed> experts_used;
  Json plan;
  int64_t context_size = 0;   // soft prompts, prompt and answer together
  bool inside_think = false;  // the prompt ends within a think block
  double deadline_ms = 0;
  int32_t priority = 0;
  std::string caller;
  std::optional<PrefixRoot> prefix;  // whose KV blocks it may share
  bool trace = false;
  // Takes the request over, stream and all, when its experts cannot be had; throws what the caller then gets. Empty: the
  // caller hears of it.
  std::function<void(const Error&)> otherwise;
};

class GenerationTask final : public Sequence {
 public:
  GenerationTask(PreparedRequest request, std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<Stream> stream,
                 std::shared_ptr<Counters> counters, Clock::time_point submitted);

  int64_t max_positions() const noexcept override;
  int32_t best_logits() const noexcept override { return sampler_.best_logits(); }
  void on_admitted(Clock::time_point now) override;
  void on_preempted(Clock::time_point now) override;
  void on_step(const StepShare& share, Clock::time_point now) override;
  bool on_rows(std::span<float> logits, Clock::time_point now) override;
  bool ends_now(Clock::time_point now) override;
  void on_close() override { finish(FinishReason::cancelled); }
  void on_error(const Error& error) override { error_ = error; }
  void deliver_end() override;

 private:
  bool hand_over();
  bool is_end_token(int32_t token) const;
  bool accept(int32_t token);
  bool finish(FinishReason reason);
  std::shared_ptr<const Result> result();
  Timings timings() const;
  void count(size_t completion) const;

  PreparedRequest request_;
  std::shared_ptr<Stream> stream_;
  std::shared_ptr<Counters> counters_;
  Sampler sampler_;
  AnswerText answer_;
  StreamChunk chunk_;  // not sent yet
  std::vector<TokenLogprobs> logprobs_;
  int32_t prompt_tokens_ = 0;
  FinishReason reason_ = FinishReason::stop;
  std::optional<Error> error_;
  std::optional<Trace> trace_;
  Clock::time_point submitted_, ended_;
  std::optional<Clock::time_point> admitted_, first_token_;
};

}  // namespace expert
