#include "interrupt.h"

#include <csignal>

namespace cli {

namespace {

volatile std::sig_atomic_t flag = 0;

void handle(int /*signal*/) { flag = 1; }

// Without SA_RESTART, so that a blocked read notices; one shot, so that a second Ctrl-C is not swallowed.
void arm() {
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace

InterruptScope::InterruptScope() { arm(); }
InterruptScope::~InterruptScope() { std::signal(SIGINT, SIG_DFL); }

bool interrupted() { return flag != 0; }

void clear_interrupt() {
  flag = 0;
  arm();
}

}  // namespace cli
