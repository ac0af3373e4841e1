// A status of the C interface as a C++ exception, on its way to the error class that lib/errors.js chooses.
#pragma once

#include <expert/expert.h>

#include <memory>
#include <string>

namespace expert_node {

struct Failure {
  expert_status status;
  std::string message;
  std::string hint;
};

// To be called on the thread that made the failing call, before anything else is called there.
inline void check(expert_status status) {
  if (status == EXPERT_OK) return;
  const expert_error* error = expert_last_error();
  throw Failure{status, error->message, error->hint};
}

struct Freed {
  void operator()(void* memory) const { expert_free(memory); }
  void operator()(expert_stream* stream) const { expert_stream_free(stream); }
  void operator()(expert_result* result) const { expert_result_free(result); }
};
using Result = std::unique_ptr<expert_result, Freed>;
using Text = std::unique_ptr<char, Freed>;
using Tokens = std::unique_ptr<int32_t, Freed>;

}  // namespace expert_node
