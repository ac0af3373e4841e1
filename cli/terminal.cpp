#include "terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "failure.h"

namespace cli {

namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// errno of the failed write, 0 when everything was written.
int write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {  // somebody shares the terminal and made it non-blocking
      pollfd output = {descriptor, POLLOUT, 0};
      ::poll(&output, 1, -1);
      continue;
    }
    if (written < 0) return errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace

void prepare_streams() {
  std::signal(SIGPIPE, SIG_IGN);
  // The lowest free descriptor is the closed one. Opened the wrong way round for stdout, so that writing still fails.
  if (::fcntl(STDIN_FILENO, F_GETFD) == -1) static_cast<void>(::open("/dev/null", O_RDONLY));
  if (::fcntl(STDOUT_FILENO, F_GETFD) == -1) static_cast<void>(::open("/dev/null", O_RDONLY));
  if (::fcntl(STDERR_FILENO, F_GETFD) == -1) static_cast<void>(::open("/dev/null", O_WRONLY));
}

bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }
bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }

void print(std::string_view text) {
  if (const int error = write_all(STDOUT_FILENO, text)) {
    throw Failure(kGeneral, "write", std::string("standard output: ") + std::strerror(error));
  }
}

void note(std::string_view text) { static_cast<void>(write_all(STDERR_FILENO, text)); }

std::string paint(std::string_view text, Color color) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  const bool plain = !stderr_is_terminal() || (no_color != nullptr && *no_color != '\0') ||
                     (terminal != nullptr && std::strcmp(terminal, "dumb") == 0);
  if (plain) return std::string(text);
  const char* code = color == Color::red ? "31" : color == Color::yellow ? "33" : "2";
  return std::string("\x1b[") + code + "m" + std::string(text) + "\x1b[0m";
}

ProgressBar::ProgressBar(std::string label) : label_(std::move(label)), started_(now_seconds()) {}

ProgressBar::~ProgressBar() {
  if (shown_percent_ >= 0) note("\r\x1b[K");
}

void ProgressBar::show(double fraction) {
  if (!stderr_is_terminal() || now_seconds() - started_ < 0.5) return;
  const int percent = std::clamp(static_cast<int>(100 * fraction), 0, 100);
  if (percent == shown_percent_) return;
  shown_percent_ = percent;
  constexpr int kWidth = 30;
  const auto filled = static_cast<size_t>(kWidth * percent / 100);
  note("\r" + label_ + " [" + std::string(filled, '#') + std::string(kWidth - filled, ' ') + "] " +
       std::to_string(percent) + "%\x1b[K");
}

}  // namespace cli
