#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "support/expect_error.h"
#include "support/golden.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using namespace expert::test;

const std::vector<std::string> kAllModules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                              "gate_proj", "up_proj", "down_proj"};

// Several requests in one step: row ranges, positions and blocks of each.
struct Joint {
  std::vector<int32_t> ids;
  std::shared_ptr<const AdapterSet> adapters;
  std::vector<int32_t> blocks;
};

typedef std::function<bool(size_t request, int32_t position)> Wanted;

// The logits of each request's wanted rows.
std::vector<std::vector<float>> joint_logits(Runner& runner, const std::vector<Joint>& requests, KvStorage& kv,
                                             const Wanted& wanted) {
  Batch batch;
  std::vector<std::ptrdiff_t> rows(requests.size());
  batch.layout.step = 1;
  for (size_t r = 0; r < requests.size(); ++r) {
    const Joint& request = requests[r];
    const auto first = static_cast<int32_t>(batch.layout.token_ids.size());
    const auto count = static_cast<int32_t>(request.ids.size());
    for (int32_t i = 0; i < count; ++i) {
      batch.layout.token_ids.push_back(request.ids[static_cast<size_t>(i)]);
      batch.layout.positions.push_back(i);
      if (!wanted(r, i)) continue;
      batch.logit_rows.push_back(first + i);
      ++rows[r];
    }
    batch.layout.segments.push_back({first, count, 0, request.blocks});
    batch.adapters.push_back(request.adapters.get());
  }
  const Tensor out = runner.model().forward(batch, kv);
  std::vector<float> all(static_cast<size_t>(out.rows * out.cols));
  runner.backend().download(all.data(), out, out.size_bytes());
  std::vector<std::vector<float>> parts;
  auto at = all.begin();
  for (const std::ptrdiff_t count : rows) {
    parts.emplace_back(at, at + count * out.cols);
    at += count * out.cols;
  }
  return parts;
}

// The same rows of what all rows gave.
std::vector<std::vector<float>> rows_of(const std::vector<std::vector<float>>& all, const std::vector<Joint>& requests,
                                        const Wanted& wanted) {
  std::vector<std::vector<float>> parts(all.size());
  for (size_t r = 0; r < all.size(); ++r) {
    const auto cols = static_cast<std::ptrdiff_t>(all[r].size() / requests[r].ids.size());
    for (int32_t i = 0; i < static_cast<int32_t>(requests[r].ids.size()); ++i) {
      if (wanted(r, i)) parts[r].insert(parts[r].end(), all[r].begin() + i * cols, all[r].begin() + (i + 1) * cols);
    }
  }
  return parts;
}

}  // namespace

TEST_CASE("golden logits of every architecture, on both backends") {
  for (const char* device : {"reference", "cpu"}) {
    for (const char* name : {"qwen3", "qwen2", "llama", "mistral"}) {
      CAPTURE(device);
      CAPTURE(name);
      const Golden expected(name);
      Runner runner(golden(name), device);
      CHECK(runner.model().weight_format() == WeightFormat::f32);
      CHECK(relative_error(runner.logits(expected.ids), expected.logits("base")) <= 1e-5);
    }
  }
}

TEST_CASE("golden logits with experts") {
  const Golden expected("qwen3");
  for (const char* device : {"reference", "cpu"}) {
    CAPTURE(device);
    Runner runner(golden("qwen3"), device);
    for (const char* name : {"lora", "rslora"}) {
      const auto set = runner.adapters({{golden(name), 1.0F}});
      CHECK(relative_error(runner.logits(expected.ids, set.get()), expected.logits(name)) <= 1e-5);
    }
    const auto both = runner.adapters({{golden("rslora"), 1.0F}, {golden("lora"), 1.0F}});
    CHECK(relative_error(runner.logits(expected.ids, both.get()), expected.logits("both")) <= 1e-5);
  }
}

TEST_CASE("a request is the same alone, in chunks and beside others, all or some of its rows, bitwise") {
  const TempDir dir;
  const Json config = tiny_config();
  for (const WeightChoice choice : {WeightChoice::f32, WeightChoice::bf16, WeightChoice::int8, WeightChoice::int4}) {
    const bool full = choice == WeightChoice::f32;
    const std::string base = write_tiny_model(dir / (full ? "F32" : "BF16"), config, 3, full ? "F32" : "BF16");
    for (const char* device : {"reference", "cpu"}) {
      CAPTURE(static_cast<int>(choice));
      CAPTURE(device);
      ModelOptions options;
      options.weights = choice;
      Runner runner(base, device, options, 2);
      const DType kv = full ? DType::f32 : DType::bf16;
      const auto one = runner.adapters({{write_tiny_lora(dir / "one", config, 4, kAllModules, 1), 1.0F}});
      const auto two = runner.adapters(
          {{write_tiny_lora(dir / "two", config, 3, {"q_proj", "down_proj"}, 2), -0.5F}, {dir / "one", 2.0F}});
      const std::vector<std::shared_ptr<const AdapterSet>> sets = {nullptr, one, two, one};
      std::vector<std::vector<float>> alone;
      std::vector<Joint> requests;
      int32_t next_block = 0;
      for (size_t i = 0; i < sets.size(); ++i) {
        const std::vector<int32_t> ids = tiny_prompt(static_cast<int32_t>(5 + 14 * i), i);
        alone.push_back(runner.logits(ids, sets[i].get(), 512, kv));
        for (const int32_t chunk : {1, 3, 16, 17}) CHECK(runner.logits(ids, sets[i].get(), chunk, kv) == alone.back());
        requests.push_back({ids, sets[i], {}});
        for (size_t tokens = 0; tokens < ids.size(); tokens += kKvBlockTokens)
          requests.back().blocks.push_back(next_block++);
      }
      CHECK(alone[0] != runner.logits(requests[0].ids, one.get(), 512, kv));
      const auto storage = runner.backend().create_kv(runner.model().kv_shape(next_block, kv));
      CHECK(joint_logits(runner, requests, *storage, [](size_t, int32_t) { return true; }) == alone);
      const Wanted last_rows = [&](size_t r, int32_t i) { return i + 1 == static_cast<int32_t>(requests[r].ids.size()); };
      const Wanted some_rows = [](size_t r, int32_t i) { return r != 1 && (i * 7 + static_cast<int32_t>(r)) % 3 == 0; };
      for (const Wanted& wanted : {last_rows, some_rows}) {
        CHECK(joint_logits(runner, requests, *storage, wanted) == rows_of(alone, requests, wanted));
      }
    }
  }
}

TEST_CASE("thread count changes nothing, bitwise") {
  const TempDir dir;
  const std::string base = write_tiny_model(dir / "base");
  const std::vector<int32_t> ids = tiny_prompt(40);
  CHECK(Runner(base, "cpu", {}, 1).logits(ids) == Runner(base, "cpu", {}, 3).logits(ids));
}

TEST_CASE("only the rows that are asked for come back") {
  const TempDir dir;
  Runner runner(write_tiny_model(dir / "base"), "cpu");
  const std::vector<int32_t> ids = tiny_prompt(9);
  const std::vector<float> all = runner.logits(ids);
  Batch batch;
  batch.layout.step = 1;
  batch.layout.token_ids = ids;
  for (int32_t i = 0; i < 9; ++i) batch.layout.positions.push_back(i);
  const int32_t block = 0;
  batch.layout.segments.push_back({0, 9, 0, {&block, 1}});
  batch.adapters.push_back(nullptr);
  batch.logit_rows = {2, 8};
  const auto kv = runner.backend().create_kv(runner.model().kv_shape(1, DType::f32));
  const Tensor some = runner.model().forward(batch, *kv);
  REQUIRE(some.rows == 2);
  std::vector<float> rows(2 * 64);
  runner.backend().download(rows.data(), some, some.size_bytes());
  CHECK(std::equal(rows.begin(), rows.begin() + 64, all.begin() + 2 * 64));
  CHECK(std::equal(rows.begin() + 64, rows.end(), all.begin() + 8 * 64));

  batch.logit_rows.clear();
  CHECK(runner.model().forward(batch, *kv).rows == 0);
  batch.logit_rows = {8};
  const Tensor hidden = runner.model().hidden(batch, *kv);
  CHECK(hidden.rows == 1);
  CHECK(hidden.cols == 16);
}

TEST_CASE("bad requests are refused before anything runs") {
  const TempDir dir;
  Runner runner(write_tiny_model(dir / "base"), "cpu");
  EXPECT_ERROR(invalid_request, "token 64 is outside", runner.logits({1, 64}));
  EXPECT_ERROR(invalid_request, "token -1 is outside", runner.logits({-1}));
  EXPECT_ERROR(invalid_request, "outside the context of 128", runner.logits(tiny_prompt(129)));
}

TEST_CASE("BF16 is chosen for BF16 files only, and says what it reads per token") {
  const TempDir dir;
  const auto backend = backend_of("cpu");
  const auto model = Model::load(write_tiny_model(dir / "bf16", tiny_config(), 1, "BF16"), *backend);
  CHECK(model->weight_format() == WeightFormat::bf16);
  ModelOptions options;
  options.weights = WeightChoice::f32;
  const auto as_f32 = Model::load(dir / "bf16", *backend, options);
  CHECK(as_f32->weight_format() == WeightFormat::f32);
  CHECK(as_f32->weight_bytes() > model->weight_bytes());
  CHECK(model->bytes_per_token() == model->weight_bytes());  // tied: the head is the embedding
  Json own_head = tiny_config();
  own_head["tie_word_embeddings"] = false;
  const auto untied = Model::load(write_tiny_model(dir / "untied", own_head), *backend);
  CHECK(untied->weight_bytes() - untied->bytes_per_token() == 64 * 16 * 4);
  CHECK(untied->sites().size() == 16);
}

TEST_CASE("quantised weights: formats of layers and head, bytes per token, odd sizes, equal on both backends") {
  const TempDir dir;
  Json config = tiny_config();
  config["tie_word_embeddings"] = false;
  const std::string path = write_tiny_model(dir / "untied", config, 1, "BF16");
  const auto backend = backend_of("cpu");
  size_t bytes_before = SIZE_MAX;
  for (const auto& [choice, layers, head, name] :
       {std::tuple{WeightChoice::int8, WeightFormat::int8, WeightFormat::int8, "int8"},
        {WeightChoice::int4, WeightFormat::int4, WeightFormat::int8, "int4"},
        {WeightChoice::int4_all, WeightFormat::int4, WeightFormat::int4, "int4-all"}}) {
    ModelOptions options;
    options.weights = choice;
    const auto model = Model::load(path, *backend, options);
    CHECK(model->weight_format() == layers);
    CHECK(model->head_format() == head);
    CHECK(std::string(weights_name(model->weight_format(), model->head_format())) == name);
    CHECK(model->bytes_per_token() < bytes_before);
    bytes_before = model->bytes_per_token();
    const size_t embedding = model->weight_bytes() - model->bytes_per_token();
    CHECK(backend->adopts(64, 16, head, embedding));

    Runner cpu(path, "cpu", options);
    Runner reference(path, "reference", options);
    const std::vector<float> ours = cpu.logits(tiny_prompt(9));
    const std::vector<float> truth = reference.logits(tiny_prompt(9));
    // A rounding difference may move an activation to the neighbouring of its 255 steps, no more.
    CHECK(relative_error(ours, truth) < 0.02);
  }
}

namespace {

// A head of 4.8 MB in INT8, large enough for a screen.
Json screened_config() {
  Json config = tiny_config();
  config["vocab_size"] = 70000;
  config["hidden_size"] = 64;
  config["tie_word_embeddings"] = false;
  return config;
}

const std::string& screened_base() {
  static const TempDir dir;
  static const std::string base = write_tiny_model(dir / "base", screened_config(), 1, "BF16");
  return base;
}

// Steps of `rows` requests of one token each, of which the best logits are wanted.
struct ScreenedSteps {
  std::unique_ptr<Backend> backend = backend_of("cpu", 2);
  std::shared_ptr<const Model> model;
  std::unique_ptr<KvStorage> kv;
  std::vector<std::vector<int32_t>> blocks;
  uint64_t step = 0;

  explicit ScreenedSteps(const ModelOptions& options) : model(Model::load(screened_base(), *backend, options)) {
    kv = backend->create_kv(model->kv_shape(16, DType::f32));
    for (int32_t i = 0; i < 16; ++i) blocks.push_back({i});
  }
  std::vector<float> forward(int32_t rows, std::vector<int32_t> best, const AdapterSet* adapters = nullptr) {
    Batch batch;
    batch.layout.step = ++step;
    for (int32_t i = 0; i < rows; ++i) {
      batch.layout.token_ids.push_back(1000 * i + 7);
      batch.layout.positions.push_back(0);
      batch.layout.segments.push_back({i, 1, 0, blocks[static_cast<size_t>(i)]});
      batch.adapters.push_back(i == 0 ? adapters : nullptr);
      batch.logit_rows.push_back(i);
    }
    batch.best_logits = std::move(best);
    const Tensor out = model->forward(batch, *kv);
    std::vector<float> values(static_cast<size_t>(out.rows * out.cols));
    backend->download(values.data(), out, out.size_bytes());
    return values;
  }
  bool screens(int32_t rows, std::vector<int32_t> best, const AdapterSet* adapters = nullptr) {
    const uint64_t before = backend->screen_stats().calls;
    forward(rows, std::move(best), adapters);
    return backend->screen_stats().calls > before;
  }
};

std::vector<size_t> order_of(const std::vector<float>& values, size_t first, size_t vocab, size_t best) {
  std::vector<size_t> ids(vocab);
  for (size_t i = 0; i < vocab; ++i) ids[i] = i;
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(best), ids.end(), [&](size_t a, size_t b) {
    return values[first + a] != values[first + b] ? values[first + a] > values[first + b] : a < b;
  });
  ids.resize(best);
  return ids;
}

}  // namespace

TEST_CASE("the best logits come through a screen of the head, the same bits, where no more is wanted") {
  for (const WeightChoice weights : {WeightChoice::f32, WeightChoice::bf16, WeightChoice::int8, WeightChoice::int4}) {
    ModelOptions options;
    options.weights = weights;
    ScreenedSteps steps(options);
    CHECK(steps.model->head_screen_bytes() > 0);
    CHECK(steps.backend->adopts(70000, 64, steps.model->head_format(), steps.model->head_bytes()));
    const std::vector<int32_t> best = {1, 20, 3};
    const std::vector<float> whole = steps.forward(3, {});
    CHECK(steps.backend->screen_stats().calls == 0);
    const std::vector<float> some = steps.forward(3, best);
    CHECK(steps.backend->screen_stats().calls == 1);
    for (size_t r = 0; r < best.size(); ++r) {
      const auto wanted = static_cast<size_t>(best[r]);
      CHECK(order_of(some, r * 70000, 70000, wanted) == order_of(whole, r * 70000, 70000, wanted));
      for (const size_t id : order_of(whole, r * 70000, 70000, wanted)) {
        CHECK(some[r * 70000 + id] == whole[r * 70000 + id]);
      }
    }
  }
}

TEST_CASE("what a screen is not used for, and where there is none") {
  ModelOptions options;
  options.weights = WeightChoice::int8;
  ScreenedSteps steps(options);
  CHECK(steps.screens(1, {1}));
  CHECK_FALSE(steps.screens(1, {0}));
  CHECK_FALSE(steps.screens(2, {1, 0}));
  CHECK(steps.screens(8, std::vector<int32_t>(8, 1)));
  CHECK_FALSE(steps.screens(9, std::vector<int32_t>(9, 1)));
  EXPECT_ERROR(internal, "one number of best logits", steps.forward(2, {1}));

  const TempDir dir;
  const auto set_of = [&](const std::string& expert) {
    const std::vector<WeightedAdapter> experts = {{load_adapter(expert, *steps.model, *steps.backend), 1.0F, 0, expert}};
    return AdapterSet::compose(experts, steps.model->sites().size());
  };
  const std::string on_layers = write_tiny_lora(dir / "layers", screened_config(), 4, {"q_proj"}, 3);
  CHECK(steps.screens(2, {1, 1}, set_of(on_layers).get()));
  const std::string on_head = write_tiny_lora(dir / "head", screened_config(), 4, {"lm_head"}, 4);
  TinyRandom random(5);
  write_safetensors(join_path(on_head, "adapter_model.safetensors"),
                    {tiny_tensor("base_model.model.lm_head.lora_A.weight", {4, 64}, random, 0.5F),
                     tiny_tensor("base_model.model.lm_head.lora_B.weight", {70000, 4}, random, 0.5F)});
  CHECK_FALSE(steps.screens(2, {1, 1}, set_of(on_head).get()));

  const auto screen_bytes = [&](const std::function<void(ModelOptions&)>& change, const char* device = "cpu") {
    ModelOptions changed = options;
    change(changed);
    const auto backend = backend_of(device);
    return Model::load(screened_base(), *backend, changed)->head_screen_bytes();
  };
  const size_t made = screen_bytes([](ModelOptions&) {});
  const size_t weights = steps.model->weight_bytes() - made;
  CHECK(made == steps.backend->screen_size(70000, 64));
  CHECK(screen_bytes([](ModelOptions& o) { o.head_screen = false; }) == 0);
  CHECK(screen_bytes([](ModelOptions& o) { o.weights = WeightChoice::int4_all; }) == 0);
  CHECK(screen_bytes([](ModelOptions&) {}, "reference") == 0);
  CHECK(screen_bytes([&](ModelOptions& o) { o.memory_limit = weights + 4 * made; }) == made);
  CHECK(screen_bytes([&](ModelOptions& o) { o.memory_limit = weights + 4 * made - 1; }) == 0);
}

TEST_CASE("broken checkpoints are refused with what and where") {
  const TempDir dir;
  const auto backend = backend_of("cpu");
  const Json config = tiny_config();
  int number = 0;
  const auto load = [&](const Json& json, const std::vector<TensorToWrite>& tensors) {
    const std::string path = dir / std::to_string(number++);
    write_model(path, json, tensors);
    return Model::load(path, *backend);
  };
  std::vector<TensorToWrite> tensors = tiny_tensors(config, 1);
  CHECK(load(config, tensors));

  auto changed = tensors;
  changed.erase(changed.begin() + 3);
  EXPECT_ERROR(load, tensors[3].name + " is missing", load(config, changed));
  changed = tensors;
  TinyRandom random(1);
  changed.push_back(tiny_tensor("model.layers.0.self_attn.q_proj.bias", {32}, random, 1));
  EXPECT_ERROR(load, "q_proj.bias belongs to no part", load(config, changed));
  changed = tensors;
  changed[2].shape = {16, 32};
  EXPECT_ERROR(load, "has shape [16, 32], the configuration asks for [32, 16]", load(config, changed));
  changed = tensors;
  changed[0].bytes[3] = std::byte{0x7F};
  changed[0].bytes[2] = std::byte{0xC0};
  EXPECT_ERROR(load, "model.embed_tokens.weight holds a value that is not finite", load(config, changed));

  Json huge = config;
  huge["num_hidden_layers"] = 2000000000;
  EXPECT_ERROR(load, "only 24 tensors", load(huge, tensors));
  EXPECT_ERROR(load, "not a directory", Model::load(dir / "absent", *backend));
  create_directories(dir / "empty");
  EXPECT_ERROR(load, "config.json", Model::load(dir / "empty", *backend));
  ModelOptions options;
  options.context_size = 4096;
  EXPECT_ERROR(invalid_request, "context_size", Model::load(dir / "0", *backend, options));
}

TEST_CASE("the fingerprint is that of what was loaded") {
  const TempDir dir;
  const std::string base = write_tiny_model(dir / "base");
  Runner runner(base, "cpu");
  Runner reference(base, "reference");
  const std::string fingerprint = runner.model().fingerprint();
  CHECK(fingerprint.size() == 64);
  CHECK(reference.model().fingerprint() == fingerprint);
  Runner stale(base, "cpu");
  CHECK(stale.model().fingerprint() == fingerprint);  // waits for it; before that a change is an error
  write_tiny_model(base, tiny_config(), 2);
  CHECK(stale.model().fingerprint() == fingerprint);
  CHECK(Runner(base, "cpu").model().fingerprint() != fingerprint);
  EXPECT_ERROR(load, "changed since they were loaded", stale.model().source_tensors());
}
