// Which request runs, and what one step computes: continuous batching over a fixed pool of KV blocks. Logic without
// threads or clocks of its own; the engine thread's.
//
// Admission: the first in line (waiting_line.h) enters when the pool has blocks for its tokens and one more, beside
// what those that run need next; while it does not fit, nobody overtakes it. Blocks are taken as tokens come. When the
// pool is dry, the running sequence of the lowest level, the latest among equals, is preempted: it gives its blocks
// back, waits again, and computes anew what is no longer kept of them. So does one that keeps a request of higher
// priority waiting. The first in rank can always go on, and a request that fits the pool alone therefore ends.
// Step: every decoding request gets its row, then prompts are filled in order of rank, up to `prefill_tokens` rows.
#pragma once

#include <climits>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/block_pool.h"
#include "engine/sequence.h"
#include "engine/waiting_line.h"
#include "models/batch.h"

namespace expert {

inline constexpr int32_t kPrefillTokens = 512;
inline constexpr int32_t kMaxLogitRows = 64;  // of one request and step that wants logits at every token

// One forward. Vectors keep their memory from step to step.
struct PlannedBatch {
  Batch batch;
  std::vector<Sequence*> sequences;  // one per segment
  std::vector<int32_t> output_rows;  // per segment: how many of its rows are in batch.logit_rows

  bool empty() const noexcept { return sequences.empty(); }
  void clear();
};

struct StepPlan {
  PlannedBatch logits;
  PlannedBatch hidden;
};

struct SchedulerOptions {
  int32_t kv_blocks = 0;
  int32_t max_batch = 16;
  int32_t most_kept = INT32_MAX;  // blocks of the prefix cache that nobody uses; 0: no prefix cache
  int32_t prefill_tokens = kPrefillTokens;
  Clock::duration ageing = std::chrono::seconds(10);  // of waiting count as one priority
};

struct SchedulerStats {
  uint64_t admissions = 0;
  uint64_t preemptions = 0;
  uint64_t recomputed_tokens = 0;  // were in the cache before a preemption, and no longer after it
  uint64_t prefix_lookups = 0;     // first admissions of requests that may share
  uint64_t prefix_hits = 0;        // of these: found at least one block
  uint64_t prompt_tokens = 0;      // of these requests
  uint64_t cached_tokens = 0;      // of these tokens: found
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options)
      : options_(options), pool_(options.kv_blocks, options.most_kept), line_(options.ageing) {
    running_.reserve(static_cast<size_t>(options.max_batch));
  }

  void add(std::unique_ptr<Sequence> sequence);
  // Moves waiting sequences into the batch while they fit.
  void admit(Clock::time_point now);
  // What to compute next, with blocks for it. The plan points at running sequences and into their block lists: it is
  // void after the next advance() or take_if().
  void plan(StepPlan& plan, Clock::time_point now = {});
  // The rows that the plan gave this sequence, for a forward of its own.
  void plan_alone(Sequence& sequence, PlannedBatch& planned);
  // The rows of `planned` were computed.
  void advance(const PlannedBatch& planned);
  // Removes the waiting and running sequences that `ended` is true for, and takes their blocks back.
  std::vector<std::unique_ptr<Sequence>> take_if(const std::function<bool(Sequence&)>& ended);

  bool idle() const noexcept { return line_.empty() && running_.empty(); }
  // Nobody runs, and those that wait do so for their experts.
  bool stalled() const noexcept;
  size_t waiting() const noexcept { return line_.size(); }
  size_t running() const noexcept { return running_.size(); }
  const BlockPool& kv() const noexcept { return pool_; }
  const WaitingLine& line() const noexcept { return line_; }
  const SchedulerStats& stats() const noexcept { return stats_; }

 private:
  int32_t blocks_next(const Sequence& sequence) const;
  bool fits(Sequence& sequence);
  void enter(Sequence* first, Clock::time_point now);
  bool make_way(const Sequence& first, Clock::time_point now);
  void preempt_last(Clock::time_point now);
  bool grow(Sequence& sequence, int32_t rows);
  int32_t rows_for(Sequence& sequence, size_t rank, int32_t budget, Clock::time_point now);
  void place(Sequence& sequence, PlannedBatch& planned);
  void give_back(Sequence& sequence);

  SchedulerOptions options_;
  BlockPool pool_;
  WaitingLine line_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by rank: level, then arrival
  SchedulerStats stats_;
};

}  // namespace expert
