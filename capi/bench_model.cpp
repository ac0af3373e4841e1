#include "bench_model.h"

#include <bit>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace expert::capi {

namespace {

struct LinearShape {
  std::string name;  // "self_attn.q_proj"
  int64_t in = 0;
  int64_t out = 0;
};

// The seven linear layers of one decoder layer.
std::vector<LinearShape> linear_shapes(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = int64_t{config.heads} * config.head_dim;
  const int64_t keys = int64_t{config.kv_heads} * config.head_dim;
  const int64_t inner = config.intermediate_size;
  return {{"self_attn.q_proj", hidden, queries}, {"self_attn.k_proj", hidden, keys}, {"self_attn.v_proj", hidden, keys},
          {"self_attn.o_proj", queries, hidden}, {"mlp.gate_proj", hidden, inner},   {"mlp.up_proj", hidden, inner},
          {"mlp.down_proj", inner, hidden}};
}

struct NamedShape {
  std::string name;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t size() const { return rows * columns; }
};

std::vector<NamedShape> adapter_tensors(const ModelConfig& config, int64_t rank) {
  std::vector<NamedShape> tensors;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const LinearShape& linear : linear_shapes(config)) {
      const std::string prefix = fmt::format("base_model.model.model.layers.{}.{}", layer, linear.name);
      tensors.push_back({prefix + ".lora_A.weight", rank, linear.in});
      tensors.push_back({prefix + ".lora_B.weight", linear.out, rank});
    }
  }
  return tensors;
}

std::string safetensors_header(const std::vector<NamedShape>& tensors) {
  Json header = Json::object();
  int64_t offset = 0;
  for (const NamedShape& tensor : tensors) {
    const int64_t end = offset + 2 * tensor.size();
    header[tensor.name] = {
        {"dtype", "BF16"}, {"shape", {tensor.rows, tensor.columns}}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

// Uniform in ±0.02: small enough that activations stay finite with ten experts at once.
std::vector<uint16_t> random_bf16(int64_t count, std::mt19937_64& random) {
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (uint16_t& value : values) {
    const float x = 0.04F * (static_cast<float>(random() >> 40) * 0x1p-24F - 0.5F);
    value = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
  }
  return values;
}

Json adapter_config(const ModelConfig& config, int64_t rank) {
  Json targets = Json::array();
  for (const LinearShape& linear : linear_shapes(config)) {
    targets.push_back(linear.name.substr(linear.name.find('.') + 1));
  }
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"r", rank},
          {"lora_alpha", rank},
          {"target_modules", std::move(targets)},
          {"bias", "none"}};
}

}  // namespace

ScratchDirectory::ScratchDirectory() {
  std::random_device random;
  for (int attempt = 0; attempt < 100; ++attempt) {
    path_ = std::filesystem::temp_directory_path() / fmt::format("expert-bench-{:08x}", random());
    if (std::filesystem::create_directory(path_)) return;
  }
  fail(ErrorCode::load, "no scratch directory could be made in {}", path_.parent_path().string());
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_random_expert(const std::filesystem::path& directory, const ModelConfig& config, int64_t rank,
                         uint64_t seed) {
  std::filesystem::create_directories(directory);
  const std::vector<NamedShape> tensors = adapter_tensors(config, rank);
  const std::string header = safetensors_header(tensors);
  const uint64_t header_size = header.size();
  std::mt19937_64 random(seed);

  std::ofstream weights(directory / "adapter_model.safetensors", std::ios::binary);
  weights.write(reinterpret_cast<const char*>(&header_size), sizeof header_size);
  weights.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const NamedShape& tensor : tensors) {
    const std::vector<uint16_t> values = random_bf16(tensor.size(), random);
    weights.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(2 * values.size()));
  }
  weights.close();
  std::ofstream settings(directory / "adapter_config.json");
  settings << adapter_config(config, rank).dump(2) << '\n';
  settings.close();
  if (!weights || !settings) fail(ErrorCode::load, "{}: a random expert could not be written", directory.string());
}

}  // namespace expert::capi
