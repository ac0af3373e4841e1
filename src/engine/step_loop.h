// The engine thread: takes sequences from callers and steps them - schedule, forward, finish - until they have ended.
// It sleeps while there is nothing to do, and holds no lock while it computes. Requests that wait for their experts keep
// nobody. A step that fails is repeated for each of its requests alone; those that fail again end and give their blocks
// back, and the loop goes on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "engine/scheduler.h"
#include "engine/telemetry.h"
#include "models/model.h"

namespace expert {

struct StepLoopOptions {
  int32_t kv_blocks = 0;
  DType kv_dtype = DType::f32;
  int32_t most_kept = INT32_MAX;  // KV blocks of the prefix cache that nobody uses; 0: no prefix cache
  int32_t max_batch = 16;
  int32_t max_queue = 256;  // sequences that wait or run
  // Hears, on the engine thread, whose experts are wanted next: of those that wait for them. May be empty.
  std::function<void(std::span<ExpertLease* const>)> prefetch = {};
};

struct StepStats {
  uint64_t steps = 0;
  uint64_t failed_steps = 0;
  uint64_t rows = 0;  // tokens that went through the model
  int32_t running = 0;
  int32_t waiting = 0;
  uint64_t kv_bytes = 0;
  BlockPoolStats blocks;
  SchedulerStats schedule;
};

class StepLoop {
 public:
  // Throws out_of_memory when the KV pool does not fit.
  StepLoop(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, std::shared_ptr<Counters> telemetry,
           const StepLoopOptions& options);
  ~StepLoop();  // close(false)

  // Throws out_of_memory (queue full), closed.
  void submit(std::unique_ptr<Sequence> sequence);
  // Experts that somebody waits for may be in memory now.
  void look_again();
  // Ends what runs, or waits for it; then the thread has ended. Thread-safe, twice is harmless.
  void close(bool drain);
  StepStats stats() const;
  int64_t kv_positions() const noexcept { return int64_t{options_.kv_blocks} * kKvBlockTokens; }

 private:
  void run() noexcept;
  bool wait_for_work();
  void touch_ahead(std::unique_lock<std::mutex>& lock);
  void order_experts(Clock::time_point now);
  void step();
  void compute(PlannedBatch& planned, Sequence::Output output);
  size_t forward(PlannedBatch& planned, Sequence::Output output);
  void compute_apart(const PlannedBatch& planned, Sequence::Output output, const Error& error);
  void deliver(const PlannedBatch& planned, size_t width);
  void drop(const PlannedBatch& planned, const Error& error);
  void end(const std::function<bool(Sequence&)>& ended);
  void publish();

  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Counters> telemetry_;
  StepLoopOptions options_;

  // Between callers and the engine thread.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> inbox_;
  int64_t unfinished_ = 0;
  bool closing_ = false;
  bool drain_ = false;
  bool look_again_ = false;
  StepStats stats_;
  std::mutex close_mutex_;  // one closer joins, others wait for it

  // The engine thread's own.
  std::unique_ptr<KvStorage> kv_;
  Scheduler scheduler_;
  int32_t touched_ = 0;  // KV blocks before this one are ready
  StepPlan plan_;
  std::span<float> values_;             // the wanted rows of the last forward
  std::vector<float> downloaded_;       // where they had to be brought here
  std::vector<const Sequence*> ended_;  // in this step
  StepStats counters_;
  std::thread thread_;
};

}  // namespace expert
