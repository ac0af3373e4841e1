// Any text as config.json (then, after NUL bytes, generation_config.json, rope_scaling and adapter_config.json):
// refused with a typed error, or numbers that a decoder can be built from and questions that have answers.
#include <cstdint>
#include <string_view>
#include <vector>

#include "adapters/lora_config.h"
#include "core/error.h"
#include "io/json.h"
#include "models/config.h"
#include "models/rope.h"

namespace {

using namespace expert;

Json part(const std::vector<std::string_view>& parts, size_t index) {
  if (index >= parts.size() || parts[index].empty()) return nullptr;
  return parse_json(parts[index], "fuzz", {.max_bytes = 1 << 16, .max_depth = 32});
}

void use_config(const ModelConfig& config) {
  const bool sane = config.layers > 0 && config.heads > 0 && config.kv_heads > 0 &&
                    config.heads % config.kv_heads == 0 && config.head_dim > 0 && config.head_dim % 2 == 0 &&
                    config.hidden_size > 0 && config.vocab_size > 0 && config.intermediate_size > 0 &&
                    config.context_limit > 0 && config.context_limit <= config.context_ceiling;
  if (!sane) __builtin_trap();
  for (const int32_t id : config.eos_token_ids) {
    if (id < 0 || id >= config.vocab_size) __builtin_trap();
  }
  if (config.context_for(0) != config.context_limit) __builtin_trap();
  if (config.head_dim <= 1024 &&
      rope_frequencies(config.rope, config.head_dim).inverse.size() != static_cast<size_t>(config.head_dim / 2)) {
    __builtin_trap();
  }
}

void use_lora(const LoraConfig& config) {
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head", ""}) {
    (void)config.targets(name);
    if (config.rank_of(name) < 1) __builtin_trap();
    (void)config.scale_of(name);
  }
  SiteTable sites;
  sites.add({"model.layers.0.self_attn.q_proj", 8, 8});
  (void)config.modules().absent(sites);
  (void)config.modules().absent_saved(sites);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string_view> parts;
  for (size_t end = rest.find('\0'); end != rest.npos && parts.size() < 3; end = rest.find('\0')) {
    parts.push_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  parts.push_back(rest);
  try {
    use_config(ModelConfig::parse(part(parts, 0), part(parts, 1), "fuzz", part(parts, 2)));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) __builtin_trap();
  }
  try {
    use_lora(LoraConfig::parse(part(parts, parts.size() - 1), "fuzz"));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
