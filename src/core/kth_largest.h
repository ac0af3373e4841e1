#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace expert {

// The k-th largest of `values`, 1 <= k <= their number; none of them a NaN. One pass: a value at or below the k-th largest
// seen so far cannot change it. `scratch` keeps its memory.
inline float kth_largest(std::span<const float> values, size_t k, std::vector<float>& scratch) {
  const auto cut = [&] {
    std::nth_element(scratch.begin(), scratch.begin() + static_cast<ptrdiff_t>(k - 1), scratch.end(), std::greater<>());
    scratch.resize(k);
    return scratch[k - 1];
  };
  scratch.clear();
  float threshold = -std::numeric_limits<float>::infinity();
  for (const float value : values) {
    if (scratch.size() >= k && value <= threshold) continue;
    scratch.push_back(value);
    if (scratch.size() >= 2 * k + 64) threshold = cut();
  }
  return cut();
}

}  // namespace expert
