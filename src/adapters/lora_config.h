// adapter_config.json of a LoRA adapter as PEFT writes it: which modules it bends, with which rank and scale.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/module_pattern.h"
#include "adapters/target_modules.h"
#include "core/json.h"

namespace expert {

enum class ChangedBiases : uint8_t { none, of_targets, all };  // "none", "lora_only", "all"

class LoraConfig {
 public:
  // Throws load, naming the key, for what is malformed and for every option that would change the result and is not
  // supported (initialisations that alter the base, keys this library does not know).
  static LoraConfig parse(const Json& config, const std::string& origin);

  bool targets(std::string_view module) const { return modules_.contain(module); }
  const TargetModules& modules() const noexcept { return modules_; }

  int64_t rank_of(std::string_view name) const;
  // alpha / rank, or alpha / sqrt(rank) under rsLoRA.
  double scale_of(std::string_view name) const;
  bool rank_stabilised() const noexcept { return rslora_; }
  bool dora() const noexcept { return dora_; }
  bool lora_bias() const noexcept { return lora_bias_; }
  ChangedBiases biases() const noexcept { return biases_; }
  bool ensure_weight_tying() const noexcept { return ensure_weight_tying_; }
  // trainable_token_indices; an empty name means the input embedding.
  const std::map<std::string, std::vector<int64_t>>& token_indices() const noexcept { return token_indices_; }

 private:
  void read_patterns(const class JsonFields& fields);
  void read_token_indices(const class JsonFields& fields);

  int64_t rank_ = 0;
  double alpha_ = 0;
  bool rslora_ = false;
  bool dora_ = false;
  bool lora_bias_ = false;
  bool ensure_weight_tying_ = false;
  ChangedBiases biases_ = ChangedBiases::none;
  TargetModules modules_;
  std::map<std::string, std::vector<int64_t>> token_indices_;
  std::vector<std::pair<SuffixPattern, int64_t>> ranks_;  // in the file's order: the first match counts
  std::vector<std::pair<SuffixPattern, double>> alphas_;
};

}  // namespace expert
