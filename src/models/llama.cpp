// Llama 2 and 3: the plain decoder. `attention_bias` puts a bias on all four projections, `mlp_bias` on the three of
// the feed-forward layer.
#include "models/registry.h"

namespace expert {
namespace {

void particulars(const JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  config.mlp_bias = fields.boolean_or("mlp_bias", false);
}

}  // namespace

const Architecture kLlama = {
    .name = "LlamaForCausalLM",
    .model_type = "llama",
    .vocab_size = 32000,
    .intermediate_size = 11008,
    .kv_heads = std::nullopt,
    .head_dim = std::nullopt,
    .max_position_embeddings = 2048,
    .bos_token_id = 1,
    .eos_token_id = 2,
    .particulars = particulars,
};

}  // namespace expert
