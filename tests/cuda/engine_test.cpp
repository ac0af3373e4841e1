// Whole models and the engine on device "cuda", which is the emulated one here.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "engine/engine.h"
#include "support/golden.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

using namespace expert;
using namespace expert::test;

namespace {

namespace fs = std::filesystem;
constexpr auto kSoon = std::chrono::minutes(10);
const fs::path kModels = fs::path(EXPERT_SOURCE_DIR) / "models";

const bool kUsesPlugin = setenv("EXPERT_CUDA_PLUGIN", EXPERT_EMULATED_PLUGIN, 1) == 0;

std::vector<std::vector<int32_t>> generate(const std::string& device, const fs::path& home, const std::string& weights,
                                           const std::string& kv) {
  EngineOptions options;
  options.base_model = (kModels / "base").string();
  options.device = device;
  options.weights = weights;
  options.kv = kv;
  options.home = home;
  options.context_size = 256;
  options.threads = 2;
  const auto engine = Engine::open(options);
  CHECK(engine->info().at("device") == (device == "cpu" ? "cpu" : "cuda:0"));
  const std::vector<std::vector<std::pair<std::string, float>>> sets = {
      {}, {{"sql", 1.0F}, {"jsonfmt", 1.0F}}, {{"shell", 0.5F}}};
  std::vector<std::shared_ptr<Generation>> running;
  for (const auto& set : sets) {
    Request request;
    request.prompt = "Count the users";
    request.base_only = set.empty();
    for (const auto& [name, weight] : set) request.experts.push_back({nullptr, name, weight});
    request.sampling.ignore_eos = true;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = 3;
    running.push_back(engine->submit(request));
  }
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& generation : running) tokens.push_back(generation->wait(kSoon)->tokens);
  return tokens;
}

}  // namespace

TEST_CASE("golden logits of every architecture, with and without experts") {
  REQUIRE(kUsesPlugin);
  for (const char* name : {"qwen3", "qwen2", "llama", "mistral"}) {
    CAPTURE(name);
    const Golden expected(name);
    Runner runner(golden(name), "cuda");
    CHECK(relative_error(runner.logits(expected.ids), expected.logits("base")) <= 1e-5);
    if (std::string(name) != "qwen3") continue;
    for (const char* expert : {"lora", "rslora"}) {
      const auto set = runner.adapters({{golden(expert), 1.0F}});
      CHECK(relative_error(runner.logits(expected.ids, set.get()), expected.logits(expert)) <= 1e-5);
    }
    const auto both = runner.adapters({{golden("rslora"), 1.0F}, {golden("lora"), 1.0F}});
    CHECK(relative_error(runner.logits(expected.ids, both.get()), expected.logits("both")) <= 1e-5);
  }
}

TEST_CASE("a model gives the same bits in chunks as at once, in every weight and KV format") {
  const TempDir dir;
  const Json config = tiny_config();
  const std::vector<std::string> modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  const std::string base = write_tiny_model(dir / "base", config, 3, "BF16");
  const std::string lora = write_tiny_lora(dir / "one", config, 4, modules, 1);
  for (const WeightChoice choice : {WeightChoice::bf16, WeightChoice::int8, WeightChoice::int4}) {
    ModelOptions options;
    options.weights = choice;
    Runner runner(base, "cuda", options);
    Runner reference(base, "reference", options);
    const auto set = runner.adapters({{lora, 0.75F}});
    const auto reference_set = reference.adapters({{lora, 0.75F}});
    for (const DType kv : {DType::f32, DType::bf16, DType::i8}) {
      const std::vector<int32_t> ids = tiny_prompt(19, 1);
      const std::vector<float> all = runner.logits(ids, set.get(), 512, kv);
      CHECK(runner.logits(ids, set.get(), kv == DType::bf16 ? 1 : 7, kv) == all);
      // Where nothing is rounded but weights, sums differ only; else an input or a key may be rounded the other way.
      const double bound = choice == WeightChoice::bf16 && kv == DType::f32 ? 1e-5 : 3e-2;
      CHECK(relative_error(all, reference.logits(ids, reference_set.get(), 512, kv)) < bound);
    }
  }
}

TEST_CASE("the engine answers with the tokens of the CPU, requests of different experts in one batch") {
  const TempDir home;
  setenv("EXPERT_MODELS_PATH", kModels.c_str(), 1);
  for (const char* weights : {"auto", "int4"}) {
    CAPTURE(weights);
    const fs::path folder = fs::path(home.path()) / "home";
    CHECK(generate("cuda", folder, weights, "bf16") == generate("cpu", folder, weights, "bf16"));
  }
}
