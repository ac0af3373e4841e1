// What the scheduler sees of a request: token ids that want KV entries and, at some rows, results of the model. Created
// on the caller's thread, then owned by the engine thread alone.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "engine/expert_lease.h"
#include "engine/prefix_index.h"

namespace expert {

using Clock = std::chrono::steady_clock;

struct CallerQueue;

// What one step was for one of its requests.
struct StepShare {
  uint64_t step = 0;
  int32_t rows = 0;
  int32_t batch_rows = 0;
  int32_t batch_requests = 0;
};

class Sequence {
 public:
  enum class Output : uint8_t { logits, hidden };
  enum class Rows : uint8_t { last, all };  // of which tokens it wants the output

  virtual ~Sequence() = default;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  // --- for the scheduler ------------------------------------------------------------------------------------------
  const std::vector<int32_t>& tokens() const noexcept { return tokens_; }
  // Positions before the first token, taken by rows of soft prompts.
  int32_t virtual_rows() const noexcept { return virtual_rows_; }
  // Those rows and the tokens.
  int32_t positions() const noexcept { return virtual_rows_ + static_cast<int32_t>(tokens_.size()); }
  int32_t pending() const noexcept { return positions() - computed; }
  // What stands at the positions of one full KV block; -1: a row of a soft prompt.
  std::array<int32_t, kKvBlockTokens> block_tokens(int32_t block) const {
    std::array<int32_t, kKvBlockTokens> here{};
    for (int32_t i = 0; i < kKvBlockTokens; ++i) {
      const int32_t token = block * kKvBlockTokens + i - virtual_rows_;
      here[static_cast<size_t>(i)] = token < 0 ? -1 : tokens_[static_cast<size_t>(token)];
    }
    return here;
  }
  // Of a resident one; null: the base alone.
  const AdapterSet* adapters() const noexcept { return experts_ ? experts_->set() : nullptr; }
  // Its experts are in memory. Until then it waits, and stands in nobody's way.
  bool resident() const noexcept { return !experts_ || experts_->state() == ExpertLease::State::ready; }
  ExpertLease* experts() const noexcept { return experts_.get(); }
  // The most positions it will ever fill.
  virtual int64_t max_positions() const noexcept = 0;
  virtual Output output() const noexcept { return Output::logits; }
  virtual Rows rows() const noexcept { return Rows::last; }
  // How many of the largest logits of a row matter to it; 0: every one.
  virtual int32_t best_logits() const noexcept { return 0; }

  // --- given by whoever submits it ----------------------------------------------------------------------------------
  int32_t priority = 0;
  std::string caller;
  Clock::time_point arrived{};                           // waits since then
  Clock::time_point deadline = Clock::time_point::max();  // among equals the nearest goes first
  std::optional<PrefixRoot> prefix;  // whose KV blocks it may share; none: it computes every token itself

  // --- the scheduler's ----------------------------------------------------------------------------------------------
  uint64_t arrival = 0;         // order of arrival
  CallerQueue* queue = nullptr;
  int64_t claim = 0;            // its caller's turn against other callers: priority and how long the caller has waited
  int64_t level = 0;            // its rank while it runs: priority and how long it has waited itself
  int32_t computed = 0;         // positions whose KV is in the cache
  int32_t published = 0;        // leading blocks that others can find
  int32_t cached_tokens = 0;    // of the prompt, found in the cache when it was first admitted
  int32_t preemptions = 0;
  int32_t step_rows = 0;        // in the step that is being planned
  std::vector<int32_t> blocks;  // of positions [0, 16 * size)

  // --- events, on the engine thread -------------------------------------------------------------------------------
  virtual void on_admitted(Clock::time_point now) = 0;  // once, also if it is preempted later
  virtual void on_preempted(Clock::time_point) {}
  virtual void on_step(const StepShare&, Clock::time_point) {}  // before its rows
  // The wanted rows of one step, row-major, in order of position; the memory is scratch. True: it has ended.
  virtual bool on_rows(std::span<float> values, Clock::time_point now) = 0;
  // Asked between steps: true when it ends here (cancelled, deadline).
  virtual bool ends_now(Clock::time_point now) = 0;
  virtual void on_close() = 0;                    // it ends because the engine closes
  virtual void on_error(const Error& error) = 0;  // it ends because a step failed
  // The last event, when its KV blocks are back: tells the caller how it ended.
  virtual void deliver_end() = 0;

 protected:
  Sequence(std::vector<int32_t> tokens, std::shared_ptr<ExpertLease> experts)
      : tokens_(std::move(tokens)),
        experts_(std::move(experts)),
        virtual_rows_(experts_ ? static_cast<int32_t>(experts_->soft_prompt_rows()) : 0) {}

  // Null: they are there, or on their way.
  const Error* why_not_resident() const noexcept {
    return experts_ && experts_->state() == ExpertLease::State::failed ? &experts_->error() : nullptr;
  }
  // It ends: others may have their room.
  void release_experts() {
    if (experts_) experts_->release();
  }

  std::vector<int32_t> tokens_;  // prompt, then what was generated

 private:
  std::shared_ptr<ExpertLease> experts_;  // null: the base alone
  int32_t virtual_rows_;
};

}  // namespace expert
