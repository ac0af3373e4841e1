#include "engine/step_loop.h"

#include <algorithm>
#include <exception>
#include <new>

#include "core/log.h"

namespace expert {
namespace {

// While all that there is waits for experts: a cancelled request is looked for this often. cancel() wakes nobody, since
// it may take no lock: a child of fork() calls it.
constexpr auto kLook = std::chrono::milliseconds(2);

constexpr size_t kTouchedAhead = size_t{64} << 20;  // bytes of KV blocks that are ready for the next requests

// Whatever was thrown, as an Error that says it happened in a step.
Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "out of memory while a step was computed",
                 "use a smaller context, fewer requests at once, or memory_limit");
  } catch (const std::exception& error) {
    return Error(ErrorCode::inference, fmt::format("a step failed: {}", error.what()));
  } catch (...) {
    return Error(ErrorCode::inference, "a step failed");
  }
}

}  // namespace

StepLoop::StepLoop(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model,
                   std::shared_ptr<Counters> telemetry, const StepLoopOptions& options)
    : backend_(std::move(backend)),
      model_(std::move(model)),
      telemetry_(std::move(telemetry)),
      options_(options),
      kv_(backend_->create_kv(model_->kv_shape(options.kv_blocks, options.kv_dtype))),
      scheduler_({.kv_blocks = options.kv_blocks, .max_batch = options.max_batch, .most_kept = options.most_kept}) {
  counters_.kv_bytes = kv_->size_bytes();
  publish();
  thread_ = std::thread([this] { run(); });
}

StepLoop::~StepLoop() { close(false); }

void StepLoop::submit(std::unique_ptr<Sequence> sequence) {
  if (BlockPool::blocks_for(sequence->max_positions()) > options_.kv_blocks) {
    fail(ErrorCode::out_of_memory, "the request needs {} KV positions, the KV cache holds {}",
         sequence->max_positions(), kv_positions());
  }
  {
    const std::lock_guard lock(mutex_);
    if (closing_) fail(ErrorCode::closed, "the engine was closed");
    if (unfinished_ >= options_.max_queue) {
      throw Error(ErrorCode::out_of_memory, fmt::format("queue full: {} requests are running or waiting", unfinished_),
                  "wait for requests to end, or raise max_queue");
    }
    inbox_.push_back(std::move(sequence));
    ++unfinished_;
  }
  wake_.notify_one();
}

void StepLoop::close(bool drain) {
  const std::lock_guard closer(close_mutex_);
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    drain_ = drain;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void StepLoop::look_again() {
  {
    const std::lock_guard lock(mutex_);
    look_again_ = true;
  }
  wake_.notify_one();
}

StepStats StepLoop::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void StepLoop::run() noexcept {
  try {
    while (wait_for_work()) step();
  } catch (...) {
    // Only a defect of ours gets here; nobody may wait for ever because of it.
    const Error error = current_error();
    log(LogLevel::error, fmt::format("the engine stops: {}", error.what()));
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      for (auto& sequence : inbox_) scheduler_.add(std::move(sequence));
      inbox_.clear();
    }
    end([&](Sequence& sequence) {
      sequence.on_error(error);
      return true;
    });
  }
}

// Takes what arrived. False when the engine closes and nothing is left to do.
bool StepLoop::wait_for_work() {
  std::vector<std::unique_ptr<Sequence>> arrived;
  bool abandon = false;
  {
    std::unique_lock lock(mutex_);
    if (scheduler_.idle()) {
      touch_ahead(lock);
      wake_.wait(lock, [&] { return closing_ || !inbox_.empty(); });
    } else if (scheduler_.stalled()) {
      wake_.wait_for(lock, kLook, [&] { return (closing_ && !drain_) || look_again_ || !inbox_.empty(); });
    }
    look_again_ = false;
    arrived.swap(inbox_);
    abandon = closing_ && !drain_;
  }
  for (auto& sequence : arrived) scheduler_.add(std::move(sequence));
  if (abandon) {
    end([](Sequence& sequence) {
      sequence.on_close();
      return true;
    });
  }
  return !scheduler_.idle();
}

// Block by block, until something arrives. `lock`: of mutex_, which is free meanwhile.
void StepLoop::touch_ahead(std::unique_lock<std::mutex>& lock) {
  const BlockPool& pool = scheduler_.kv();
  const size_t block_bytes = std::max<size_t>(1, counters_.kv_bytes / static_cast<size_t>(std::max(1, pool.total())));
  const auto ahead = static_cast<int64_t>(kTouchedAhead / block_bytes);
  const auto end = static_cast<int32_t>(std::min<int64_t>(pool.total(), pool.fresh() + ahead));
  touched_ = std::max(touched_, pool.fresh());
  while (touched_ < end && !closing_ && inbox_.empty()) {
    lock.unlock();
    kv_->touch(touched_++, 1);
    lock.lock();
  }
}

void StepLoop::order_experts(Clock::time_point now) {
  if (!options_.prefetch) return;
  std::vector<ExpertLease*> leases;
  for (const Sequence* sequence : scheduler_.line().without_experts(now)) leases.push_back(sequence->experts());
  if (!leases.empty()) options_.prefetch(leases);
}

void StepLoop::step() {
  const Clock::time_point now = Clock::now();
  end([&](Sequence& sequence) { return sequence.ends_now(now); });
  order_experts(now);
  scheduler_.admit(now);
  publish();
  scheduler_.plan(plan_, now);
  ended_.clear();
  if (!plan_.logits.empty()) compute(plan_.logits, Sequence::Output::logits);
  if (!plan_.hidden.empty()) compute(plan_.hidden, Sequence::Output::hidden);
  if (ended_.empty()) return;
  end([&](Sequence& sequence) { return std::find(ended_.begin(), ended_.end(), &sequence) != ended_.end(); });
}

void StepLoop::compute(PlannedBatch& planned, Sequence::Output output) {
  size_t width = 0;
  try {
    width = forward(planned, output);
  } catch (...) {
    ++counters_.failed_steps;
    const Error error = current_error();
    return planned.sequences.size() > 1 ? compute_apart(planned, output, error) : drop(planned, error);
  }
  scheduler_.advance(planned);
  deliver(planned, width);
}

// Sets values_ to the wanted rows; returns their width.
size_t StepLoop::forward(PlannedBatch& planned, Sequence::Output output) {
  const Clock::time_point begun = Clock::now();
  Batch& batch = planned.batch;
  batch.layout.step = ++counters_.steps;
  const Tensor rows = output == Sequence::Output::logits ? model_->forward(batch, *kv_) : model_->hidden(batch, *kv_);
  const size_t count = batch.logit_rows.size() * static_cast<size_t>(rows.cols);
  values_ = count == 0 ? std::span<float>() : backend_->host_values(rows);
  if (count == 0) {
    backend_->synchronize();
  } else if (values_.empty()) {
    downloaded_.resize(count);
    values_ = downloaded_;
    backend_->download(values_.data(), rows, count * sizeof(float));
  }
  counters_.rows += batch.layout.token_ids.size();
  telemetry_->step_ms.add(std::chrono::duration<double, std::milli>(Clock::now() - begun).count());
  telemetry_->step_rows.add(static_cast<double>(batch.layout.token_ids.size()));
  telemetry_->step_requests.add(static_cast<double>(planned.sequences.size()));
  return values_.empty() ? 0 : static_cast<size_t>(rows.cols);
}

// The same rows once more, each request alone: whoever made the step fail ends, the others get the bits they would have
// got together. What the failed step wrote into their blocks is written again.
void StepLoop::compute_apart(const PlannedBatch& planned, Sequence::Output output, const Error& error) {
  log(LogLevel::warning, fmt::format("a step with {} requests failed and is repeated for each alone: {}",
                                     planned.sequences.size(), error.what()));
  PlannedBatch alone;
  const std::vector<Sequence*> sequences = planned.sequences;
  for (Sequence* sequence : sequences) {
    scheduler_.plan_alone(*sequence, alone);
    compute(alone, output);
  }
}

void StepLoop::deliver(const PlannedBatch& planned, size_t width) {
  const Clock::time_point now = Clock::now();
  StepShare share{planned.batch.layout.step, 0, static_cast<int32_t>(planned.batch.layout.token_ids.size()),
                  static_cast<int32_t>(planned.sequences.size())};
  std::span<float> rest(values_);
  for (size_t i = 0; i < planned.sequences.size(); ++i) {
    const size_t count = static_cast<size_t>(planned.output_rows[i]) * width;
    Sequence& sequence = *planned.sequences[i];
    share.rows = planned.batch.layout.segments[i].row_count;
    try {
      sequence.on_step(share, now);
      if (count == 0) continue;
      if (sequence.on_rows(rest.first(count), now)) ended_.push_back(&sequence);
    } catch (...) {
      sequence.on_error(current_error());
      ended_.push_back(&sequence);
    }
    rest = rest.subspan(count);
  }
}

void StepLoop::drop(const PlannedBatch& planned, const Error& error) {
  log(LogLevel::error, fmt::format("a step with {} requests failed: {}", planned.sequences.size(), error.what()));
  for (Sequence* sequence : planned.sequences) {
    sequence->on_error(error);
    ended_.push_back(sequence);
  }
}

// Callers hear of an end when its blocks are free and stats() says so.
void StepLoop::end(const std::function<bool(Sequence&)>& ended) {
  const auto taken = scheduler_.take_if(ended);
  if (taken.empty()) return;
  publish();
  for (const auto& sequence : taken) sequence->deliver_end();
}

void StepLoop::publish() {
  counters_.running = static_cast<int32_t>(scheduler_.running());
  counters_.waiting = static_cast<int32_t>(scheduler_.waiting());
  counters_.blocks = scheduler_.kv().stats();
  counters_.schedule = scheduler_.stats();
  const std::lock_guard lock(mutex_);
  stats_ = counters_;
  unfinished_ = static_cast<int64_t>(inbox_.size() + scheduler_.running() + scheduler_.waiting());
}

}  // namespace expert
