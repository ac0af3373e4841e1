// Experts of every kind in a running engine: soft prompts take positions, loading and unloading beside requests, limits.
// The base is a small random model; what a request gets is compared with the model run by hand.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "engine_support.h"
#include "fake_model.h"
#include "io/archive.h"
#include "io/sha256.h"
#include "support/expect_error.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

using namespace expert;
using namespace expert::test;

namespace {

Json base_config() {
  Json config = tiny_config();
  config["vocab_size"] = 300;  // the byte tokenizer's ids and more
  config["max_position_embeddings"] = 1024;
  return config;
}

struct Files {
  Json config;
  std::vector<TensorToWrite> tensors;
};

Files lora_files(uint64_t seed, int64_t rank = 3) {
  return {tiny_lora_config(rank, {"q_proj", "up_proj"}),
          tiny_lora_tensors(base_config(), rank, {"q_proj", "up_proj"}, seed)};
}

Files dora_files(uint64_t seed) {
  Files files = lora_files(seed);
  files.config["use_dora"] = true;
  TinyRandom random(seed);
  for (const TensorToWrite& tensor : std::vector<TensorToWrite>(files.tensors)) {
    if (!tensor.name.ends_with(".lora_B.weight")) continue;
    const std::string stem = tensor.name.substr(0, tensor.name.size() - std::string(".lora_B.weight").size());
    files.tensors.push_back(tiny_tensor(stem + ".lora_magnitude_vector", {tensor.shape[0]}, random, 0.3F, 2));
  }
  return files;
}

Files ia3_files(uint64_t seed) {
  TinyRandom random(seed);
  Files files;
  files.config = {{"peft_type", "IA3"}, {"target_modules", {"v_proj", "down_proj"}}, {"feedforward_modules", {"down_proj"}}};
  for (const char* layer : {"0", "1"}) {
    const std::string stem = std::string("base_model.model.model.layers.") + layer;
    files.tensors.push_back(tiny_tensor(stem + ".self_attn.v_proj.ia3_l", {16, 1}, random, 0.4F, 1));
    files.tensors.push_back(tiny_tensor(stem + ".mlp.down_proj.ia3_l", {1, 24}, random, 0.4F, 1));
  }
  return files;
}

Files prompt_files(uint64_t seed, int64_t rows) {
  TinyRandom random(seed);
  Files files;
  files.config = {{"peft_type", "PROMPT_TUNING"}, {"num_virtual_tokens", rows}, {"token_dim", 16}};
  files.tensors.push_back(tiny_tensor("prompt_embeddings", {rows, 16}, random, 1));
  return files;
}

std::string write_expert(const std::string& directory, const Files& files) {
  create_directories(directory);
  write_file_atomically(join_path(directory, "adapter_config.json"), std::string_view(files.config.dump()));
  write_safetensors(join_path(directory, "adapter_model.safetensors"), files.tensors);
  return directory;
}

std::string write_package(const std::string& path, const Files& files) {
  const std::string config = files.config.dump();
  write_archive(path, {{"adapter_config.json", {as_bytes(config).begin(), as_bytes(config).end()}},
                       {"adapter_model.safetensors", make_safetensors(files.tensors)}});
  return path;
}

// A small true model in an engine, and the same by hand.
struct Bed {
  TempDir dir;
  std::string base = write_tiny_model(dir / "base", base_config());
  Runner by_hand{base, "cpu"};
  std::shared_ptr<Engine> engine;

  explicit Bed(int max_experts = 10, int32_t kv_blocks = 256) {
    EngineParts parts;
    parts.backend = backend_of("cpu", 2);
    parts.model = Model::load(base, *parts.backend);
    parts.tokenizer = byte_tokenizer();
    parts.chat_template = chatml_template();
    parts.base.directory = base;
    parts.base.names = {"base"};
    parts.loop.kv_blocks = kv_blocks;
    parts.max_experts = max_experts;
    engine = assemble_engine(std::move(parts));
  }

  std::vector<float> logits(const std::vector<int32_t>& ids, const std::vector<std::pair<std::string, float>>& experts) {
    return engine->logits(ids, uses(experts));
  }
  std::vector<float> expected(const std::vector<int32_t>& ids,
                              const std::vector<std::pair<std::string, float>>& experts) {
    const auto set = by_hand.adapters(experts);
    return by_hand.logits(ids, set.get(), 1024);
  }
  static std::vector<ExpertUse> uses(const std::vector<std::pair<std::string, float>>& experts) {
    std::vector<ExpertUse> uses;
    for (const auto& [path, weight] : experts) uses.push_back({nullptr, path, weight});
    return uses;
  }
};

Request request_of(const std::string& prompt, const std::vector<std::pair<std::string, float>>& experts,
                   int32_t tokens) {
  Request request;
  request.prompt = prompt;
  request.base_only = experts.empty();
  request.experts = Bed::uses(experts);
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = tokens;
  request.sampling.ignore_eos = true;
  return request;
}

}  // namespace

TEST_CASE("every kind, from a directory and from an archive, is what the model gives by hand") {
  Bed bed;
  const std::vector<int32_t> ids = tiny_prompt(150, 3, 300);
  for (const auto& [name, files] : {std::pair<std::string, Files>{"lora", lora_files(1)},
                                    {"dora", dora_files(2)},
                                    {"ia3", ia3_files(3)},
                                    {"prompt_tuning", prompt_files(4, 70)}}) {
    const std::string kind = name;  // a lambda cannot capture a structured binding
    CAPTURE(kind);
    const std::string directory = write_expert(bed.dir / name, files);
    const std::string package = write_package(bed.dir / (name + ".expert"), files);
    const std::vector<float> expected = bed.expected(ids, {{directory, 0.5F}});
    CHECK(bed.logits(ids, {{directory, 0.5F}}) == expected);  // bitwise, though in other chunks
    CHECK(bed.logits(ids, {{package, 0.5F}}) == expected);
    CHECK(bed.engine->load_expert(package)->kinds() == std::vector<std::string>{name});
    CHECK(bed.logits(ids, {{directory, 0.0F}}) == bed.expected(ids, {}));
  }
}

TEST_CASE("a soft prompt takes positions, not tokens") {
  Bed bed;
  const std::string rows = write_expert(bed.dir / "rows", prompt_files(1, 600));  // more than one step fills
  const auto result = bed.engine->submit(request_of("hello", {{rows, 1.0F}}, 5))->wait(kSoon);
  CHECK(result->usage.prompt_virtual_tokens == 600);
  CHECK(result->usage.prompt_tokens < 60);
  CHECK(result->usage.completion_tokens == 5);
  CHECK(result->tokens.size() == 5);
  CHECK(bed.engine->submit(request_of("hello", {}, 5))->wait(kSoon)->usage.prompt_virtual_tokens == 0);

  // The same request beside others that fill the same steps.
  std::vector<std::shared_ptr<Generation>> running;
  const std::string lora = write_expert(bed.dir / "lora", lora_files(7));
  for (int i = 0; i < 6; ++i) {
    running.push_back(bed.engine->submit(request_of(std::string(40, 'a'), {{lora, 1.0F}}, 20)));
    running.push_back(bed.engine->submit(request_of("hello", {{rows, 1.0F}}, 5)));
  }
  for (size_t i = 0; i < running.size(); ++i) {
    const auto other = running[i]->wait(kSoon);
    if (i % 2 == 1) CHECK(other->tokens == result->tokens);
  }

  // They count towards the context.
  const std::string more = write_expert(bed.dir / "more", prompt_files(2, 500));
  EXPECT_ERROR(invalid_request, "after 1100 rows of soft prompts, the context holds 1024",
               bed.engine->submit(request_of("hello", {{rows, 1.0F}, {more, 1.0F}}, 5)));
  const auto full = bed.engine->submit(request_of("hello", {{rows, 1.0F}}, 2000))->wait(kSoon);
  CHECK(full->finish_reason == FinishReason::length);
  CHECK(600 + full->usage.prompt_tokens + full->usage.completion_tokens == 1024);
  CHECK(bed.engine->stats()["kv"]["blocks_used"] == 0);

  // Mean pooling sees the tokens only.
  const std::vector<ExpertUse> uses = Bed::uses({{rows, 1.0F}});
  CHECK(bed.engine->embed("hello", "mean", true, uses).size() == 16);
  CHECK(bed.engine->embed("hello", "last", true, uses) != bed.engine->embed("hello", "last", true, {}));
}

TEST_CASE("every kind beside every other in one batch") {
  Bed bed;
  std::vector<std::pair<std::string, float>> kinds = {
      {write_expert(bed.dir / "lora", lora_files(1)), 0.5F},
      {write_expert(bed.dir / "dora", dora_files(2)), 1.0F},
      {write_expert(bed.dir / "ia3", ia3_files(3)), 1.2F},
      {write_expert(bed.dir / "rows", prompt_files(4, 33)), 1.0F},
  };
  std::vector<std::vector<std::pair<std::string, float>>> sets = {{}};
  for (size_t i = 0; i < kinds.size(); ++i) {
    sets.push_back({kinds[i]});
    sets.push_back({kinds[i], kinds[(i + 1) % kinds.size()]});
  }
  sets.push_back(kinds);
  std::vector<std::vector<int32_t>> alone;
  for (const auto& set : sets) {
    alone.push_back(bed.engine->submit(request_of("hello there", set, 25))->wait(kSoon)->tokens);
  }
  std::vector<std::shared_ptr<Generation>> together;
  for (const auto& set : sets) together.push_back(bed.engine->submit(request_of("hello there", set, 25)));
  for (size_t i = 0; i < sets.size(); ++i) {
    CAPTURE(i);
    CHECK(together[i]->wait(kSoon)->tokens == alone[i]);
  }
  CHECK(alone[0] != alone.back());
}

TEST_CASE("several soft prompts stand in the order of their names") {
  Bed bed;
  const std::vector<int32_t> ids = tiny_prompt(20, 3, 300);
  const std::string a = write_expert(bed.dir / "a", prompt_files(1, 5));
  const std::string b = write_expert(bed.dir / "b", prompt_files(2, 3));
  const std::vector<float> expected = bed.expected(ids, {{b, 1.0F}, {a, 1.0F}});
  CHECK(bed.logits(ids, {{a, 1.0F}, {b, 1.0F}}) == expected);
  CHECK(bed.logits(ids, {{b, 0.25F}, {a, -2.0F}}) == expected);  // present, whatever the weight
  const std::string moved = write_expert(bed.dir / "z", prompt_files(1, 5));  // the rows of a under another name
  CHECK(bed.logits(ids, {{moved, 1.0F}, {b, 1.0F}}) != expected);
}

TEST_CASE("a manifest's load_order goes before the name") {
  const Bed bed;
  const auto load = [&](const std::string& name, uint64_t seed) {
    return load_adapter(write_expert(bed.dir / name, prompt_files(seed, 2)), bed.by_hand.model(),
                        const_cast<Bed&>(bed).by_hand.backend());
  };
  const auto one = load("one", 1);
  const auto two = load("two", 2);
  const int sites = bed.by_hand.model().sites().size();
  const auto rows = [&](const std::vector<WeightedAdapter>& experts) {
    const auto set = AdapterSet::compose(experts, sites);
    std::vector<float> values(static_cast<size_t>(set->soft_prompt().rows * set->soft_prompt().cols));
    const_cast<Bed&>(bed).by_hand.backend().download(values.data(), set->soft_prompt(), values.size() * sizeof(float));
    return std::pair(values, set->hash());
  };
  const auto by_name = rows({{one, 1.0F, 0, "a"}, {two, 1.0F, 0, "b"}});
  CHECK(rows({{two, 1.0F, 0, "b"}, {one, 1.0F, 0, "a"}}) == by_name);
  const auto by_order = rows({{one, 1.0F, 5, "a"}, {two, 1.0F, 2, "b"}});
  CHECK(by_order.first != by_name.first);
  CHECK(by_order.second != by_name.second);  // other rows, other KV
}

TEST_CASE("the limit of experts is the engine's and named") {
  Bed bed(2);
  std::vector<std::pair<std::string, float>> experts;
  for (uint64_t i = 0; i < 3; ++i) {
    experts.emplace_back(write_expert(bed.dir / ("e" + std::to_string(i)), lora_files(i)), 1.0F);
  }
  EXPECT_ERROR(invalid_request, "3 experts on one request; the limit is 2", bed.logits({1, 2}, experts));
  EXPECT_ERROR(invalid_request, "the limit is 2", bed.engine->submit(request_of("x", experts, 1)));
  experts.back().second = 0;  // not there at all
  CHECK(bed.logits({1, 2}, experts) == bed.logits({1, 2}, {experts[0], experts[1]}));
  experts[1] = experts[0];
  EXPECT_ERROR(invalid_request, "named twice", bed.logits({1, 2}, experts));
  experts[1] = {experts[2].first, std::nanf("")};
  EXPECT_ERROR(invalid_request, "finite", bed.logits({1, 2}, experts));
  experts[1].second = std::numeric_limits<float>::max();
  CHECK_NOTHROW(bed.logits({1, 2}, experts));  // the logits are what they are
}

TEST_CASE("what fails to load attaches nothing and disturbs nobody") {
  Bed bed;
  const std::string good = write_expert(bed.dir / "good", dora_files(1));
  const auto running = bed.engine->submit(request_of("hello", {{good, 1.0F}}, 200));
  const Json before = bed.engine->stats()["memory"];
  Files broken = dora_files(2);
  broken.tensors.back().bytes[3] = std::byte{0xFF};
  broken.tensors.back().bytes[2] = std::byte{0xFF};
  EXPECT_ERROR(load, "not finite", bed.engine->load_expert(write_expert(bed.dir / "nan", broken)));
  broken = dora_files(3);
  broken.tensors.pop_back();
  EXPECT_ERROR(load, "DoRA's magnitude", bed.engine->load_expert(write_expert(bed.dir / "gone", broken)));
  broken.config["peft_type"] = "VERA";
  EXPECT_ERROR(incompatible, "VERA", bed.engine->load_expert(write_expert(bed.dir / "vera", broken)));
  CHECK(bed.engine->stats()["memory"] == before);
  CHECK(bed.engine->stats()["experts"]["loaded"] == 0);
  const auto alone = bed.engine->submit(request_of("hello", {{good, 1.0F}}, 200))->wait(kSoon);
  CHECK(running->wait(kSoon)->tokens == alone->tokens);
}

TEST_CASE("experts come and go while others generate") {
  Bed bed;
  const std::vector<std::pair<std::string, Files>> kinds = {
      {"lora", lora_files(1)}, {"dora", dora_files(2)}, {"ia3", ia3_files(3)}, {"rows", prompt_files(4, 9)}};
  std::vector<std::string> paths;
  std::vector<std::vector<int32_t>> expected;
  for (const auto& [name, files] : kinds) {
    paths.push_back(write_expert(bed.dir / name, files));
    expected.push_back(bed.engine->submit(request_of("hello", {{paths.back(), 1.0F}}, 30))->wait(kSoon)->tokens);
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < paths.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 12; ++i) {
        const auto handle = bed.engine->load_expert(paths[t]);
        Request request = request_of("hello", {}, 30);
        request.base_only = false;
        request.experts = {{handle, {}, 1.0F}};
        const auto generation = bed.engine->submit(request);
        bed.engine->unload(handle);  // in use: stays until the request ends
        if (generation->wait(kSoon)->tokens != expected[t]) ++wrong;
        try {
          bed.engine->submit(request);
          ++wrong;
        } catch (const Error& error) {
          if (error.code() != ErrorCode::closed) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(bed.engine->stats()["experts"]["loaded"] == 0);
}

TEST_CASE("stats count the bytes of every tier") {
  Bed bed;
  const auto tiers = [&] { return bed.engine->stats()["experts"]["tiers"]; };
  CHECK(tiers()["device"] == Json{{"same_as", "host"}});
  CHECK(tiers()["host"]["bytes"] == 0);
  CHECK(tiers()["disk"]["bytes"] == 0);
  const auto handle = bed.engine->load_expert(write_expert(bed.dir / "dora", dora_files(1)));
  CHECK(handle->size_bytes() > 0);
  CHECK(tiers()["host"]["bytes"] == handle->size_bytes());
  CHECK(tiers()["disk"]["loads"] == 1);
  bed.engine->unload(handle);
  CHECK(tiers()["host"]["bytes"] == 0);
  CHECK(bed.engine->stats()["experts"]["loaded"] == 0);
}

TEST_CASE("attaching and detaching leaves the base's bytes alone") {
  TempDir dir;
  Runner runner(write_tiny_model(dir / "base", base_config()), "cpu");
  const auto hash = [&] {
    Sha256 sha;
    for (const LinearSite& site : runner.model().sites()) sha.update(runner.backend().packed_bytes(*site.weight));
    return sha.finish_hex();
  };
  const std::string before = hash();
  std::vector<std::shared_ptr<const Adapter>> experts;
  for (const auto& [name, files] : {std::pair<std::string, Files>{"lora", lora_files(1)},
                                    {"dora", dora_files(2)},
                                    {"ia3", ia3_files(3)},
                                    {"rows", prompt_files(4, 3)}}) {
    experts.push_back(load_adapter(write_expert(dir / name, files), runner.model(), runner.backend()));
  }
  const std::vector<int32_t> ids = tiny_prompt(3, 1, 300);
  const std::vector<float> base = runner.logits(ids);
  TinyRandom random(1);
  for (int i = 0; i < 10000; ++i) {
    std::vector<WeightedAdapter> set;
    for (const auto& expert : experts) {
      if (random.next() > 0) set.push_back({expert, random.next(), 0, "x"});
    }
    const auto composed = AdapterSet::compose(set, runner.model().sites().size());
    if (i % 100 == 0) static_cast<void>(runner.logits(ids, composed.get()));
  }
  CHECK(hash() == before);
  CHECK(runner.logits(ids) == base);
}
