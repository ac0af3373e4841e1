// Which request runs, and what one step computes: continuous batching over a fixed pool of KV blocks. Logic without
// threads or clocks of its own; the engine thread's.
//
// Admission: higher priority first, then the caller with the fewest running requests, then arrival. A request is
// admitted with all the KV blocks it may ever need, so that none runs out in the middle; while the first in line does
// not fit, nobody overtakes it. Step: every decoding request gets its row, then prompts are filled in order of
// admission, up to kPrefillTokens rows.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/kv_allocator.h"
#include "engine/sequence.h"
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

class Scheduler {
 public:
  Scheduler(int32_t kv_blocks, int32_t max_batch) : kv_(kv_blocks), max_batch_(max_batch) {}

  void add(std::unique_ptr<Sequence> sequence);
  // Moves waiting sequences into the batch, with their blocks, while they fit.
  void admit(Clock::time_point now);
  // What to compute next. The plan points at running sequences and is void after the next take_if().
  void plan(StepPlan& plan);
  // The rows of `planned` were computed.
  void advance(const PlannedBatch& planned);
  // Removes the waiting and running sequences that `ended` is true for, and takes their blocks back.
  std::vector<std::unique_ptr<Sequence>> take_if(const std::function<bool(Sequence&)>& ended);

  bool idle() const noexcept { return waiting_.empty() && running_.empty(); }
  size_t waiting() const noexcept { return waiting_.size(); }
  size_t running() const noexcept { return running_.size(); }
  const KvAllocator& kv() const noexcept { return kv_; }

 private:
  std::vector<std::unique_ptr<Sequence>>::iterator first_in_line();
  void place(Sequence& sequence, int32_t rows, PlannedBatch& planned);

  KvAllocator kv_;
  int32_t max_batch_;
  uint64_t arrivals_ = 0;
  std::vector<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::unordered_map<std::string, int32_t> running_by_caller_;
};

}  // namespace expert
