// The architectures this library runs, listed explicitly in registry.cpp; one file each says what is particular.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "io/json.h"
#include "models/config.h"

namespace expert {

// All of them are decoders of the Llama family (decoder.h): RMSNorm, grouped-query attention with rotary positions,
// SwiGLU. The numbers are the defaults of the configuration class in Transformers, for keys a config.json leaves out.
struct Architecture {
  std::string_view name;  // as in "architectures"
  std::string_view model_type;
  int64_t vocab_size;
  int64_t hidden_size = 4096;
  int64_t intermediate_size;
  int64_t layers = 32;
  int64_t heads = 32;
  std::optional<int64_t> kv_heads;  // empty: as many as heads
  std::optional<int64_t> head_dim;  // empty: hidden_size / heads
  int64_t max_position_embeddings;
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> eos_token_id;
  // Reads the keys only this architecture has: biases, norms, windows.
  void (*particulars)(const JsonFields& fields, ModelConfig& config);
};

extern const Architecture kQwen3;
extern const Architecture kQwen2;
extern const Architecture kLlama;
extern const Architecture kMistral;

std::span<const Architecture* const> architectures();

// By "architectures", else by "model_type". Throws unsupported, by name.
const Architecture& find_architecture(const JsonFields& fields);

// The rule Qwen2 and Qwen3 share: `use_sliding_window`, `max_window_layers` and `layer_types` decide which layers see
// only a window. Sets config.sliding_window when some layer does.
void read_layer_windows(const JsonFields& fields, ModelConfig& config);

}  // namespace expert
