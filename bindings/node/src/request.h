// A request as lib/request.js lays it out, in memory of our own, so that any thread may submit it.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "failure.h"

namespace expert_node {

using EngineHandle = std::shared_ptr<expert_engine>;
using ExpertHandle = std::shared_ptr<expert_expert>;
using OptionalText = std::optional<std::string>;

// [handle or name, weight, handle or name, …] and the C array over it.
class Uses {
 public:
  Uses() = default;
  explicit Uses(const Napi::Array& list);
  // Valid until this object is moved or destroyed.
  std::vector<expert_use> view() const;
  bool any_path() const;

 private:
  struct Use {
    ExpertHandle handle;
    OptionalText name;
    float weight;
  };
  std::vector<Use> uses_;
};

// Where lib/request.js leaves the flags and numbers of the next request, in the order of `Number`.
enum Number : size_t {
  kFlags, kTemperature, kTopP, kMinP, kRepetitionPenalty, kPresencePenalty, kFrequencyPenalty, kTopK, kMaxTokens,
  kLogprobs, kPriority, kDeadlineMs, kNumbers
};

class Request {
 public:
  // `experts`: for Uses, or undefined. `rest`: an object of what few requests have, or undefined.
  Request(const double* numbers, const Napi::Value& prompt, const Napi::Value& experts, const Napi::Value& rest);

  // Whether JavaScript's own thread may try to submit it: well under a millisecond where it is quick at all.
  bool light() const;

  // Calls `use` with the C struct; what it points to lives in this object and in this frame.
  template <typename Use>
  expert_status with_view(Use&& use, uint32_t more_flags = 0) const {
    const std::vector<expert_use> experts = uses_.view();
    std::vector<const char*> stop;
    for (const std::string& text : stop_) stop.push_back(text.c_str());
    expert_request view = make_view(experts, stop);
    view.flags |= more_flags;
    return use(&view);
  }

 private:
  void read_rest(const Napi::Object& given);
  expert_request make_view(const std::vector<expert_use>& experts, const std::vector<const char*>& stop) const;

  OptionalText prompt_, messages_, tools_, template_variables_, schema_, body_, caller_, cache_salt_;
  Uses uses_;
  std::vector<std::string> stop_;
  std::vector<int32_t> bias_tokens_;
  std::vector<float> bias_values_;
  expert_request numbers_ = EXPERT_REQUEST_INIT;  // its numbers and flags; no pointers
};

OptionalText optional_text(const Napi::Value& value);
const char* or_null(const OptionalText& text);

}  // namespace expert_node
