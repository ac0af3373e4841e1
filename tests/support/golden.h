// What the committed golden files of tests/golden/models hold, and how far from it a result is.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace expert::test {

inline std::string golden(const std::string& name) { return std::string(EXPERT_SOURCE_DIR) + "/tests/golden/models/" + name; }

inline double relative_error(const std::vector<float>& ours, const std::vector<float>& expected) {
  REQUIRE(ours.size() == expected.size());
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(ours[i]) - expected[i]));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return difference / largest;
}

struct Golden {
  explicit Golden(const std::string& name) : file(SafeTensors::open(golden(name) + "/expected.safetensors")) {
    const TensorEntry& entry = file.at("ids");
    ids.resize(entry.elements());
    file.read(entry, 0, ids.data(), entry.bytes);
  }
  std::vector<float> logits(const std::string& name) const { return file.read_f32(file.at(name)); }
  SafeTensors file;
  std::vector<int32_t> ids;
};

}  // namespace expert::test
