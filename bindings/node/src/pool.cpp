#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace expert_node {

namespace {

constexpr size_t kThreads = 4;

// What runs, on whichever thread.
class Work {
 public:
  void run(const Task& task) {
    if (!begin()) return;
    task();
    end();
  }

  bool end_all(double seconds) {
    std::unique_lock lock(mutex_);
    ends_ = true;
    return idle_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return running_ == 0; });
  }

  bool ends() const { return ends_; }
  void begin_again() { ends_ = false; }

 private:
  bool begin() {
    const std::lock_guard lock(mutex_);
    if (!ends_) ++running_;
    return !ends_;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) idle_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable idle_;
  std::atomic<bool> ends_ = false;
  size_t running_ = 0;
};

// Neither this nor the pool is ever destroyed: threads use them until the process has ended.
Work& work() {
  static Work& made = *new Work;
  return made;
}

class Pool {
 public:
  void add(Task task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    if (idle_ >= tasks_.size() || threads_ == kThreads) {
      added_.notify_one();
      return;
    }
    std::thread([this] { serve(); }).detach();
    ++threads_;
  }

 private:
  [[noreturn]] void serve() {
    while (true) work().run(take());
  }

  Task take() {
    std::unique_lock lock(mutex_);
    ++idle_;
    added_.wait(lock, [&] { return !tasks_.empty(); });
    --idle_;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }

  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<Task> tasks_;
  size_t threads_ = 0;
  size_t idle_ = 0;
};

}  // namespace

void run_in_pool(Task task) {
  static Pool& pool = *new Pool;
  pool.add(std::move(task));
}

void run_in_thread(Task task) {
  std::thread([task = std::move(task)] { work().run(task); }).detach();
}

bool end_work(double seconds) { return work().end_all(seconds); }

bool work_ends() { return work().ends(); }

void begin_work() { work().begin_again(); }

}  // namespace expert_node
