// What the C and the C++ runner share: the story, and how outcomes are printed.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace scenario {

using Json = nlohmann::json;

// argv: the source folder, the home.
inline Json read(const char* source_dir) {
  std::ifstream file(std::string(source_dir) + "/tests/scenario/scenario.json");
  return Json::parse(file);
}

// What must be equal in every language; times are not.
inline Json outcome(const Json& result) {
  Json out;
  for (const char* field : {"text", "output", "tokens", "experts_used", "finish_reason", "usage"}) {
    out[field] = result.at(field);
  }
  if (result.contains("logprobs")) out["logprobs"] = result["logprobs"];
  return out;
}

// The part of a plan that every language names.
inline Json plan(const Json& routed) {
  Json experts = Json::array();
  for (const Json& chosen : routed.at("experts")) {
    experts.push_back({{"name", chosen.at("name")},
                       {"weight", chosen.at("weight")},
                       {"score", chosen.at("score")},
                       {"reason", chosen.at("reason")}});
  }
  return {{"experts", std::move(experts)},
          {"parameters", routed.at("parameters")},
          {"confidence", routed.at("confidence")},
          {"explanation", routed.at("explanation")}};
}

inline Json largest_of_rows(const std::vector<float>& logits, size_t columns) {
  Json out = Json::array();
  for (size_t start = 0; start < logits.size(); start += columns) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(start);
    out.push_back(std::max_element(row, row + static_cast<std::ptrdiff_t>(columns)) - row);
  }
  return out;
}

// Six decimal places.
inline Json rounded(const std::vector<float>& values) {
  Json out = Json::array();
  for (const float value : values) out.push_back(std::lround(static_cast<double>(value) * 1e6));
  return out;
}

// [["sql", 1], "json"] → pairs.
inline std::vector<std::pair<std::string, float>> pairs(const Json& experts) {
  std::vector<std::pair<std::string, float>> out;
  for (const Json& entry : experts) {
    if (entry.is_array()) {
      out.emplace_back(entry[0], entry[1].get<float>());
    } else {
      out.emplace_back(entry, 1.0F);
    }
  }
  return out;
}

template <typename Run>
int tell(const Json& story, Run&& run) {
  Json outcomes = Json::array();
  for (const Json& step : story["steps"]) outcomes.push_back({{"name", step["name"]}, {"outcome", run(step)}});
  std::cout << outcomes.dump() << "\n";
  return 0;
}

}  // namespace scenario
