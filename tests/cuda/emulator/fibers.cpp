#include "cuda/emulator/fibers.h"

#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EXPERT_FIBERS_ANNOTATED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EXPERT_FIBERS_ANNOTATED
#endif
#endif
#if defined(EXPERT_FIBERS_ANNOTATED)
#include <sanitizer/common_interface_defs.h>
#endif

namespace expert::cuda_emulator {

namespace {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = size_t{96} << 10;

// As __builtin_setjmp wants it: many times faster than swapcontext(), which asks the kernel for the signal mask.
using Point = void*[5];

enum class State { ready, at_warp_barrier, at_block_barrier, done };

struct Fiber {
  Here here;
  State state = State::done;
  Point point;
  Fiber* next = nullptr;  // whose turn it is after this one's
  bool started = false;
  ucontext_t entry;
  std::unique_ptr<char[]> stack;
  void* fake_stack = nullptr;
};

struct Warp {
  int arrived = 0;
  int parity = 0;
  uint32_t values[2][kLanes];
};

Order wanted_order = Order::forward;

// One block at a time per thread of the host.
class Block {
 public:
  void run(const Index& index, int threads, size_t memory_bytes, const std::function<void()>& body);
  void wait(State state);
  Warp& warp() { return warps_[current_->here.thread.x / kLanes]; }
  unsigned lane() const { return current_->here.thread.x % kLanes; }
  unsigned char* memory() { return memory_.get(); }
  void be_fiber();

 private:
  void prepare(const Index& index, int threads);
  void put_in_order();
  void release(unsigned first, unsigned last, State from);
  void go_on();
  void switch_to(Fiber* to);
  void enter(Fiber* to);
  void arrived();

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Warp> warps_;
  std::vector<Fiber*> order_;
  std::mt19937 random_{7};
  std::unique_ptr<unsigned char[]> memory_;
  const std::function<void()>* body_ = nullptr;
  int threads_ = 0;
  Fiber* current_ = nullptr;  // null: run() itself
  int at_block_barrier_ = 0;
  int done_ = 0;
  bool stuck_ = false;
  Point home_;
  void* home_fake_stack_ = nullptr;
  const void* home_stack_ = nullptr;
  size_t home_stack_bytes_ = 0;
};

thread_local constinit Block* block = nullptr;

void fiber_entry() { block->be_fiber(); }

void Block::run(const Index& index, int threads, size_t memory_bytes, const std::function<void()>& body) {
  if (threads < 1 || threads > 1024 || threads % kLanes != 0) throw std::logic_error("a block of whole warps is expected");
  memory_ = std::make_unique_for_overwrite<unsigned char[]>(std::max<size_t>(memory_bytes, 1));
  std::fill_n(memory_.get(), memory_bytes, static_cast<unsigned char>(0xFF));  // NaN to whoever reads before it is written
  body_ = &body;
  prepare(index, threads);
  put_in_order();
  stuck_ = false;
  switch_to(order_.front());
  if (stuck_) {
    fibers_.clear();  // their stacks hold half a kernel
    throw std::logic_error("threads of a block wait at a barrier that the others do not reach");
  }
}

void Block::prepare(const Index& index, int threads) {
  threads_ = threads;
  at_block_barrier_ = 0;
  done_ = 0;
  current_ = nullptr;
  warps_.assign(static_cast<size_t>(threads / kLanes), Warp{});
  while (fibers_.size() < static_cast<size_t>(threads)) {
    fibers_.push_back(std::make_unique<Fiber>());
    fibers_.back()->stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  }
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = *fibers_[static_cast<size_t>(t)];
    fiber.here.thread = {static_cast<unsigned>(t), 0, 0};
    fiber.here.block = index;
    fiber.state = State::ready;
  }
}

void Block::put_in_order() {
  order_.clear();
  for (int t = 0; t < threads_; ++t) order_.push_back(fibers_[static_cast<size_t>(t)].get());
  if (wanted_order == Order::backward) std::reverse(order_.begin(), order_.end());
  if (wanted_order == Order::shuffled) std::shuffle(order_.begin(), order_.end(), random_);
  for (size_t i = 0; i < order_.size(); ++i) order_[i]->next = order_[(i + 1) % order_.size()];
}

void Block::release(unsigned first, unsigned last, State from) {
  for (unsigned t = first; t < last; ++t) {
    State& state = fibers_[t]->state;
    if (state == from) state = State::ready;
  }
}

// The fiber that runs waits until all of its warp or block do.
void Block::wait(State state) {
  Fiber& own = *current_;
  own.state = state;
  if (state == State::at_warp_barrier) {
    const unsigned first = own.here.thread.x / kLanes * kLanes;
    if (++warp().arrived == kLanes) {
      warp().arrived = 0;
      release(first, first + kLanes, state);
    }
  } else if (++at_block_barrier_ + done_ == threads_) {  // threads that have left are not waited for, as on a device
    at_block_barrier_ = 0;
    release(0, static_cast<unsigned>(threads_), state);
  }
  if (own.state != State::ready) go_on();
}

void Block::go_on() {
  Fiber* next = current_->next;
  while (next != current_ && next->state != State::ready) next = next->next;
  if (next->state == State::ready) return switch_to(next);
  stuck_ = done_ < threads_;
  switch_to(nullptr);
}

// What a fiber does for ever: the body, then the next one's turn.
void Block::be_fiber() {
  arrived();
  for (;;) {
    (*body_)();
    current_->state = State::done;
    ++done_;
    if (at_block_barrier_ > 0 && at_block_barrier_ + done_ == threads_) {
      at_block_barrier_ = 0;
      release(0, static_cast<unsigned>(threads_), State::at_block_barrier);
    }
    go_on();
  }
}

__attribute__((noinline)) void Block::switch_to(Fiber* to) {
  void** point = current_ == nullptr ? home_ : current_->point;
#if defined(EXPERT_FIBERS_ANNOTATED)
  void** fake = current_ == nullptr ? &home_fake_stack_ : &current_->fake_stack;
  const void* stack = to == nullptr ? home_stack_ : to->stack.get();
  __sanitizer_start_switch_fiber(fake, stack, to == nullptr ? home_stack_bytes_ : kStackBytes);
#endif
  if (__builtin_setjmp(point) == 0) enter(to);
  arrived();
}

__attribute__((noinline)) void Block::enter(Fiber* to) {
  current_ = to;
  if (to == nullptr) __builtin_longjmp(home_, 1);
  running = &to->here;
  if (to->started) __builtin_longjmp(to->point, 1);
  to->started = true;
  getcontext(&to->entry);
  to->entry.uc_stack.ss_sp = to->stack.get();
  // Their tops apart, or all would fall on the same lines of the host's cache.
  to->entry.uc_stack.ss_size = kStackBytes - to->here.thread.x % 64 * 64;
  to->entry.uc_link = nullptr;
  makecontext(&to->entry, fiber_entry, 0);
  setcontext(&to->entry);
}

void Block::arrived() {
#if defined(EXPERT_FIBERS_ANNOTATED)
  const void* from = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(current_ == nullptr ? home_fake_stack_ : current_->fake_stack, &from, &bytes);
  if (home_stack_ == nullptr) {  // the first switch of all came from run()
    home_stack_ = from;
    home_stack_bytes_ = bytes;
  }
#endif
}

}  // namespace

void set_order(Order order) { wanted_order = order; }

void run_block(const Index& index, int threads, size_t memory_bytes, const std::function<void()>& body) {
  thread_local Block own;
  block = &own;
  own.run(index, threads, memory_bytes, body);
}

constinit thread_local const Here* running = nullptr;
void block_barrier() { block->wait(State::at_block_barrier); }
void warp_barrier() { block->wait(State::at_warp_barrier); }
unsigned char* block_memory() { return block->memory(); }

// Values of the next exchange go to the other half, so one barrier is enough.
uint32_t exchange(uint32_t value, int distance) {
  Warp& warp = block->warp();
  const unsigned lane = block->lane();
  const int parity = warp.arrived == 0 ? (warp.parity ^= 1) : warp.parity;
  warp.values[parity][lane] = value;
  block->wait(State::at_warp_barrier);
  return warp.values[parity][lane ^ static_cast<unsigned>(distance)];
}

}  // namespace expert::cuda_emulator
