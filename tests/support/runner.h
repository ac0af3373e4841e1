// A model, its backend and a KV store in the simplest arrangement: one sequence after the other, blocks in order.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/adapter_set.h"
#include "io/json.h"
#include "io/sha256.h"
#include "models/model.h"

namespace expert::test {

// One thread unless told: the models of tests are too small to share.
inline std::unique_ptr<Backend> backend_of(const std::string& device, int threads = 1) {
  BackendOptions options;
  options.device = device;
  options.threads = threads;
  return make_backend(options);
}

// A PEFT directory, hashed over its two files.
inline std::shared_ptr<const Adapter> load_adapter(const std::string& directory, const Model& model, Backend& backend,
                                                   const std::string& cache_directory = {}) {
  const std::string config_text = read_text_file(join_path(directory, "adapter_config.json"));
  const Json config = parse_json(config_text, "adapter_config.json");
  const SafeTensors tensors = SafeTensors::open(join_path(directory, "adapter_model.safetensors"));
  Adapter::Source source;
  source.origin = directory;
  source.config = &config;
  source.tensors = &tensors;
  Sha256 sha;
  sha.update_framed(config_text);
  sha.update_framed(read_text_file(join_path(directory, "adapter_model.safetensors")));
  const Digest digest = sha.finish();
  std::transform(digest.begin(), digest.end(), source.hash.begin(),
                 [](std::byte b) { return static_cast<uint8_t>(b); });
  const AdapterBase base{model.sites(),
                         backend,
                         expert_format(model.weight_format()),
                         [&model] { return model.source_tensors(); },
                         [&model] { return model.fingerprint(); },
                         cache_directory};
  return Adapter::load(source, base);
}

// One request: its KV blocks and how far it has come.
class Sequence {
 public:
  Sequence(const Model& model, Backend& backend, int32_t positions, DType kv_dtype, const AdapterSet* adapters)
      : model_(model), backend_(backend), adapters_(adapters) {
    if (adapters != nullptr) positions += static_cast<int32_t>(adapters->soft_prompt().rows);
    const int32_t blocks = (positions + kKvBlockTokens - 1) / kKvBlockTokens;
    kv_ = backend.create_kv(model.kv_shape(blocks, kv_dtype));
    // Backwards, so that nothing can rely on blocks being consecutive.
    for (int32_t i = blocks; i-- > 0;) blocks_.push_back(i);
  }

  // Feeds `ids` in chunks of at most `chunk` and returns the logits of every one of them. Before the first id come the
  // rows of the experts' soft prompts, in chunks of their own.
  std::vector<float> run(const std::vector<int32_t>& ids, int32_t chunk) {
    std::vector<float> logits;
    while (adapters_ != nullptr && position_ < adapters_->soft_prompt().rows) {
      const auto left = static_cast<int32_t>(adapters_->soft_prompt().rows) - position_;
      give_rows(std::min(left, chunk));
    }
    for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(chunk)) {
      const size_t end = std::min(ids.size(), at + static_cast<size_t>(chunk));
      step({ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(end)}, logits);
    }
    return logits;
  }

 private:
  Batch batch_of(std::vector<int32_t> ids) {
    Batch batch;
    const auto count = static_cast<int32_t>(ids.size());
    batch.layout.step = ++steps_;
    for (int32_t i = 0; i < count; ++i) batch.layout.positions.push_back(position_ + i);
    batch.layout.token_ids = std::move(ids);
    batch.layout.segments.push_back({0, count, position_, blocks_});
    batch.adapters.push_back(adapters_);
    return batch;
  }

  void give_rows(int32_t count) {
    Batch batch = batch_of(std::vector<int32_t>(static_cast<size_t>(count), 0));
    batch.given_rows.push_back({0, adapters_->soft_prompt().row_range(position_, count)});
    static_cast<void>(model_.forward(batch, *kv_));
    position_ += count;
  }

  void step(std::vector<int32_t> ids, std::vector<float>& logits) {
    const auto count = static_cast<int32_t>(ids.size());
    Batch batch = batch_of(std::move(ids));
    for (int32_t i = 0; i < count; ++i) batch.logit_rows.push_back(i);
    const Tensor out = model_.forward(batch, *kv_);
    const size_t before = logits.size();
    logits.resize(before + static_cast<size_t>(out.rows * out.cols));
    backend_.download(logits.data() + before, out, out.size_bytes());
    position_ += count;
  }

  const Model& model_;
  Backend& backend_;
  const AdapterSet* adapters_;
  std::unique_ptr<KvStorage> kv_;
  std::vector<int32_t> blocks_;
  int32_t position_ = 0;
  static inline uint64_t steps_ = 0;
};

class Runner {
 public:
  Runner(const std::string& directory, const std::string& device, const ModelOptions& options = {}, int threads = 1)
      : backend_(backend_of(device, threads)),
        model_(Model::load(directory, *backend_, options)),
        cache_(options.cache_dir.string()) {}

  const Model& model() const { return *model_; }
  Backend& backend() { return *backend_; }

  // Null without experts.
  std::shared_ptr<const AdapterSet> adapters(const std::vector<std::pair<std::string, float>>& directories) {
    if (directories.empty()) return nullptr;
    std::vector<WeightedAdapter> experts;
    for (const auto& [directory, weight] : directories) {
      experts.push_back({load_adapter(directory, *model_, *backend_, cache_), weight, 0, directory});
    }
    return AdapterSet::compose(experts, model_->sites().size());
  }

  Sequence sequence(int32_t positions, DType kv_dtype = DType::f32, const AdapterSet* adapters = nullptr) {
    return {*model_, *backend_, positions, kv_dtype, adapters};
  }
  std::vector<float> logits(const std::vector<int32_t>& ids, const AdapterSet* adapters = nullptr, int32_t chunk = 512,
                            DType kv_dtype = DType::f32) {
    return sequence(static_cast<int32_t>(ids.size()), kv_dtype, adapters).run(ids, chunk);
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  std::string cache_;
};

}  // namespace expert::test
