// Ctrl-C. The first one asks, the second one kills as usual.
#pragma once

namespace cli {

// While one lives, SIGINT only sets a flag, and blocking reads return early.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

bool interrupted();
// Forgets an interrupt that was dealt with.
void clear_interrupt();

}  // namespace cli
