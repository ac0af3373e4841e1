#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "adapters/dora_norms.h"
#include "io/json.h"
#include "support/expect_error.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using namespace expert::test;
namespace fs = std::filesystem;

// A DoRA on q_proj and the embedding of a tiny model; its magnitudes are around 1.
std::string write_tiny_dora(const std::string& directory, uint64_t seed) {
  Json config = tiny_lora_config(2, {"q_proj", "embed_tokens"});
  config["use_dora"] = true;
  std::vector<TensorToWrite> tensors = tiny_lora_tensors(tiny_config(), 2, {"q_proj"}, seed);
  TinyRandom random(seed);
  for (const char* layer : {"0", "1"}) {
    const std::string name = std::string("base_model.model.model.layers.") + layer + ".self_attn.q_proj";
    tensors.push_back(tiny_tensor(name + ".lora_magnitude_vector", {32}, random, 0.3F, 1));
  }
  const std::string embedding = "base_model.model.model.embed_tokens";
  tensors.push_back(tiny_tensor(embedding + ".lora_embedding_A", {2, 64}, random, 0.3F));
  tensors.push_back(tiny_tensor(embedding + ".lora_embedding_B", {16, 2}, random, 0.3F));
  tensors.push_back(tiny_tensor(embedding + ".lora_magnitude_vector", {16}, random, 0.3F, 1));
  create_directories(directory);
  write_file_atomically(join_path(directory, "adapter_config.json"), std::string_view(config.dump()));
  write_safetensors(join_path(directory, "adapter_model.safetensors"), tensors);
  return directory;
}

std::vector<float> logits_with(const std::string& base, const std::string& expert, const std::string& cache) {
  ModelOptions options;
  options.cache_dir = cache;
  Runner runner(base, "cpu", options);
  const auto set = runner.adapters({{expert, 1.0F}});
  return runner.logits(tiny_prompt(9), set.get());
}

fs::path only_file(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  REQUIRE(files.size() == 1);
  return files.front();
}

}  // namespace

TEST_CASE("norms are those of the weights the model multiplies with") {
  const TempDir dir;
  for (const char* dtype : {"F32", "BF16"}) {
    for (const char* device : {"cpu", "reference"}) {
      CAPTURE(dtype);
      CAPTURE(device);
      const auto backend = backend_of(device);
      const auto model = Model::load(write_tiny_model(dir / dtype, tiny_config(), 3, dtype), *backend);
      TinyRandom random(9);
      for (const std::string name : {"model.layers.1.mlp.down_proj", "model.embed_tokens"}) {
        const LinearSite& site = model->sites()[*model->sites().find(name)];
        const int64_t rows = site.weight->rows();
        const int64_t cols = site.weight->cols();
        LowRankUpdate update;
        update.rank = 3;
        for (int64_t i = 0; i < rows * 3; ++i) update.left.push_back(random.next());
        for (int64_t i = 0; i < cols * 3; ++i) update.right.push_back(random.next());
        std::vector<double> sums(static_cast<size_t>(site.out), 0.0);
        std::vector<float> row(static_cast<size_t>(cols));
        for (int64_t r = 0; r < rows; ++r) {
          backend->unpack_rows(*site.weight, r, 1, row.data());
          for (int64_t c = 0; c < cols; ++c) {
            double value = static_cast<double>(row[static_cast<size_t>(c)]);
            for (int64_t k = 0; k < 3; ++k) {
              value += static_cast<double>(update.left[static_cast<size_t>(r * 3 + k)]) *
                       static_cast<double>(update.right[static_cast<size_t>(k * cols + c)]);
            }
            sums[static_cast<size_t>(site.kind == SiteKind::embedding ? c : r)] += value * value;
          }
        }
        const std::vector<float> norms = dora_norms(site, update, *backend);
        REQUIRE(norms.size() == sums.size());
        for (size_t i = 0; i < norms.size(); ++i) CHECK(norms[i] == doctest::Approx(std::sqrt(sums[i])).epsilon(1e-6));
      }
    }
  }
}

TEST_CASE("norms are kept by content, and a damaged file is computed again") {
  const TempDir dir;
  const std::string base = write_tiny_model(dir / "base");
  const std::string expert = write_tiny_dora(dir / "dora", 1);
  const std::string cache = dir / "cache";
  const std::vector<float> expected = logits_with(base, expert, "");
  CHECK(logits_with(base, expert, cache) == expected);
  const fs::path file = only_file(fs::path(cache) / "dora");
  const auto written = fs::last_write_time(file);
  CHECK(logits_with(base, expert, cache) == expected);
  CHECK(fs::last_write_time(file) == written);  // used, not made again

  const SafeTensors norms = SafeTensors::open(file.string());
  CHECK(norms.entries().size() == 3);
  CHECK(norms.find("model.embed_tokens")->shape == std::vector<int64_t>{16});

  std::string bytes = read_text_file(file.string());
  for (const size_t length : {bytes.size() - 1, bytes.size() / 2, size_t{0}}) {
    write_file_atomically(file.string(), std::string_view(bytes).substr(0, length));
    CHECK(logits_with(base, expert, cache) == expected);
    CHECK(read_text_file(file.string()) == bytes);
  }
  std::string altered = bytes;
  altered[altered.size() - 3] ^= 1;
  write_file_atomically(file.string(), std::string_view(altered));
  CHECK(logits_with(base, expert, cache) == expected);
  CHECK(read_text_file(file.string()) == bytes);

  // Another expert, other weights: files of their own.
  static_cast<void>(logits_with(base, write_tiny_dora(dir / "other", 2), cache));
  static_cast<void>(logits_with(write_tiny_model(dir / "base2", tiny_config(), 7), expert, cache));
  CHECK(std::distance(fs::directory_iterator(fs::path(cache) / "dora"), fs::directory_iterator()) == 3);
}

TEST_CASE("a weight that vanishes cannot be scaled by DoRA") {
  const TempDir dir;
  std::vector<TensorToWrite> tensors = tiny_tensors(tiny_config(), 1);
  for (TensorToWrite& tensor : tensors) {
    if (tensor.name == "model.layers.0.self_attn.q_proj.weight") {
      std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{0});
    }
  }
  write_model(dir / "base", tiny_config(), tensors);
  Json config = tiny_lora_config(2, {"layers.0.self_attn.q_proj"});
  config["use_dora"] = true;
  std::vector<TensorToWrite> lora = tiny_lora_tensors(tiny_config(), 2, {"q_proj"}, 1);
  lora.resize(2);
  std::fill(lora[1].bytes.begin(), lora[1].bytes.end(), std::byte{0});
  TinyRandom random(1);
  lora.push_back(
      tiny_tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", {32}, random, 0.1F, 1));
  create_directories(dir / "dora");
  write_file_atomically(join_path(dir / "dora", "adapter_config.json"), std::string_view(config.dump()));
  write_safetensors(join_path(dir / "dora", "adapter_model.safetensors"), lora);
  EXPECT_ERROR(incompatible, "norm 0, DoRA cannot scale it", logits_with(dir / "base", dir / "dora", ""));
}
