#include "adapters/target_modules.h"

#include <algorithm>
#include <charconv>

#include "adapters/lowering.h"
#include "core/error.h"
#include "core/strings.h"

namespace expert {
namespace {

bool is_tied_layer_name(std::string_view name) { return name == "embed_tokens" || name == "lm_head"; }

std::vector<std::string_view> components(std::string_view module) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= module.size();) {
    const size_t end = std::min(module.find('.', start), module.size());
    parts.push_back(module.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// "model.layers.17.mlp.up_proj" → 17: the first number between two names that has two names before it, as PEFT finds it
// where no layers_pattern is given.
std::optional<int64_t> layer_index(std::string_view module) {
  const std::vector<std::string_view> parts = components(module);
  for (size_t i = 2; i + 1 < parts.size(); ++i) {
    if (const auto index = number(parts[i])) return index;
  }
  return std::nullopt;
}

// The number behind what `pattern` matches: the last one, since PEFT's `.*\.{pattern}\.(\d+)\.` is greedy.
std::optional<int64_t> layer_index(std::string_view module, const ModulePattern& pattern) {
  for (size_t end = module.rfind('.'); end != std::string_view::npos && end > 0;) {
    const size_t begin = module.rfind('.', end - 1);
    if (begin == std::string_view::npos) break;
    const auto index = number(module.substr(begin + 1, end - begin - 1));
    if (index && pattern.matches(module.substr(0, begin))) return index;
    end = begin;
  }
  return std::nullopt;
}

// PEFT takes the number from the first group of the whole expression, and puts nothing around the pattern.
bool hides_the_number(std::string_view pattern) {
  int depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\') {
      ++i;
    } else if (pattern[i] == '[') {
      i = std::min(pattern.find(']', i + 2), pattern.size());
    } else if (pattern[i] == '(') {
      if (pattern.substr(i + 1, 1) != "?" || pattern.substr(i + 1, 2) == "?P") return true;
      ++depth;
    } else if (pattern[i] == ')') {
      --depth;
    } else if (pattern[i] == '|' && depth == 0) {
      return true;
    }
  }
  return false;
}

// Whether `names` stand one after the other in `parts`.
bool holds(const std::vector<std::string_view>& parts, const std::vector<std::string_view>& names) {
  return std::search(parts.begin(), parts.end(), names.begin(), names.end()) != parts.end();
}

}  // namespace

bool has_suffix(std::string_view module, std::string_view suffix) {
  if (module == suffix) return true;
  return module.size() > suffix.size() && module.ends_with(suffix) &&
         module[module.size() - suffix.size() - 1] == '.';
}

std::string_view last_component(std::string_view module) { return module.substr(module.rfind('.') + 1); }

ModuleNames ModuleNames::read(const JsonFields& fields, std::string_view key) {
  ModuleNames modules;
  const Json* value = fields.find(key);
  if (value == nullptr) return modules;
  if (value->is_string()) {
    modules.pattern.emplace_back(fields.string(key), fmt::format("{}: {}", fields.source(), key));
  } else {
    modules.names = fields.strings(key);
  }
  return modules;
}

bool ModuleNames::contain(std::string_view module) const {
  if (!pattern.empty()) return pattern.front().matches(module);
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return has_suffix(module, name); });
}

TargetModules TargetModules::parse(const JsonFields& fields) {
  TargetModules modules;
  modules.saved_ = fields.strings_or_empty("modules_to_save");
  const Json& targets = fields.require("target_modules");
  modules.all_linear_ = targets.is_string() && lower_ascii(fields.string("target_modules")) == "all-linear";
  if (!modules.all_linear_) modules.targets_ = ModuleNames::read(fields, "target_modules");
  if (!modules.all_linear_ && modules.targets_.empty()) {
    fail(ErrorCode::load, "{}: \"target_modules\" is empty", fields.source());
  }
  modules.excluded_ = ModuleNames::read(fields, "exclude_modules");
  modules.read_layers(fields);
  return modules;
}

void TargetModules::read_layers(const JsonFields& fields) {
  const Json* pattern = fields.find("layers_pattern");
  const Json* layers = fields.find("layers_to_transform");
  if (pattern != nullptr && !is_off(*pattern) && *pattern != "") {
    const std::vector<std::string> names =
        pattern->is_string() ? std::vector{fields.string("layers_pattern")} : fields.strings("layers_pattern");
    for (const std::string& name : names) {
      if (hides_the_number(name)) {
        fail(ErrorCode::load, "{}: \"layers_pattern\": \"{}\" has a group or a | of its own, which hides the layer number",
             fields.source(), name);
      }
      layer_patterns_.emplace_back("(?:.*\\.)" + name, fmt::format("{}: layers_pattern", fields.source()));
    }
    if (layers == nullptr) {
      fail(ErrorCode::load, "{}: \"layers_pattern\" without \"layers_to_transform\"", fields.source());
    }
  }
  if (layers == nullptr || (layers->is_array() && layers->empty())) return;
  if (fields.json().at("target_modules").is_string()) {
    fail(ErrorCode::load, "{}: \"layers_to_transform\" cannot go with a target_modules pattern", fields.source());
  }
  const Json list = layers->is_array() ? *layers : Json::array({*layers});
  layers_.emplace();
  for (const Json& index : list) {
    if (!index.is_number_integer()) {
      fail(ErrorCode::load, "{}: \"layers_to_transform\" must hold layer numbers", fields.source());
    }
    layers_->push_back(index.get<int64_t>());
  }
}

bool TargetModules::in_layers(std::string_view module) const {
  if (!layers_) return true;
  // A module named in full is meant, whatever its layer.
  if (std::find(targets_.names.begin(), targets_.names.end(), module) != targets_.names.end()) return true;
  std::optional<int64_t> index;
  if (layer_patterns_.empty()) index = layer_index(module);
  for (const ModulePattern& pattern : layer_patterns_) {
    if (!index) index = layer_index(module, pattern);
  }
  return index && std::find(layers_->begin(), layers_->end(), *index) != layers_->end();
}

bool TargetModules::contain(std::string_view module) const {
  if (excluded_.contain(module)) return false;
  const std::vector<std::string_view> parts = components(module);
  for (const std::string& name : saved_) {
    if (holds(parts, components(name))) return false;
  }
  if (all_linear_) return !is_tied_layer_name(last_component(module));
  return targets_.contain(module) && in_layers(module);
}

std::vector<std::string> TargetModules::absent(const SiteTable& sites) const {
  std::vector<std::string> absent;
  for (const std::string& target : targets_.names) {
    const bool found =
        std::any_of(sites.begin(), sites.end(), [&](const LinearSite& site) { return has_suffix(site.name, target); });
    if (!found) absent.push_back(target);
  }
  return absent;
}

bool TargetModules::name_tied_layers() const {
  if (targets_.is_pattern()) {
    return targets_.pattern.front().matches("embed_tokens") || targets_.pattern.front().matches("lm_head");
  }
  return std::any_of(targets_.names.begin(), targets_.names.end(),
                     [](const std::string& name) { return is_tied_layer_name(last_component(name)); });
}

bool TargetModules::save_tied_layers() const {
  return std::any_of(saved_.begin(), saved_.end(),
                     [](const std::string& name) { return is_tied_layer_name(last_component(name)); });
}

// PEFT wraps every module whose path ends in one of the names, dot or no dot.
bool TargetModules::is_saved(std::string_view module) const {
  for (std::string_view path = module;; path = path.substr(0, path.rfind('.'))) {
    if (std::any_of(saved_.begin(), saved_.end(), [&](const std::string& name) { return path.ends_with(name); })) {
      return true;
    }
    if (path.find('.') == std::string_view::npos) return false;
  }
}

std::vector<std::string> TargetModules::absent_saved(const SiteTable& sites) const {
  std::vector<std::string> absent;
  for (const std::string& name : saved_) {
    TargetModules only;
    only.saved_ = {name};
    const bool found =
        std::any_of(sites.begin(), sites.end(), [&](const LinearSite& site) { return only.is_saved(site.name); });
    if (!found) absent.push_back(name);
  }
  return absent;
}

}  // namespace expert
