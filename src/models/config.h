// config.json and generation_config.json of a Hugging Face directory, checked and in one spelling.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/types.h"

namespace expert {

// Formulas: docs/architecture.md names the references (YaRN: arXiv 2309.00071; llama3: the Llama 3.1 release).
struct RopeConfig {
  std::string type = "default";  // default | linear | yarn | llama3 (dynamic is read as default, see context_limit)
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_context = 0;
  double attention_factor = 0;  // yarn: 0 = derived from factor (and mscale)
  double mscale = 0;
  double mscale_all_dim = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  double low_freq_factor = 1;   // llama3
  double high_freq_factor = 4;  // llama3
};

struct ModelConfig {
  std::string architecture;  // "Qwen3ForCausalLM"
  std::string model_type;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  float rms_norm_eps = 1e-6F;
  bool tied_head = false;
  bool qk_norm = false;          // Qwen3
  bool qkv_bias = false;         // Qwen2; Llama with attention_bias
  bool o_bias = false;           // Llama with attention_bias
  bool mlp_bias = false;         // Llama with mlp_bias
  RopeConfig rope;
  int64_t context_limit = 0;     // positions the model may use: max_position_embeddings, capped by an active window or dynamic RoPE
  DType dtype = DType::f32;      // of the stored weights (torch_dtype / dtype), informative
  std::vector<int32_t> eos_token_ids;  // generation_config.json's and the configuration's, united
  std::optional<int32_t> bos_token_id;
  std::vector<std::string> warnings;   // what was capped or ignored, in words

  // Throws load (malformed, missing keys) and unsupported (an architecture, activation or RoPE type by name).
  // `context_size` = 0: the configuration's own. `rope_scaling` (may be null) replaces the configuration's.
  static ModelConfig parse(const Json& config, const Json& generation_config, const std::string& origin,
                           const Json& rope_scaling = nullptr);
};

}  // namespace expert
