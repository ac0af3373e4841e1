#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "adapters/adapter_set.h"
#include "adapters/adapter_set_cache.h"
#include "adapters/factor_list.h"
#include "adapters/lora_config.h"
#include "io/json.h"
#include "support/expect_error.h"
#include "support/runner.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using namespace expert::test;

SiteTable tiny_sites() {
  SiteTable sites;
  for (const TensorToWrite& weight : tiny_tensors(tiny_config(), 0)) {
    if (weight.shape.size() != 2 || weight.name.find("embed") != std::string::npos) continue;
    sites.add({weight.name.substr(0, weight.name.size() - 7), weight.shape[0], weight.shape[1]});
  }
  sites.add({"lm_head", 64, 16, SiteKind::head});
  sites.add({"model.embed_tokens", 16, 64, SiteKind::embedding});
  return sites;
}

struct Bench {
  std::unique_ptr<Backend> backend = backend_of("reference");
  SiteTable sites = tiny_sites();

  std::shared_ptr<const Adapter> load(const Json& config, const std::vector<TensorToWrite>& tensors, uint8_t mark = 1) {
    const SafeTensors file =
        SafeTensors::from_memory(std::make_shared<const Bytes>(make_safetensors(tensors)), "adapter_model.safetensors");
    Adapter::Source source;
    source.origin = "sql";
    source.config = &config;
    source.tensors = &file;
    source.hash.fill(mark);
    return Adapter::load(source, {sites, *backend, WeightFormat::f32, {}, {}, {}});
  }
  std::shared_ptr<const Adapter> simple(uint8_t mark) {
    return load(tiny_lora_config(2, {"q_proj"}), tiny_lora_tensors(tiny_config(), 2, {"q_proj"}, mark), mark);
  }
};

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

}  // namespace

TEST_CASE("a LoRA bends the modules it names, in order") {
  Bench bench;
  const auto adapter = bench.load(tiny_lora_config(3, {"q_proj", "mlp.up_proj"}),
                                  tiny_lora_tensors(tiny_config(), 3, {"q_proj", "up_proj"}, 1));
  CHECK(adapter->kind() == "lora");
  REQUIRE(adapter->deltas().size() == 4);
  for (const SiteDelta& delta : adapter->deltas()) {
    const LinearSite& site = bench.sites[delta.site];
    CHECK(delta.a->rows() == 3);
    CHECK(delta.a->cols() == site.in);
    CHECK(delta.b->rows() == site.out);
    CHECK(delta.b->cols() == 3);
  }
  CHECK(bench.sites[adapter->deltas()[0].site].name == "model.layers.0.self_attn.q_proj");
  CHECK(bench.sites[adapter->deltas()[3].site].name == "model.layers.1.mlp.up_proj");
  CHECK(adapter->size_bytes() > 0);
}

TEST_CASE("ranks and scales as PEFT resolves them") {
  const Json json = Json::parse(R"({"r": 8, "lora_alpha": 4.5, "target_modules": ["q_proj", "up_proj"],
    "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 16}, "alpha_pattern": {"up_proj": 9}})");
  const LoraConfig config = LoraConfig::parse(json, "test");
  CHECK(config.rank_of("model.layers.1.self_attn.q_proj") == 2);  // the first match counts, in the file's order
  CHECK(config.rank_of("model.layers.0.self_attn.q_proj") == 16);
  CHECK(config.rank_of("model.layers.0.mlp.up_proj") == 8);
  CHECK(config.scale_of("model.layers.0.self_attn.q_proj") == 4.5 / 16);
  CHECK(config.scale_of("model.layers.0.mlp.up_proj") == 9.0 / 8);
  const LoraConfig stabilised = LoraConfig::parse(with(json, {{"use_rslora", true}}), "test");
  CHECK(stabilised.scale_of("model.layers.0.self_attn.q_proj") == 4.5 / 4);
}

TEST_CASE("targets as PEFT resolves them") {
  const auto config = [](const Json& changes) {
    return LoraConfig::parse(with(tiny_lora_config(2, {"q_proj"}), changes), "test");
  };
  const std::string first = "model.layers.0.self_attn.q_proj";
  const std::string second = "model.layers.1.self_attn.q_proj";
  CHECK(config(Json::object()).targets(first));
  CHECK_FALSE(config(Json::object()).targets("model.layers.0.self_attn.xq_proj"));
  CHECK(config({{"layers_to_transform", 1}}).targets(second));
  CHECK(config({{"layers_to_transform", 1}, {"layers_pattern", "layers"}}).targets(second));
  CHECK(config({{"layers_to_transform", 1}, {"layers_pattern", {"h", "layers"}}}).targets(second));
  CHECK_FALSE(config({{"layers_to_transform", 1}, {"layers_pattern", "h"}}).targets(second));
  CHECK(config({{"layers_to_transform", 1}, {"layers_pattern", "(?:h|layer[s]?)"}}).targets(second));
  CHECK_FALSE(config({{"layers_to_transform", 1}, {"layers_pattern", "(?:h|layer[s]?)"}}).targets(first));
  CHECK_FALSE(config({{"layers_to_transform", 1}, {"layers_pattern", "ayers"}}).targets(second));
  CHECK_FALSE(config({{"modules_to_save", {"self_attn"}}}).targets(first));
  CHECK(config({{"target_modules", "ALL-linear"}}).targets(first));
  CHECK_FALSE(config({{"layers_to_transform", {1}}}).targets(first));
  CHECK_FALSE(config({{"exclude_modules", {"layers.0.self_attn.q_proj"}}}).targets(first));
  CHECK(config({{"target_modules", R"(.*\.1\..*q_proj)"}}).targets(second));
  CHECK(config({{"target_modules", "all-linear"}}).targets(first));
  CHECK_FALSE(config({{"target_modules", "all-linear"}}).targets("lm_head"));
  CHECK(config({{"target_modules", {"lm_head"}}}).targets("lm_head"));
}

TEST_CASE("what is not supported is named") {
  Bench bench;
  const std::vector<TensorToWrite> tensors = tiny_lora_tensors(tiny_config(), 2, {"q_proj"}, 1);
  const Json config = tiny_lora_config(2, {"q_proj"});
  const auto refused = [&](const Json& changes, const std::string& part) {
    INFO(changes.dump());
    EXPECT_ERROR(load, part, bench.load(with(config, changes), tensors));
  };
  EXPECT_ERROR(incompatible, "sql: adapter_config.json: VERA experts are not supported",
               bench.load(with(config, {{"peft_type", "VERA"}}), tensors));
  refused({{"peft_type", nullptr}}, "peft_type");
  refused({{"use_dora", true}}, "DoRA's magnitude of model.layers.0.self_attn.q_proj is missing");
  refused({{"bias", "some"}}, "\"bias\": \"some\"");
  refused({{"lora_bias", true}}, "lora_B.bias of model.layers.0.self_attn.q_proj is missing");
  refused({{"lora_bias", true}, {"use_dora", true}}, "cannot go with");
  refused({{"modules_to_save", {"lm_head"}}}, "the weight of lm_head (modules_to_save) is missing");
  refused({{"trainable_token_indices", {1}}}, "trainable_token_indices of model.embed_tokens are missing");
  refused({{"trainable_token_indices", {1.5}}}, "must hold integers");
  refused({{"layers_pattern", "layers"}}, "without \"layers_to_transform\"");
  refused({{"layers_to_transform", 1}, {"layers_pattern", "(h|layers)"}}, "hides the layer number");
  refused({{"layers_to_transform", 1}, {"layers_pattern", "h|layers"}}, "hides the layer number");
  refused({{"lora_alpha", nullptr}}, "lora_alpha");
  refused({{"made_up_by_a_later_release", 3}}, "made_up_by_a_later_release");
  refused({{"init_lora_weights", "pissa"}}, "alters the base weights");
  refused({{"init_lora_weights", "loftq"}}, "alters the base weights");
  refused({{"init_lora_weights", "of the next release"}}, "not supported");
  refused({{"init_lora_weights", "mica"}, {"use_dora", true}}, "cannot go with");
  refused({{"r", -1}}, "out of range");
  refused({{"r", 2.5}}, "\"r\"");
  refused({{"rank_pattern", {{"q_proj", 0}}}}, "out of range");
  refused({{"target_modules", Json::array()}}, "empty");
  refused({{"lora_alpha", "x"}}, "lora_alpha");
  CHECK(bench.load(with(config, {{"init_lora_weights", "gaussian"}, {"unknown_but_off", false}}), tensors));
}

TEST_CASE("tensors that do not fit are refused") {
  Bench bench;
  const std::vector<TensorToWrite> tensors = tiny_lora_tensors(tiny_config(), 2, {"q_proj"}, 1);
  const Json config = tiny_lora_config(2, {"q_proj"});
  auto changed = tensors;
  changed.pop_back();
  EXPECT_ERROR(load, "lora_B of targeted module model.layers.1.self_attn.q_proj is missing",
               bench.load(config, changed));
  changed = tensors;
  changed[0].name = "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight";
  EXPECT_ERROR(incompatible, "a module the base model does not have", bench.load(config, changed));
  changed = tensors;
  changed[0].shape = {16, 2};
  EXPECT_ERROR(load, "do not have the rank 2", bench.load(config, changed));
  TinyRandom random(1);
  changed[0] = tiny_tensor(tensors[0].name, {2, 20}, random, 1);
  EXPECT_ERROR(incompatible, "[2, 20] and lora_B [32, 2] do not fit the base's weight [32, 16]",
               bench.load(config, changed));
  changed = tensors;
  changed.push_back(tensors[0]);
  changed.back().name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A";
  EXPECT_ERROR(load, "are the same weight", bench.load(config, changed));
  changed = tensors;
  changed[1].bytes[3] = std::byte{0xFF};
  changed[1].bytes[2] = std::byte{0xFF};
  EXPECT_ERROR(load, "not finite", bench.load(config, changed));
  changed = tensors;
  changed.push_back(
      tiny_tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", {32}, random, 1));
  EXPECT_ERROR(load, "is a DoRA magnitude", bench.load(config, changed));
  EXPECT_ERROR(incompatible, "no module c_attn", bench.load(tiny_lora_config(2, {"q_proj", "c_attn"}), tensors));
}

TEST_CASE("sets are order-free, drop weight zero and know their limits") {
  Bench bench;
  const auto one = bench.simple(1);
  const auto two = bench.simple(2);
  const auto compose = [&](const std::vector<WeightedAdapter>& experts) {
    return AdapterSet::compose(experts, bench.sites.size());
  };
  const auto forward = compose({{one, 1.0F}, {two, 0.5F}});
  const auto backward = compose({{two, 0.5F}, {one, 1.0F}});
  CHECK(forward->hash() == backward->hash());
  const int site = one->deltas()[0].site;
  REQUIRE(forward->delta(site));
  REQUIRE(forward->delta(site)->low_rank.size() == 2);
  CHECK(forward->delta(site)->low_rank[0].a == backward->delta(site)->low_rank[0].a);
  CHECK(forward->delta(site)->low_rank[1].weight == 0.5F);
  CHECK(forward->delta(bench.sites.size() - 1) == nullptr);
  CHECK(compose({{one, 1.0F}, {two, 0.25F}})->hash() != forward->hash());

  const auto dropped = compose({{one, 1.0F}, {two, 0.0F}});
  CHECK(dropped->hash() == compose({{one, 1.0F}})->hash());
  CHECK(dropped->delta(site)->low_rank.size() == 1);
  CHECK(compose({{one, -0.0F}})->empty());
  CHECK(compose({})->delta(site) == nullptr);

  EXPECT_ERROR(invalid_request, "named twice", compose({{one, 1.0F}, {one, 1.0F}}));
  EXPECT_ERROR(invalid_request, "not a finite number", compose({{one, std::numeric_limits<float>::infinity()}}));
  EXPECT_ERROR(invalid_request, "not a finite number", compose({{one, std::nanf("")}}));
  std::vector<WeightedAdapter> many;
  for (uint8_t i = 0; i < 10; ++i) many.push_back({bench.simple(static_cast<uint8_t>(i + 10)), 1.0F});
  CHECK(compose(many)->experts().size() == 10);
  many.push_back({one, 1.0F});
  EXPECT_ERROR(invalid_request, "the limit is 10", compose(many));
}

TEST_CASE("sets formed lately are found again, in any order, until one of their experts is forgotten") {
  Bench bench;
  const auto one = bench.simple(1);
  const auto two = bench.simple(2);
  AdapterSetCache sets(2);
  const auto find = [&](const std::vector<WeightedAdapter>& experts) {
    return sets.find_or_compose(experts, bench.sites.size());
  };
  const auto both = find({{one, 1.0F}, {two, 0.5F}});
  CHECK(find({{two, 0.5F}, {one, 1.0F}}) == both);
  CHECK(find({{one, 0.5F}, {two, 1.0F}}) != both);
  CHECK(find({{one, 1.0F}, {two, 0.5F}}) == both);
  const auto alone = find({{one, 1.0F}, {two, 0.0F}});  // takes the place of the set used longest ago
  CHECK(alone->experts().size() == 1);
  CHECK(find({{one, 1.0F}}) == alone);
  CHECK(sets.size() == 2);
  CHECK(find({{two, 0.5F}, {one, 1.0F}}) == both);

  const long uses = two.use_count();
  sets.forget(*two);
  CHECK(sets.size() == 1);
  CHECK(two.use_count() == uses - 1);  // `both` is still held here
  CHECK(find({{one, 1.0F}}) == alone);
  CHECK(find({{two, 0.5F}, {one, 1.0F}}) != both);
  EXPECT_ERROR(invalid_request, "named twice", find({{one, 1.0F}, {one, 1.0F}}));
  EXPECT_ERROR(invalid_request, "not a finite number", find({{one, std::nanf("")}}));
  EXPECT_ERROR(invalid_request, "an expert is missing", find({{nullptr, 1.0F}}));
}

TEST_CASE("a factor is scaled once per value and once per row, and may not overflow") {
  Bench bench;
  const std::string origin = "sql";
  TinyRandom random(1);
  const SafeTensors file = SafeTensors::from_memory(
      std::make_shared<const Bytes>(make_safetensors({tiny_tensor("b", {3, 2}, random, 1)})), "t.safetensors");
  const auto pack = [&](double scale, std::vector<float> row_scale) {
    FactorList factors(origin, file);
    factors.add(file.entries()[0], FactorSource::Role::b, scale, std::move(row_scale));
    return factors.pack(*bench.backend, WeightFormat::f32);
  };
  CHECK(pack(2.0, {1.0F, 2.0F, 3.0F}).size() == 1);
  EXPECT_ERROR(load, "overflows", pack(1e38 * 1e3, {}));
  EXPECT_ERROR(load, "its row 1", pack(1.0, {1.0F, INFINITY, 1.0F}));
}
