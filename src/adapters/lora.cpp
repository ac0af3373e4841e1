#include "adapters/lora.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>

#include "adapters/lora_config.h"
#include "core/error.h"

namespace expert {
namespace {

enum class Half : uint8_t { a, b };

struct Key {
  std::string module;  // without the tuner's prefix
  Half half = Half::a;
};

// The two tensors of one site.
struct Pair {
  const TensorEntry* a = nullptr;
  const TensorEntry* b = nullptr;
};

constexpr std::array<std::string_view, 3> kEndings = {".weight", "", ".default.weight"};

struct OtherTensor {
  std::string_view part;
  std::string_view what;
};
constexpr std::array<OtherTensor, 6> kOtherTensors = {{
    {".lora_magnitude", "DoRA"},
    {".lora_embedding_", "LoRA on embeddings"},
    {".lora_B.bias", "lora_bias"},
    {".base_layer.", "a stored copy of a base layer"},
    {".ia3_", "IA3"},
    {".modules_to_save.", "modules_to_save"},
}};

std::optional<Key> parse_key(std::string_view name) {
  for (const auto& [mark, half] : {std::pair{std::string_view(".lora_A"), Half::a}, {".lora_B", Half::b}}) {
    for (const std::string_view ending : kEndings) {
      const std::string tail = std::string(mark).append(ending);
      if (name.size() > tail.size() && name.ends_with(tail)) {
        return Key{std::string(name.substr(0, name.size() - tail.size())), half};
      }
    }
  }
  return std::nullopt;
}

[[noreturn]] void refuse_tensor(const Adapter::Source& source, const TensorEntry& entry) {
  for (const OtherTensor& other : kOtherTensors) {
    if (entry.name.find(other.part) != std::string::npos) {
      fail(ErrorCode::load, "{}: {} ({}) is not supported yet", source.origin, other.what, entry.name);
    }
  }
  fail(ErrorCode::load, "{}: tensor {} is no part of a LoRA", source.origin, entry.name);
}

// The site a saved name means: PEFT puts "base_model.model." before the module's path, older packages dropped one
// "model." of it, and state dicts taken from the bare model have no prefix.
std::optional<int> find_site(const SiteTable& sites, std::string_view module) {
  for (const std::string_view prefix : {"base_model.model.", "base_model.", ""}) {
    if (!module.starts_with(prefix)) continue;
    if (const auto site = sites.find(module.substr(prefix.size()))) return site;
  }
  if (module.starts_with("base_model.model.")) return sites.find(module.substr(std::strlen("base_model.")));
  return std::nullopt;
}

std::string text_of(const TensorEntry& entry) { return fmt::format("[{}]", fmt::join(entry.shape, ", ")); }

class LoraLoader {
 public:
  LoraLoader(const Adapter::Source& source, const SiteTable& sites)
      : source_(source),
        sites_(sites),
        config_(LoraConfig::parse(*source.config, source.origin + ": adapter_config.json")) {}

  void check() {
    if (const std::vector<std::string> absent = config_.absent_targets(sites_); !absent.empty()) {
      fail(ErrorCode::incompatible, "{}: the base model has no module {}", source_.origin, fmt::join(absent, ", "));
    }
    for (const TensorEntry& entry : source_.tensors->entries()) assign(entry);
    for (int site = 0; site < sites_.size(); ++site) {
      if (config_.targets(sites_[site].name)) require_pair(site);
    }
    if (pairs_.empty()) fail(ErrorCode::incompatible, "{}: it bends no module of the base model", source_.origin);
    for (const auto& [site, pair] : pairs_) check_shapes(site, pair);
  }

  LoweredLora lower(Backend& backend, WeightFormat format) const {
    LoweredLora lowered;
    lowered.kind = config_.rank_stabilised() ? "rslora" : "lora";
    for (const auto& [site, pair] : pairs_) {
      const double scale = config_.scale_of(sites_[site].name);
      lowered.deltas.push_back({site, pack(*pair.a, 1.0, backend, format), pack(*pair.b, scale, backend, format)});
    }
    return lowered;
  }

 private:
  void assign(const TensorEntry& entry) {
    const std::optional<Key> key = parse_key(entry.name);
    if (!key) refuse_tensor(source_, entry);
    const std::optional<int> site = find_site(sites_, key->module);
    if (!site) {
      if (key->module.ends_with("embed_tokens"))
        fail(ErrorCode::load, "{}: LoRA on embeddings ({}) is not supported yet", source_.origin, entry.name);
      fail(ErrorCode::incompatible, "{}: tensor {} is for a module the base model does not have", source_.origin,
           entry.name);
    }
    if (!config_.targets(sites_[*site].name)) {
      fail(ErrorCode::load, "{}: tensor {} is for a module that target_modules leaves out", source_.origin, entry.name);
    }
    Pair& pair = pairs_[*site];
    const TensorEntry*& half = key->half == Half::a ? pair.a : pair.b;
    if (half) {
      fail(ErrorCode::load, "{}: tensors {} and {} are the same weight", source_.origin, half->name, entry.name);
    }
    half = &entry;
  }

  void require_pair(int site) const {
    const auto found = pairs_.find(site);
    const bool a = found != pairs_.end() && found->second.a;
    const bool b = found != pairs_.end() && found->second.b;
    if (a && b) return;
    fail(ErrorCode::load, "{}: {} of targeted module {} is missing", source_.origin,
         !a && !b ? "the LoRA pair" : (a ? "lora_B" : "lora_A"), sites_[site].name);
  }

  void check_shapes(int index, const Pair& pair) const {
    const LinearSite& site = sites_[index];
    for (const TensorEntry* entry : {pair.a, pair.b}) {
      if (entry->shape.size() != 2) {
        fail(ErrorCode::load, "{}: tensor {} has shape {}, must be a matrix", source_.origin, entry->name,
             text_of(*entry));
      }
      if (!entry->dtype || *entry->dtype == DType::i32) {
        fail(ErrorCode::load, "{}: tensor {} is {}; F32, F16 and BF16 are supported", source_.origin, entry->name,
             entry->dtype_name);
      }
    }
    const int64_t rank = config_.rank_of(site.name);
    if (pair.a->shape[0] != rank || pair.b->shape[1] != rank) {
      fail(ErrorCode::load, "{}: {}: lora_A {} and lora_B {} do not have the rank {} of adapter_config.json",
           source_.origin, site.name, text_of(*pair.a), text_of(*pair.b), rank);
    }
    if (pair.a->shape[1] != site.in || pair.b->shape[0] != site.out) {
      fail(ErrorCode::incompatible, "{}: {}: lora_A {} and lora_B {} do not fit the base's weight [{}, {}]",
           source_.origin, site.name, text_of(*pair.a), text_of(*pair.b), site.out, site.in);
    }
  }

  // The scale is multiplied in at F32, before the format rounds.
  MatrixPtr pack(const TensorEntry& entry, double scale, Backend& backend, WeightFormat format) const {
    std::vector<float> values = source_.tensors->read_f32(entry);
    const auto factor = static_cast<float>(scale);
    for (float& value : values) {
      if (!std::isfinite(value)) {
        fail(ErrorCode::load, "{}: tensor {} holds a value that is not finite (NaN or infinity)", source_.origin,
             entry.name);
      }
      value *= factor;
      if (!std::isfinite(value)) {
        fail(ErrorCode::load, "{}: tensor {} overflows when scaled by {}", source_.origin, entry.name, scale);
      }
    }
    MatrixSource matrix;
    matrix.rows = entry.shape[0];
    matrix.cols = entry.shape[1];
    matrix.read = [&](int64_t first_row, int64_t count, void* destination) {
      std::memcpy(destination, values.data() + first_row * matrix.cols,
                  static_cast<size_t>(count * matrix.cols) * sizeof(float));
    };
    return backend.pack(matrix, format);
  }

  const Adapter::Source& source_;
  const SiteTable& sites_;
  LoraConfig config_;
  std::map<int, Pair> pairs_;  // by site
};

}  // namespace

LoweredLora load_lora(const Adapter::Source& source, const SiteTable& sites, Backend& backend, WeightFormat format) {
  LoraLoader loader(source, sites);
  loader.check();
  return loader.lower(backend, format);
}

}  // namespace expert
