// config.json and generation_config.json of a Hugging Face directory, checked and in one spelling.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/types.h"

namespace expert {

// Rotary position embedding. Formulas: rope.h.
struct RopeConfig {
  std::string type = "default";  // default | linear | yarn | llama3 (dynamic is read as default, see context_limit)
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_context = 0;            // yarn, llama3: positions before the extension
  std::optional<double> attention_factor;  // yarn: absent = derived from factor, mscale and mscale_all_dim
  double mscale = 0;                       // yarn: 0 = absent
  double mscale_all_dim = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  double low_freq_factor = 1;  // llama3
  double high_freq_factor = 4;
};

// What generation_config.json says about decoding; absent keys are absent.
struct GenerationDefaults {
  std::optional<bool> do_sample{};
  std::optional<double> temperature{};
  std::optional<int32_t> top_k{};  // 0: off
  std::optional<double> top_p{};
  std::optional<double> min_p{};
  std::optional<double> repetition_penalty{};
  std::optional<int32_t> max_new_tokens{};
};

struct ModelConfig {
  std::string architecture;  // "Qwen3ForCausalLM"
  std::string model_type;    // "qwen3"
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  float rms_norm_eps = 1e-6F;
  bool tied_head = false;
  bool qk_norm = false;  // RMSNorm on each query and key head before rotation
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  RopeConfig rope;
  std::optional<int64_t> sliding_window;  // active on some layer: positions one position attends to, itself included

  // Positions the model uses unless told otherwise, and the most it may be given. Beyond an active sliding window or
  // the original context of a dynamic RoPE the full-context formulas no longer hold, so both end there.
  int64_t context_limit = 0;
  int64_t context_ceiling = 0;
  std::string ceiling_reason;  // in words, for the refusal of a larger context

  std::vector<int32_t> eos_token_ids;  // generation_config.json's and the configuration's, united, ascending
  std::optional<int32_t> bos_token_id;
  GenerationDefaults generation;
  std::vector<std::string> warnings;  // what was capped or left out, in words

  // `origin` names the directory in errors; `generation_config` and `rope_scaling` may be null. `rope_scaling` replaces
  // the configuration's and raises the context by its factor. Missing keys take the defaults of the architecture's
  // configuration class in Transformers.
  // Throws load (malformed, contradictory, out of range) and unsupported (an architecture, activation, RoPE type or
  // option that would change the result, by name).
  static ModelConfig parse(const Json& config, const Json& generation_config, const std::string& origin,
                           const Json& rope_scaling = nullptr);

  // The context to run with when `requested` was asked for (0: context_limit). Throws invalid_request.
  int64_t context_for(int64_t requested) const;
};

}  // namespace expert
