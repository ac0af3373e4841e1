// A number in a descriptor of the caller's event loop, which wakes it without a thread in between.
#pragma once

namespace expert {

// A copy of an eventfd, so that the caller may close his own at any time.
class EndSignal {
 public:
  EndSignal() = default;
  // Throws Error(invalid_request) for what is no eventfd that never blocks, (unsupported) where there are none.
  explicit EndSignal(int event_fd);
  EndSignal(EndSignal&& other) noexcept : copy_(other.copy_) { other.copy_ = -1; }
  EndSignal& operator=(EndSignal&& other) noexcept;
  ~EndSignal();

  // Adds 1. Without a descriptor it does nothing.
  void raise() const noexcept;

 private:
  int copy_ = -1;
};

}  // namespace expert
