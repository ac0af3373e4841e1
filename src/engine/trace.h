// What happened to one request, in order: JSON objects that a tool may write as lines. Only for requests that ask.
#pragma once

#include <chrono>

#include "core/json.h"

namespace expert {

class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Trace(Clock::time_point start) : start_(start) {}

  // {"t_ms": …, "event": name, …fields}
  void add(const char* name, Clock::time_point now, const Json& fields = Json::object()) {
    Json event = {{"t_ms", std::chrono::duration<double, std::milli>(now - start_).count()}, {"event", name}};
    event.update(fields);
    events_.push_back(std::move(event));
  }
  Json take() { return std::move(events_); }

 private:
  Clock::time_point start_;
  Json events_ = Json::array();
};

}  // namespace expert
