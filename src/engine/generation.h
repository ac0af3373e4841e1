// One running request as its caller sees it. Thread-safe: any thread may read, wait or cancel.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "engine/request.h"

namespace expert {

struct StreamChunk {
  std::string text;  // never splits a character, never holds part of a stop string
  std::vector<int32_t> tokens;
  std::shared_ptr<const Result> result;  // set on the last chunk only
};

class Generation {
 public:
  virtual ~Generation() = default;
  // Next chunk; nullopt when `timeout` passed or the stream has ended. Throws the request's Error instead of the last
  // chunk when it failed (finish_reason error). A cancelled stream ends with a chunk whose result says `cancelled`.
  virtual std::optional<StreamChunk> next(std::chrono::nanoseconds timeout) = 0;
  // Waits for the end. Throws Error(timeout), or the request's Error. A cancelled request returns its partial result
  // with finish_reason cancelled: the bindings raise CancelledError from it.
  virtual std::shared_ptr<const Result> wait(std::chrono::nanoseconds timeout) = 0;
  virtual bool done() const = 0;
  // Adds 1 to the eventfd when the request ends, at once when it has: see core/end_signal.h. A second one replaces it.
  virtual void signal_end(int event_fd) = 0;
  virtual void cancel() = 0;  // idempotent
};

}  // namespace expert
