// What one rendering of a chat template may use. Exceeding any of them is an Error(ErrorCode::invalid_request).
#pragma once

#include <cstddef>
#include <cstdint>

namespace expert {

struct TemplateLimits {
  uint64_t steps = 20'000'000;
  uint64_t bytes = uint64_t{512} << 20;  // as allocated: nothing is given back before the rendering ends
  size_t output_bytes = size_t{64} << 20;
  size_t string_bytes = size_t{64} << 20;  // of any one string
  size_t depth = 1200;                     // nested evaluations
};

}  // namespace expert
