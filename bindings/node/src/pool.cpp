#include "pool.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace expert_node {

namespace {

constexpr size_t kThreads = 4;

class Pool {
 public:
  void add(Task task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    if (idle_ >= tasks_.size() || threads_ == kThreads) {
      added_.notify_one();
      return;
    }
    std::thread([this] { work(); }).detach();
    ++threads_;
  }

 private:
  [[noreturn]] void work() {
    while (true) take()();
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
  static Pool& pool = *new Pool;  // never destroyed: its threads run until the process ends
  pool.add(std::move(task));
}

void run_in_thread(Task task) { std::thread(std::move(task)).detach(); }

}  // namespace expert_node
