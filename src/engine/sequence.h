// What the scheduler sees of a request: token ids that want KV entries and, at some rows, results of the model. Created
// on the caller's thread, then owned by the engine thread alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "adapters/adapter_set.h"
#include "core/error.h"

namespace expert {

using Clock = std::chrono::steady_clock;

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
  int32_t pending() const noexcept { return virtual_rows_ + static_cast<int32_t>(tokens_.size()) - computed; }
  const AdapterSet* adapters() const noexcept { return adapters_.get(); }
  // The most positions it will ever fill; its KV blocks are reserved for all of them.
  virtual int64_t max_positions() const noexcept = 0;
  virtual Output output() const noexcept { return Output::logits; }
  virtual Rows rows() const noexcept { return Rows::last; }

  int32_t priority = 0;
  std::string caller;
  uint64_t arrival = 0;         // given by the scheduler
  int32_t computed = 0;         // positions whose KV is in the cache
  std::vector<int32_t> blocks;  // given by the scheduler

  // --- events, on the engine thread -------------------------------------------------------------------------------
  virtual void on_admitted(Clock::time_point now) = 0;
  // The wanted rows of one step, row-major, in order of position; the memory is scratch. True: it has ended.
  virtual bool on_rows(std::span<float> values, Clock::time_point now) = 0;
  // Asked between steps: true when it ends here (cancelled, deadline).
  virtual bool ends_now(Clock::time_point now) = 0;
  virtual void on_close() = 0;                    // it ends because the engine closes
  virtual void on_error(const Error& error) = 0;  // it ends because a step failed
  // The last event, when its KV blocks are back: tells the caller how it ended.
  virtual void deliver_end() = 0;

 protected:
  Sequence(std::vector<int32_t> tokens, std::shared_ptr<const AdapterSet> adapters)
      : tokens_(std::move(tokens)),
        adapters_(std::move(adapters)),
        virtual_rows_(adapters_ ? static_cast<int32_t>(adapters_->soft_prompt().rows) : 0) {}

  std::vector<int32_t> tokens_;  // prompt, then what was generated

 private:
  std::shared_ptr<const AdapterSet> adapters_;  // null: the base alone
  int32_t virtual_rows_;
};

}  // namespace expert
