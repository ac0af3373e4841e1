// Qwen2 and Qwen2.5: biases on the query, key and value projections, always, and nowhere else.
#include "models/registry.h"

namespace expert {
namespace {

void particulars(const JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = true;
  read_layer_windows(fields, config);
}

}  // namespace

const Architecture kQwen2 = {
    .name = "Qwen2ForCausalLM",
    .model_type = "qwen2",
    .vocab_size = 151936,
    .intermediate_size = 22016,
    .kv_heads = 32,
    .head_dim = std::nullopt,
    .max_position_embeddings = 32768,
    .bos_token_id = std::nullopt,
    .eos_token_id = std::nullopt,
    .particulars = particulars,
};

}  // namespace expert
