// adapter_config.json of a LoRA adapter as PEFT writes it: which modules it bends, with which rank and scale.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/module_pattern.h"
#include "adapters/site.h"
#include "core/json.h"

namespace expert {

class LoraConfig {
 public:
  // Throws load, naming the key, for what is malformed and for every option that would change the result and is not
  // supported (DoRA, biases, modules_to_save, initialisations that alter the base, keys this library does not know).
  static LoraConfig parse(const Json& config, const std::string& origin);

  // PEFT's rule: target_modules (a list of names or suffixes, a pattern, or "all-linear"), less exclude_modules, in the
  // layers of layers_to_transform. `name` is the module's path in the base model.
  bool targets(std::string_view name) const;
  // Names in target_modules that no site of the base carries.
  std::vector<std::string> absent_targets(const SiteTable& sites) const;

  int64_t rank_of(std::string_view name) const;
  // alpha / rank, or alpha / sqrt(rank) under rsLoRA.
  double scale_of(std::string_view name) const;
  bool rank_stabilised() const noexcept { return rslora_; }

 private:
  // Module names given as one pattern or as a list of names and suffixes.
  struct Modules {
    std::vector<std::string> names;
    std::vector<ModulePattern> pattern;  // one, or none
    bool contain(std::string_view name) const;
  };

  void read_targets(const class JsonFields& fields);
  void read_layers(const class JsonFields& fields);
  void read_patterns(const class JsonFields& fields);
  bool in_layers(std::string_view name) const;

  int64_t rank_ = 8;
  double alpha_ = 8;
  bool rslora_ = false;
  bool all_linear_ = false;
  Modules targets_;
  Modules excluded_;
  std::optional<std::vector<int64_t>> layers_;
  std::vector<std::pair<SuffixPattern, int64_t>> ranks_;  // in the file's order: the first match counts
  std::vector<std::pair<SuffixPattern, double>> alphas_;
};

}  // namespace expert
