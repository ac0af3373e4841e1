// The two ends of one running request: the engine thread writes, any thread reads, waits or cancels.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "core/end_signal.h"
#include "engine/generation.h"

namespace expert {

// Chunks nobody asked for yet are joined into one, so that a caller who only waits costs no queue. From the first
// next() on they are queued, `capacity` at most: a reader who falls further behind loses the request, and only it.
class Stream {
 public:
  explicit Stream(size_t capacity) : capacity_(capacity) {}

  // --- the engine thread ----------------------------------------------------------------------------------------
  // False: the queue is full; the request is to be ended with fail().
  bool push(StreamChunk chunk);
  // The last chunk; never refused.
  void finish(StreamChunk last);
  void fail(const Error& error);
  bool cancel_requested() const noexcept { return cancelled_.load(std::memory_order_relaxed); }

  // --- readers --------------------------------------------------------------------------------------------------
  std::optional<StreamChunk> next(std::chrono::nanoseconds timeout);
  std::shared_ptr<const Result> wait(std::chrono::nanoseconds timeout);
  bool done() const;
  void signal_end(int event_fd);
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }

 private:
  void append(StreamChunk chunk);

  const size_t capacity_;
  std::atomic<bool> cancelled_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<StreamChunk> chunks_;
  bool reading_ = false;
  bool ended_ = false;
  bool error_given_ = false;  // by next(), which gives it once
  std::shared_ptr<const Result> result_;
  std::optional<Error> error_;
  EndSignal end_signal_;
};

// What a caller holds. Dropping the last handle of a running request cancels it: nobody can see its result any more.
// In a child process after fork() every call throws closed; nothing there may touch the parent's locks.
std::shared_ptr<Generation> make_generation(std::shared_ptr<Stream> stream);

}  // namespace expert
