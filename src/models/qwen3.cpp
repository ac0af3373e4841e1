// Qwen3: RMSNorm on every query and key head before rotation, any head_dim, no biases unless `attention_bias`.
#include "models/registry.h"

namespace expert {
namespace {

void particulars(const JsonFields& fields, ModelConfig& config) {
  config.qk_norm = true;
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  read_layer_windows(fields, config);
}

}  // namespace

const Architecture kQwen3 = {
    .name = "Qwen3ForCausalLM",
    .model_type = "qwen3",
    .vocab_size = 151936,
    .intermediate_size = 22016,
    .kv_heads = 32,
    .head_dim = 128,
    .max_position_embeddings = 32768,
    .bos_token_id = std::nullopt,
    .eos_token_id = std::nullopt,
    .particulars = particulars,
};

}  // namespace expert
