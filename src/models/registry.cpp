#include "models/registry.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/error.h"

namespace expert {
namespace {

constexpr std::array<const Architecture*, 4> kArchitectures = {&kQwen3, &kQwen2, &kLlama, &kMistral};

std::string known_names() {
  std::string names;
  for (const Architecture* architecture : kArchitectures) {
    if (!names.empty()) names += ", ";
    names += architecture->name;
  }
  return names;
}

[[noreturn]] void refuse(const JsonFields& fields, std::string_view what, std::string_view name) {
  throw Error(ErrorCode::unsupported, fmt::format("{}: {} \"{}\" is not supported", fields.source(), what, name),
              "Supported architectures: " + known_names());
}

const Architecture& by_name(const JsonFields& fields, const std::vector<std::string>& names) {
  if (names.size() != 1) {
    fail(ErrorCode::unsupported, "{}: {} architectures where one was expected", fields.source(), names.size());
  }
  for (const Architecture* architecture : kArchitectures) {
    if (architecture->name == names.front()) return *architecture;
  }
  refuse(fields, "architecture", names.front());
}

const Architecture& by_type(const JsonFields& fields, const std::string& type) {
  for (const Architecture* architecture : kArchitectures) {
    if (architecture->model_type == type) return *architecture;
  }
  refuse(fields, "model_type", type);
}

std::vector<bool> window_layers(const JsonFields& fields, const ModelConfig& config) {
  std::vector<bool> sliding;
  for (const std::string& type : fields.strings_or_empty("layer_types")) {
    if (type != "full_attention" && type != "sliding_attention") {
      fail(ErrorCode::unsupported, "{}: layer type \"{}\" is not supported", fields.source(), type);
    }
    sliding.push_back(type == "sliding_attention");
  }
  if (static_cast<int64_t>(sliding.size()) != config.layers) {
    fail(ErrorCode::load, "{}: layer_types has {} entries for {} layers", fields.source(), sliding.size(),
         config.layers);
  }
  return sliding;
}

}  // namespace

std::span<const Architecture* const> architectures() { return kArchitectures; }

const Architecture& find_architecture(const JsonFields& fields) {
  const std::optional<std::string> type = fields.optional_string("model_type");
  if (!fields.has("architectures")) {
    if (!type) fail(ErrorCode::load, "{}: neither \"architectures\" nor \"model_type\"", fields.source());
    return by_type(fields, *type);
  }
  const Architecture& architecture = by_name(fields, fields.strings("architectures"));
  if (type && *type != architecture.model_type) refuse(fields, "model_type", *type);
  return architecture;
}

void read_layer_windows(const JsonFields& fields, ModelConfig& config) {
  constexpr int64_t kDefaultWindow = 4096;
  constexpr int64_t kDefaultFullLayers = 28;
  std::optional<int64_t> window;
  if (fields.boolean_or("use_sliding_window", false)) {
    window = fields.json().contains("sliding_window") ? fields.optional_integer("sliding_window") : kDefaultWindow;
  }
  bool some_layer = false;
  if (fields.has("layer_types")) {
    const std::vector<bool> sliding = window_layers(fields, config);
    some_layer = std::find(sliding.begin(), sliding.end(), true) != sliding.end();
    if (some_layer && !window) {
      fail(ErrorCode::load, "{}: layer_types has sliding layers, but no sliding_window is in use", fields.source());
    }
  } else {
    some_layer = fields.integer_or("max_window_layers", kDefaultFullLayers) < config.layers;
  }
  if (some_layer) config.sliding_window = window;
}

}  // namespace expert
