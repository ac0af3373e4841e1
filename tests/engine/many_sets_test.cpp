// Many requests, each with its own set of experts, at once: every one gets the tokens it gets alone.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>

#include "engine/engine.h"
#include "engine_support.h"
#include "fake_model.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "support/volume.h"

using namespace expert;
using namespace expert::test;

namespace fs = std::filesystem;

namespace {

constexpr int kRequests = 64;

// Sets of one to four of `names`; no two alike.
std::vector<ExpertUse> set_of(int number, const std::vector<std::string>& names) {
  std::vector<ExpertUse> uses;
  const size_t first = static_cast<size_t>(number) % names.size();
  for (size_t i = 0; i <= static_cast<size_t>(number / 5) % 4 && i < names.size(); ++i) {
    uses.push_back({nullptr, names[(first + i) % names.size()], 1.0F - 0.01F * static_cast<float>(number % 13)});
  }
  uses.front().weight += 0.001F * static_cast<float>(number);
  return uses;
}

Request request_of(int number, const std::vector<std::string>& names, int32_t tokens) {
  Request request;
  request.prompt = "Find all users older than " + std::to_string(number % 7) + std::string(static_cast<size_t>(number) * 2, '!');
  request.raw = number % 3 != 0;
  request.experts = set_of(number, names);
  request.sampling.temperature = number % 2 == 0 ? 0.0F : 0.8F;
  request.sampling.seed = 1000 + static_cast<uint64_t>(number);
  request.sampling.max_tokens = tokens + number % 5;
  request.sampling.ignore_eos = true;
  request.caller = std::string(1, static_cast<char>('a' + number % 4));
  request.priority = number % 3;
  return request;
}

// A model that computes nothing before it is let go: what was submitted until then is there at once, however slow its
// caller was.
class HeldModel final : public Model {
 public:
  explicit HeldModel(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  void let_go() {
    held_ = false;
    held_.notify_all();
  }

  const ModelConfig& config() const noexcept override { return model_->config(); }
  const SiteTable& sites() const noexcept override { return model_->sites(); }
  WeightFormat weight_format() const noexcept override { return model_->weight_format(); }
  int64_t context_size() const noexcept override { return model_->context_size(); }
  size_t weight_bytes() const noexcept override { return model_->weight_bytes(); }
  size_t bytes_per_token() const noexcept override { return model_->bytes_per_token(); }
  bool loaded_from_cache() const noexcept override { return model_->loaded_from_cache(); }
  KvShape kv_shape(int32_t blocks, DType dtype) const override { return model_->kv_shape(blocks, dtype); }
  std::string fingerprint() const override { return model_->fingerprint(); }
  TensorSet source_tensors() const override { return model_->source_tensors(); }
  bool write_weight_cache(const std::stop_token& stop) const override { return model_->write_weight_cache(stop); }
  Tensor forward(const Batch& batch, KvStorage& kv) const override {
    held_.wait(true);
    return model_->forward(batch, kv);
  }
  Tensor hidden(const Batch& batch, KvStorage& kv) const override { return model_->hidden(batch, kv); }

 private:
  std::shared_ptr<const Model> model_;
  std::atomic<bool> held_{true};
};

// All at once, twice over, beside each of them alone.
void check_alike(Engine& together, Engine& alone, const std::vector<std::string>& names, int32_t tokens,
                 HeldModel* held = nullptr) {
  std::vector<std::shared_ptr<Generation>> running;
  for (int i = 0; i < kRequests; ++i) running.push_back(together.submit(request_of(i, names, tokens)));
  if (held) held->let_go();
  for (int i = 0; i < kRequests; ++i) {
    CAPTURE(i);
    const auto expected = alone.submit(request_of(i, names, tokens))->wait(kSoon);
    const auto got = running[static_cast<size_t>(i)]->wait(kSoon);
    CHECK(got->tokens == expected->tokens);
    CHECK(got->text == expected->text);
    if (i % 8 != 0) continue;
    CHECK(together.submit(request_of(i, names, tokens))->wait(kSoon)->tokens == expected->tokens);
    const auto again = together.submit(request_of(i, names, tokens))->wait(kSoon);  // now with a prefix that is known
    CHECK(again->tokens == expected->tokens);
    CHECK(again->usage.cached_tokens == (again->usage.prompt_tokens - 1) / kKvBlockTokens * kKvBlockTokens);
  }
  CHECK(together.stats()["kv"]["blocks_used"] == 0);
}

struct TinyEngine {
  ~TinyEngine() { model->let_go(); }  // first, or the engine waits for it for ever
  std::shared_ptr<HeldModel> model;
  std::shared_ptr<Engine> engine;
};

// An engine over a small random model, with a KV cache too small for all at once.
TinyEngine tiny_engine(const std::string& directory, DType kv, int32_t blocks, int32_t max_batch, int32_t most_kept) {
  EngineParts parts;
  parts.backend = make_backend({"cpu", 2, ""});
  const auto model = std::make_shared<HeldModel>(Model::load(directory, *parts.backend));
  parts.model = model;
  parts.tokenizer = byte_tokenizer();
  parts.chat_template = chatml_template();
  parts.base.directory = directory;
  parts.base.names = {"tiny"};
  parts.loop.kv_blocks = blocks;
  parts.loop.kv_dtype = kv;
  parts.loop.max_batch = max_batch;
  parts.loop.most_kept = most_kept;
  return {model, assemble_engine(std::move(parts))};
}

}  // namespace

TEST_CASE("64 requests with 64 sets of experts: a small random model, every KV format") {
  const TempDir scratch;
  Json config = tiny_config();
  config["vocab_size"] = 320;
  config["hidden_size"] = 32;
  config["max_position_embeddings"] = 512;
  const std::string base = write_tiny_model(scratch / "base", config, 7, "BF16");
  std::vector<std::string> names;
  for (int i = 0; i < kRequests; ++i) {
    const std::vector<std::vector<std::string>> modules = {
        {"q_proj", "v_proj"}, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, {"down_proj"}};
    names.push_back(write_tiny_lora(scratch / ("expert-" + std::to_string(i)), config, 8 + i % 9,
                                    modules[static_cast<size_t>(i) % 3], static_cast<uint64_t>(i)));
  }
  for (const DType kv : {DType::f32, DType::bf16, DType::i8}) {
    if (!thorough() && kv != DType::i8) continue;
    CAPTURE(std::string(name_of(kv)));
    const auto together = tiny_engine(base, kv, 110, 32, INT32_MAX);  // a third of what 32 requests need
    const auto alone = tiny_engine(base, kv, 64, 1, 0);
    alone.model->let_go();
    check_alike(*together.engine, *alone.engine, names, 40, together.model.get());
    const Json stats = together.engine->stats();
    MESSAGE(std::string(name_of(kv)) << ": " << stats["schedule"].dump() << " " << stats["prefix_cache"].dump());
    CHECK(stats["schedule"]["preemptions"] > 0);
  }
}

TEST_CASE("64 requests with 64 sets of experts: the bundled model") {
  if (!thorough()) return;  // minutes, and nothing in it that the others do not touch
  const TempDir scratch;
  const fs::path models = fs::path(EXPERT_SOURCE_DIR) / "models";
  setenv("EXPERT_MODELS_PATH", models.c_str(), 1);
  EngineOptions options;
  options.base_model = (models / "base").string();
  options.home = fs::path(scratch.path()) / "home";
  options.threads = 2;
  options.max_batch = 64;
  const auto together = Engine::open(options);
  options.max_batch = 1;
  options.prefix_cache_bytes = 0;
  const auto alone = Engine::open(options);
  check_alike(*together, *alone, {"sql", "json", "shell", "classify", "jsonfmt"}, 8);
}
