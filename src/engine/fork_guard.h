// After fork() only the calling thread exists in the child, and a lock another thread held stays locked for ever. So
// whatever was opened by a parent refuses to work in its child.
#pragma once

#include <unistd.h>

#include "core/error.h"

namespace expert {

class ForkGuard {
 public:
  bool inherited() const noexcept { return ::getpid() != owner_; }
  // Throws closed in a child process.
  void check() const {
    if (inherited()) {
      throw Error(ErrorCode::closed, "this handle belongs to the parent process and cannot be used after fork()",
                  "open an engine in the child, or start the child before the engine");
    }
  }

 private:
  pid_t owner_ = ::getpid();
};

}  // namespace expert
