// One exception type for everything the library can refuse. Thrown below the C boundary only; capi/ turns it into a status.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace expert {

// The order is part of the C ABI: expert_status in include/expert/expert.h has the same values.
enum class ErrorCode : int {
  ok = 0,
  internal = 1,         // a defect of ours
  invalid_request = 2,  // the caller's arguments
  load = 3,             // a file that cannot be used: missing, truncated, malformed
  manifest = 4,         // a manifest.json that breaks its rules
  signature = 5,        // unsigned, unknown publisher, altered bytes
  incompatible = 6,     // well formed, but not for this base model
  out_of_memory = 7,    // a budget or the machine
  grammar = 8,
  cancelled = 9,
  unsupported = 10,  // known by name, not built or not built yet
  inference = 11,    // a running request failed
  closed = 12,       // the engine was closed
  timeout = 13,
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message, std::string hint = {})
      : std::runtime_error(std::move(message)), code_(code), hint_(std::move(hint)) {}
  ErrorCode code() const noexcept { return code_; }
  // What the user can do about it; may be empty.
  const std::string& hint() const noexcept { return hint_; }

 private:
  ErrorCode code_;
  std::string hint_;
};

// fail(ErrorCode::load, "{}: header is {} bytes, file has {}", path, want, have)
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace expert
