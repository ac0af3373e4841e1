// Ctrl-C. The first one asks, the second one kills as usual.
#pragma once

namespace cli {

// While one lives, SIGINT only sets a flag, and blocking reads return early.
class InterruptScope {
 public:
  // cleans_up: there is something on disk to take away, so SIGTERM and SIGHUP ask too; they take effect when the scope
  // ends.
  explicit InterruptScope(bool cleans_up = false);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  bool cleans_up_;
};

bool interrupted();
// Forgets an interrupt that was dealt with.
void clear_interrupt();

}  // namespace cli
