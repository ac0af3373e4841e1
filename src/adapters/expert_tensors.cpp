#include "adapters/expert_tensors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "core/error.h"

namespace expert {
namespace {

struct Ending {
  std::string_view text;
  TensorPart part;
};

// Longer ones before those they end in. PEFT writes the first of each group; the others are the older spelling of
// expert packages, and state dicts that kept the adapter's name.
constexpr std::array kEndings = {
    Ending{".lora_A.weight", TensorPart::lora_a},
    Ending{".lora_A.default.weight", TensorPart::lora_a},
    Ending{".lora_A", TensorPart::lora_a},
    Ending{".lora_B.weight", TensorPart::lora_b},
    Ending{".lora_B.default.weight", TensorPart::lora_b},
    Ending{".lora_B", TensorPart::lora_b},
    Ending{".lora_B.bias", TensorPart::lora_bias},
    Ending{".lora_B.default.bias", TensorPart::lora_bias},
    Ending{".lora_magnitude_vector", TensorPart::magnitude},
    Ending{".lora_magnitude_vector.weight", TensorPart::magnitude},
    Ending{".lora_magnitude_vector.default", TensorPart::magnitude},
    Ending{".lora_magnitude_vector.default.weight", TensorPart::magnitude},
    Ending{".lora_magnitude", TensorPart::magnitude},
    Ending{".lora_embedding_A", TensorPart::embedding_a},
    Ending{".lora_embedding_A.default", TensorPart::embedding_a},
    Ending{".lora_embedding_B", TensorPart::embedding_b},
    Ending{".lora_embedding_B.default", TensorPart::embedding_b},
    Ending{".ia3_l", TensorPart::ia3},
    Ending{".ia3_l.default", TensorPart::ia3},
    Ending{".ia3_scale", TensorPart::ia3},
    Ending{".token_adapter.trainable_tokens_delta", TensorPart::token_rows},
    Ending{".token_adapter.trainable_tokens_delta.default", TensorPart::token_rows},
    Ending{".base_layer.weight", TensorPart::base_weight},
    Ending{".token_adapter.base_layer.weight", TensorPart::base_weight},
    Ending{".original_module.weight", TensorPart::base_weight},
    Ending{".base_layer.bias", TensorPart::base_bias},
    Ending{".original_module.bias", TensorPart::base_bias},
    Ending{".modules_to_save.default.weight", TensorPart::saved_weight},
    Ending{".modules_to_save.weight", TensorPart::saved_weight},
    Ending{".weight", TensorPart::saved_weight},
    Ending{".modules_to_save.default.bias", TensorPart::saved_bias},
    Ending{".modules_to_save.bias", TensorPart::saved_bias},
    Ending{".bias", TensorPart::saved_bias},
    Ending{".lora_velora_embed", TensorPart::training_state},
    Ending{".lora_velora_embed.default", TensorPart::training_state},
};

struct Key {
  std::string_view module;
  TensorPart part;
};

// The longest ending that fits.
std::optional<Key> parse_key(std::string_view name) {
  const Ending* best = nullptr;
  for (const Ending& ending : kEndings) {
    if (name.size() <= ending.text.size() || !name.ends_with(ending.text)) continue;
    if (best == nullptr || ending.text.size() > best->text.size()) best = &ending;
  }
  if (best == nullptr) return std::nullopt;
  return Key{name.substr(0, name.size() - best->text.size()), best->part};
}

// The site a saved name means: PEFT puts "base_model.model." before the module's path, older packages dropped one
// "model." of it, and state dicts taken from the bare model have no prefix.
std::optional<int> find_site(const SiteTable& sites, std::string_view module) {
  for (const std::string_view prefix : {"base_model.model.", "base_model.", ""}) {
    if (!module.starts_with(prefix)) continue;
    if (const auto site = sites.find(module.substr(prefix.size()))) return site;
    if (const auto site = sites.find("model." + std::string(module.substr(prefix.size())))) return site;
  }
  return std::nullopt;
}

// Why a tensor was left over.
std::string_view reason_of(TensorPart part) {
  switch (part) {
    case TensorPart::lora_a:
    case TensorPart::lora_b:
    case TensorPart::embedding_a:
    case TensorPart::embedding_b:
    case TensorPart::ia3:
      return "is for a module that target_modules leaves out";
    case TensorPart::lora_bias:
      return "is a lora_bias, but adapter_config.json does not say so for this module";
    case TensorPart::magnitude:
      return "is a DoRA magnitude, but adapter_config.json does not say so (use_dora) for this module";
    case TensorPart::token_rows:
      return "holds token rows, but trainable_token_indices names none for this module";
    default:
      return "has no use";
  }
}

}  // namespace

std::string shape_text(const TensorEntry& entry) { return fmt::format("[{}]", fmt::join(entry.shape, ", ")); }

ExpertTensors::ExpertTensors(const Adapter::Source& source, const SiteTable& sites, std::string method,
                             std::string_view apart)
    : source_(source), sites_(sites), method_(std::move(method)) {
  for (const TensorEntry& entry : source.tensors->entries()) {
    if (entry.name != apart) add(entry);
  }
}

void ExpertTensors::add(const TensorEntry& entry) {
  const std::optional<Key> key = parse_key(entry.name);
  if (!key) fail(ErrorCode::load, "{}: tensor {} is no part of a {} expert", source_.origin, entry.name, method_);
  const std::optional<int> site = find_site(sites_, key->module);
  if (!site) {
    if (key->module.ends_with("norm")) {
      fail(ErrorCode::load, "{}: a changed norm ({}) is not supported: only linear layers, head and embedding are",
           source_.origin, entry.name);
    }
    fail(ErrorCode::incompatible, "{}: tensor {} is for a module the base model does not have", source_.origin,
         entry.name);
  }
  if (key->part == TensorPart::training_state) return;
  Found& found = found_[{*site, key->part}];
  if (found.entry != nullptr) require_same(entry, *found.entry);
  found.entry = &entry;
}

// PEFT saves the weight of a head in modules_to_save twice where the embedding layers are saved along.
void ExpertTensors::require_same(const TensorEntry& entry, const TensorEntry& other) const {
  const auto is_saved_module = [](const TensorEntry& one) {
    return one.name.find(".modules_to_save.") != std::string::npos;
  };
  const bool copies = is_saved_module(entry) != is_saved_module(other) && entry.shape == other.shape;
  if (copies && read(entry) == read(other)) return;
  fail(ErrorCode::load, "{}: tensors {} and {} are the same weight", source_.origin, other.name, entry.name);
}

const TensorEntry* ExpertTensors::take(int site, TensorPart part) {
  const auto found = found_.find({site, part});
  if (found == found_.end()) return nullptr;
  found->second.taken = true;
  return found->second.entry;
}

const TensorEntry* ExpertTensors::peek(int site, TensorPart part) const {
  const auto found = found_.find({site, part});
  return found == found_.end() ? nullptr : found->second.entry;
}

void ExpertTensors::require_all_taken() const {
  for (const auto& [where, found] : found_) {
    if (found.taken) continue;
    fail(ErrorCode::load, "{}: tensor {} {}", source_.origin, found.entry->name, reason_of(where.second));
  }
}

std::vector<int> ExpertTensors::untaken_sites(TensorPart part) const {
  std::vector<int> sites;
  for (const auto& [where, found] : found_) {
    if (where.second == part && !found.taken) sites.push_back(where.first);
  }
  return sites;
}

void ExpertTensors::require_float(const TensorEntry& entry) const {
  if (entry.dtype && *entry.dtype != DType::i32) return;
  fail(ErrorCode::load, "{}: tensor {} is {}; F32, F16 and BF16 are supported", source_.origin, entry.name,
       entry.dtype_name);
}

void ExpertTensors::require_matrix(const TensorEntry& entry) const {
  if (entry.shape.size() != 2) {
    fail(ErrorCode::load, "{}: tensor {} has shape {}, must be a matrix", source_.origin, entry.name,
         shape_text(entry));
  }
  require_float(entry);
}

void ExpertTensors::require_vector(const TensorEntry& entry, int64_t size, std::string_view what) const {
  require_float(entry);
  const auto wide = std::count_if(entry.shape.begin(), entry.shape.end(), [](int64_t n) { return n != 1; });
  if (entry.shape.empty() || wide > 1) {
    fail(ErrorCode::load, "{}: tensor {} has shape {}, must be a vector", source_.origin, entry.name,
         shape_text(entry));
  }
  if (entry.elements() == static_cast<uint64_t>(size)) return;
  fail(ErrorCode::incompatible, "{}: tensor {} {} does not fit the base's {} {}", source_.origin, entry.name,
       shape_text(entry), size, what);
}

std::vector<float> ExpertTensors::read(const TensorEntry& entry, double factor) const {
  std::vector<float> values = source_.tensors->read_f32(entry);
  const auto by = static_cast<float>(factor);
  for (float& value : values) {
    if (!std::isfinite(value)) {
      fail(ErrorCode::load, "{}: tensor {} holds a value that is not finite (NaN or infinity)", source_.origin,
           entry.name);
    }
    value *= by;
    if (!std::isfinite(value)) {
      fail(ErrorCode::load, "{}: tensor {} overflows when scaled by {}", source_.origin, entry.name, factor);
    }
  }
  return values;
}

}  // namespace expert
