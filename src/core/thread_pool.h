// Persistent workers for short parallel regions inside one forward pass.
//
// run() hands out task numbers one by one, so that a core busy with something else slows only the tasks it took; the
// calling thread takes part, and a worker that has not woken yet is not waited for. Workers spin for a bounded time
// (a tenth of a millisecond) after a region and then sleep until the next.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace expert {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller: threads - 1 workers are started. Throws std::system_error if they cannot be.
  explicit ThreadPool(int threads);
  // In a child made by fork() the workers do not exist: run() then does all tasks itself and the destructor joins
  // nothing.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept { return threads_; }

  // Calls task(index, worker) once for every index in [0, count), worker in [0, threads()), and returns when all are
  // done. The first exception of a task is rethrown here; tasks not yet begun are then skipped. A call from inside a
  // task, or while another thread is in run(), does its tasks serially as worker 0 of its own: callers that use
  // per-worker scratch must not overlap.
  template <typename Task>
  void run(int64_t count, const Task& task) {
    run_erased(
        count,
        [](const void* context, int64_t index, int worker) { (*static_cast<const Task*>(context))(index, worker); },
        &task);
  }

  // The same for the indices [0, threads()), all at once: tasks may wait for one another. False, and nothing called, where
  // run() would do them serially: with one thread, while another call is in it, from inside a task, in a child made by fork().
  template <typename Task>
  bool run_together(const Task& task) {
    return run_all(
        [](const void* context, int64_t index, int worker) { (*static_cast<const Task*>(context))(index, worker); },
        &task);
  }

 private:
  using Function = void (*)(const void* context, int64_t index, int worker);
  struct Workers;

  void run_erased(int64_t count, Function function, const void* context);
  bool run_all(Function function, const void* context);
  bool try_run(int64_t count, Function function, const void* context);
  void do_tasks(int worker);
  void work(int worker);
  void stop();
  bool enter();
  void leave();

  const int threads_;
  // The region at hand; stable while a worker is inside.
  Function function_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  std::exception_ptr error_;

  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};   // counts regions; sleeping workers wait on it
  alignas(64) std::atomic<uint32_t> inside_{0};  // kOpen while workers may enter, plus the number of those inside
  alignas(64) std::atomic<bool> busy_{false};
  std::atomic<bool> failed_{false};
  std::atomic<bool> stop_{false};
  std::unique_ptr<Workers> workers_;
};

}  // namespace expert
