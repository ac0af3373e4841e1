#include "core/thread_pool.h"

#include <sys/types.h>
#include <unistd.h>

#include <chrono>

#include "core/cpu_pause.h"

namespace expert {

namespace {

constexpr uint32_t kOpen = 1U << 31;
constexpr auto kSpin = std::chrono::microseconds(100);

// Until done() or the spinning time is over; returns done().
template <typename Done>
bool spin_until(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

struct ThreadPool::Workers {
  std::vector<std::thread> threads;
  pid_t process = getpid();
};

ThreadPool::ThreadPool(int threads) : threads_(threads < 1 ? 1 : threads), workers_(std::make_unique<Workers>()) {
  workers_->threads.reserve(static_cast<size_t>(threads_ - 1));
  try {
    for (int w = 1; w < threads_; ++w) workers_->threads.emplace_back([this, w] { work(w); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  if (getpid() != workers_->process) {
    static_cast<void>(workers_.release());  // std::thread objects of threads that are not here cannot be joined
    return;
  }
  stop();
}

void ThreadPool::stop() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : workers_->threads) thread.join();
}

void ThreadPool::run_erased(int64_t count, Function function, const void* context) {
  if (count > 1 && threads_ > 1 && try_run(count, function, context)) return;
  for (int64_t i = 0; i < count; ++i) function(context, i, 0);
}

bool ThreadPool::run_all(Function function, const void* context) {
  return threads_ > 1 && getpid() == workers_->process && try_run(threads_, function, context);
}

// False where another call is in it.
bool ThreadPool::try_run(int64_t count, Function function, const void* context) {
  if (busy_.exchange(true, std::memory_order_acquire)) return false;
  function_ = function;
  context_ = context;
  count_ = count;
  failed_.store(false, std::memory_order_relaxed);
  next_.store(0, std::memory_order_relaxed);
  inside_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  do_tasks(0);
  uint32_t left = inside_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  const auto all_left = [&] { return (left = inside_.load(std::memory_order_acquire)) == 0; };
  while (left != 0 && !spin_until(all_left)) inside_.wait(left, std::memory_order_acquire);
  std::exception_ptr error = std::move(error_);
  error_ = nullptr;
  busy_.store(false, std::memory_order_release);
  if (error) std::rethrow_exception(error);
  return true;
}

void ThreadPool::do_tasks(int worker) {
  try {
    while (true) {
      const int64_t index = next_.fetch_add(1, std::memory_order_relaxed);
      if (index >= count_) return;
      function_(context_, index, worker);
    }
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

bool ThreadPool::enter() {
  uint32_t now = inside_.load(std::memory_order_relaxed);
  while ((now & kOpen) != 0) {
    if (inside_.compare_exchange_weak(now, now + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  }
  return false;
}

void ThreadPool::leave() {
  if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_one();
}

void ThreadPool::work(int worker) {
  uint32_t seen = 0;
  while (true) {
    const auto called = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(called)) epoch_.wait(seen, std::memory_order_acquire);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!enter()) continue;
    do_tasks(worker);
    leave();
  }
}

}  // namespace expert
