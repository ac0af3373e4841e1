// Which modules of the base an adapter_config.json means, as PEFT resolves it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/module_pattern.h"
#include "adapters/site.h"
#include "io/json.h"

namespace expert {

// Module names given as one regular expression (matched whole) or as a list.
class ModuleNames {
 public:
  static ModuleNames read(const JsonFields& fields, std::string_view key);
  bool empty() const { return names.empty() && pattern.empty(); }
  bool is_pattern() const { return !pattern.empty(); }
  // The pattern, or a name that is the module's or a suffix of it at a dot.
  bool contain(std::string_view module) const;

  std::vector<std::string> names;
  std::vector<ModulePattern> pattern;  // one, or none
};

class TargetModules {
 public:
  // Keys: target_modules (names, suffixes, a pattern or "all-linear"), exclude_modules, layers_to_transform,
  // layers_pattern, modules_to_save. Throws load, naming the key.
  static TargetModules parse(const JsonFields& fields);

  bool contain(std::string_view module) const;
  // Names in target_modules that no site of the base carries.
  std::vector<std::string> absent(const SiteTable& sites) const;
  // PEFT's test for adapters of tied layers: "embed_tokens" or "lm_head" is meant, by its bare name.
  bool name_tied_layers() const;
  bool save_tied_layers() const;  // the same test of modules_to_save

  // modules_to_save, and whether a module is one of them or lies inside one.
  const std::vector<std::string>& saved() const { return saved_; }
  bool is_saved(std::string_view module) const;
  // Names in modules_to_save that no site of the base carries or lies under.
  std::vector<std::string> absent_saved(const SiteTable& sites) const;

 private:
  void read_layers(const JsonFields& fields);
  bool in_layers(std::string_view module) const;

  bool all_linear_ = false;
  ModuleNames targets_;
  ModuleNames excluded_;
  std::vector<std::string> saved_;
  std::vector<ModulePattern> layer_patterns_;  // layers_pattern; empty: any
  std::optional<std::vector<int64_t>> layers_;
};

bool has_suffix(std::string_view module, std::string_view suffix);  // itself, or behind a dot
std::string_view last_component(std::string_view module);

}  // namespace expert
