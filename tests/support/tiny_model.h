// Writes small random base models and LoRA adapters as Hugging Face directories, so that C++ tests need no Python.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "models/config.h"

namespace expert::test {

// A counter hashed to (-1, 1): the same on every machine.
class TinyRandom {
 public:
  explicit TinyRandom(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  float next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    uint64_t bits = state_;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ULL;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBULL;
    bits ^= bits >> 31;
    return static_cast<float>(static_cast<double>(bits >> 11) * 0x1.0p-52 - 1.0);
  }

 private:
  uint64_t state_;
};

inline Json tiny_config(const std::string& architecture = "Qwen3ForCausalLM") {
  return Json{{"architectures", {architecture}},
              {"vocab_size", 64},
              {"hidden_size", 16},
              {"intermediate_size", 24},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 4},
              {"num_key_value_heads", 2},
              {"head_dim", 8},
              {"sliding_window", nullptr},
              {"max_position_embeddings", 128},
              {"tie_word_embeddings", true}};
}

inline TensorToWrite tiny_tensor(std::string name, std::vector<int64_t> shape, TinyRandom& random, float scale,
                                 float centre = 0, const std::string& dtype = "F32") {
  TensorToWrite tensor{std::move(name), dtype, std::move(shape), {}};
  size_t count = 1;
  for (const int64_t size : tensor.shape) count *= static_cast<size_t>(size);
  const size_t width = dtype == "F32" ? 4 : 2;
  tensor.bytes.resize(count * width);
  for (size_t i = 0; i < count; ++i) {
    const float value = centre + scale * random.next();
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    if (width == 2) bits >>= 16;  // BF16, truncated
    std::memcpy(tensor.bytes.data() + i * width, &bits, width);
  }
  return tensor;
}

// The tensors the configuration asks for; `dtype` is F32 or BF16.
inline std::vector<TensorToWrite> tiny_tensors(const Json& json, uint64_t seed, const std::string& dtype = "F32") {
  const ModelConfig config = ModelConfig::parse(json, nullptr, "tiny");
  TinyRandom random(seed);
  std::vector<TensorToWrite> tensors;
  const auto matrix = [&](const std::string& name, int64_t out, int64_t in) {
    tensors.push_back(
        tiny_tensor(name + ".weight", {out, in}, random, 2 / std::sqrt(static_cast<float>(in)), 0, dtype));
  };
  const auto vector = [&](const std::string& name, int64_t size, float centre) {
    tensors.push_back(tiny_tensor(name, {size}, random, 0.3F, centre, dtype));
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    matrix(name, out, in);
    if (bias) vector(name + ".bias", out, 0);
  };
  const int64_t q = int64_t{config.heads} * config.head_dim;
  const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
  const int64_t hidden = config.hidden_size;
  matrix("model.embed_tokens", config.vocab_size, hidden);
  for (int32_t i = 0; i < config.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    vector(prefix + "input_layernorm.weight", hidden, 1);
    linear(prefix + "self_attn.q_proj", q, hidden, config.qkv_bias);
    linear(prefix + "self_attn.k_proj", kv, hidden, config.qkv_bias);
    linear(prefix + "self_attn.v_proj", kv, hidden, config.qkv_bias);
    linear(prefix + "self_attn.o_proj", hidden, q, config.o_bias);
    if (config.qk_norm) {
      vector(prefix + "self_attn.q_norm.weight", config.head_dim, 1);
      vector(prefix + "self_attn.k_norm.weight", config.head_dim, 1);
    }
    vector(prefix + "post_attention_layernorm.weight", hidden, 1);
    linear(prefix + "mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias);
    linear(prefix + "mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias);
    linear(prefix + "mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias);
  }
  vector("model.norm.weight", hidden, 1);
  if (!config.tied_head) matrix("lm_head", config.vocab_size, hidden);
  return tensors;
}

inline void write_model(const std::string& directory, const Json& config, const std::vector<TensorToWrite>& tensors) {
  create_directories(directory);
  write_file_atomically(join_path(directory, "config.json"), std::string_view(config.dump(2)));
  write_safetensors(join_path(directory, "model.safetensors"), tensors, {{"format", "pt"}});
}

inline std::string write_tiny_model(const std::string& directory, const Json& config = tiny_config(), uint64_t seed = 1,
                                    const std::string& dtype = "F32") {
  write_model(directory, config, tiny_tensors(config, seed, dtype));
  return directory;
}

inline Json tiny_lora_config(int64_t rank, const Json& targets) {
  return Json{
      {"peft_type", "LORA"}, {"r", rank}, {"lora_alpha", 2 * rank}, {"target_modules", targets}, {"bias", "none"}};
}

// A and B for every module of `base` whose last name is in `modules`.
inline std::vector<TensorToWrite> tiny_lora_tensors(const Json& base, int64_t rank,
                                                    const std::vector<std::string>& modules, uint64_t seed) {
  TinyRandom random(seed + 1000);
  std::vector<TensorToWrite> tensors;
  for (const TensorToWrite& weight : tiny_tensors(base, 0)) {
    for (const std::string& module : modules) {
      const std::string ending = "." + module + ".weight";
      if (weight.name.size() < ending.size() || !weight.name.ends_with(ending)) continue;
      const std::string stem = "base_model.model." + weight.name.substr(0, weight.name.size() - 7);
      tensors.push_back(tiny_tensor(stem + ".lora_A.weight", {rank, weight.shape[1]}, random, 0.5F));
      tensors.push_back(tiny_tensor(stem + ".lora_B.weight", {weight.shape[0], rank}, random, 0.5F));
    }
  }
  return tensors;
}

inline std::string write_tiny_lora(const std::string& directory, const Json& base, int64_t rank,
                                   const std::vector<std::string>& modules, uint64_t seed) {
  create_directories(directory);
  write_file_atomically(join_path(directory, "adapter_config.json"),
                        std::string_view(tiny_lora_config(rank, modules).dump(2)));
  write_safetensors(join_path(directory, "adapter_model.safetensors"), tiny_lora_tensors(base, rank, modules, seed));
  return directory;
}

inline std::vector<int32_t> tiny_prompt(int32_t length, uint64_t seed = 5, int32_t vocab = 64) {
  TinyRandom random(seed);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<int32_t>((random.next() + 1) / 2 * static_cast<float>(vocab - 1)));
  }
  return ids;
}

}  // namespace expert::test
