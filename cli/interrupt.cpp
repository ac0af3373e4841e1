#include "interrupt.h"

#include <csignal>

namespace cli {

namespace {

volatile std::sig_atomic_t flag = 0;  // the signal that came

void handle(int signal) { flag = signal; }

// Without SA_RESTART, so that a blocked read notices; one shot, so that a second Ctrl-C is not swallowed.
void arm(int signal) {
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

constexpr int kEnds[] = {SIGTERM, SIGHUP};

}  // namespace

InterruptScope::InterruptScope(bool cleans_up) : cleans_up_(cleans_up) {
  arm(SIGINT);
  if (!cleans_up_) return;
  for (int signal : kEnds) arm(signal);
}

InterruptScope::~InterruptScope() {
  std::signal(SIGINT, SIG_DFL);
  if (!cleans_up_) return;
  for (int signal : kEnds) std::signal(signal, SIG_DFL);
  // Whoever sent it shall see that it was obeyed.
  if (flag != 0 && flag != SIGINT) std::raise(flag);
}

bool interrupted() { return flag != 0; }

void clear_interrupt() {
  flag = 0;
  arm(SIGINT);
}

}  // namespace cli
