// What ends a command early: an exit code and what to tell the user.
#pragma once

#include <expert/expert.h>

#include <stdexcept>
#include <string>

namespace cli {

// Of the codes that are promised, 3 (a missing dependency), 10 (training) and 11 (validation) belong to commands that
// are not built yet.
enum Exit : int {
  kOk = 0,
  kGeneral = 1,
  kUsage = 2,
  kIncompatible = 4,
  kSignature = 5,
  kPackaging = 12,
  kInterrupted = 130,
};

class Failure : public std::runtime_error {
 public:
  Failure(int exit_code, std::string name, const std::string& message, std::string advice = {})
      : std::runtime_error(message), exit(exit_code), code(std::move(name)), hint(std::move(advice)) {}
  int exit;
  std::string code;  // "load": what programs branch on
  std::string hint;
};

Failure usage_error(const std::string& message, const std::string& hint = {});
Failure not_supported_yet(const std::string& what);
// Of the library's last error on this thread.
Failure last_failure();
// Throws last_failure() unless `status` is EXPERT_OK.
void check(expert_status status);

// To stderr, and with --json as one document to stdout: {"error": {code, message, hint, exit_code}}.
void report(const Failure& failure, bool json);

}  // namespace cli
