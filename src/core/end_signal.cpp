#include "core/end_signal.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/error.h"

#if defined(__linux__)
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>
#endif

namespace expert {

#if defined(__linux__)

namespace {

// Anything else might block the engine's thread, or kill the process when nobody reads it.
bool is_eventfd(int fd) {
  char target[64] = {};
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = readlink(link.c_str(), target, sizeof target - 1);
  return length > 0 && std::string_view(target).starts_with("anon_inode:[eventfd]");
}

}  // namespace

EndSignal::EndSignal(int event_fd) {
  const int flags = fcntl(event_fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) == 0 || !is_eventfd(event_fd)) {
    fail(ErrorCode::invalid_request, "descriptor {} is not an eventfd with EFD_NONBLOCK", event_fd);
  }
  copy_ = fcntl(event_fd, F_DUPFD_CLOEXEC, 0);
  if (copy_ < 0) fail(ErrorCode::out_of_memory, "no copy of descriptor {}: {}", event_fd, std::strerror(errno));
}

EndSignal::~EndSignal() {
  if (copy_ >= 0) ::close(copy_);
}

void EndSignal::raise() const noexcept {
  if (copy_ >= 0) static_cast<void>(eventfd_write(copy_, 1));  // a full counter will be read as well
}

#else

EndSignal::EndSignal(int /*event_fd*/) {
  throw Error(ErrorCode::unsupported, "this system has no eventfd", "use expert_stream_listen()");
}
EndSignal::~EndSignal() = default;
void EndSignal::raise() const noexcept {}

#endif

EndSignal& EndSignal::operator=(EndSignal&& other) noexcept {
  std::swap(copy_, other.copy_);
  return *this;
}

}  // namespace expert
