#include <doctest/doctest.h>

#include "io/json.h"
#include "models/config.h"
#include "models/rope.h"
#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using expert::test::tiny_config;

ModelConfig parse(const Json& config, const Json& generation = nullptr, const Json& rope = nullptr) {
  return ModelConfig::parse(config, generation, "dir", rope);
}

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

Json minimal(const std::string& architecture) { return Json{{"architectures", {architecture}}}; }

}  // namespace

TEST_CASE("missing keys take the defaults of the configuration class") {
  const ModelConfig qwen3 = parse(minimal("Qwen3ForCausalLM"));
  CHECK(qwen3.vocab_size == 151936);
  CHECK(qwen3.hidden_size == 4096);
  CHECK(qwen3.intermediate_size == 22016);
  CHECK(qwen3.layers == 32);
  CHECK(qwen3.heads == 32);
  CHECK(qwen3.kv_heads == 32);
  CHECK(qwen3.head_dim == 128);
  CHECK(qwen3.context_limit == 32768);
  CHECK(qwen3.qk_norm);
  CHECK_FALSE(qwen3.qkv_bias);
  CHECK_FALSE(qwen3.tied_head);
  CHECK(qwen3.rope.theta == 10000.0);
  CHECK(qwen3.rms_norm_eps == 1e-6F);
  CHECK(qwen3.eos_token_ids.empty());

  const ModelConfig qwen2 = parse(Json{{"model_type", "qwen2"}});
  CHECK(qwen2.architecture == "Qwen2ForCausalLM");
  CHECK(qwen2.qkv_bias);
  CHECK_FALSE(qwen2.o_bias);
  CHECK_FALSE(qwen2.qk_norm);

  const ModelConfig llama = parse(minimal("LlamaForCausalLM"));
  CHECK(llama.intermediate_size == 11008);
  CHECK(llama.context_limit == 2048);
  CHECK(llama.eos_token_ids == std::vector<int32_t>{2});
  CHECK(llama.bos_token_id == 1);

  const ModelConfig mistral = parse(minimal("MistralForCausalLM"));
  CHECK(mistral.kv_heads == 8);
  CHECK(mistral.intermediate_size == 14336);
  CHECK(mistral.sliding_window == 4096);  // left out is not null
  CHECK(mistral.context_limit == 4096);
  CHECK(mistral.warnings.size() == 1);
}

TEST_CASE("null is not the same as left out") {
  CHECK(parse(with(minimal("MistralForCausalLM"), {{"sliding_window", nullptr}})).context_limit == 131072);
  CHECK(parse(with(minimal("MistralForCausalLM"), {{"num_key_value_heads", nullptr}})).kv_heads == 32);
  CHECK(parse(with(minimal("LlamaForCausalLM"), {{"head_dim", nullptr}})).head_dim == 128);
  CHECK(parse(with(minimal("LlamaForCausalLM"), {{"eos_token_id", nullptr}})).eos_token_ids.empty());
}

TEST_CASE("biases belong to their architecture") {
  const ModelConfig llama =
      parse(with(tiny_config("LlamaForCausalLM"), {{"attention_bias", true}, {"mlp_bias", true}}));
  CHECK(llama.qkv_bias);
  CHECK(llama.o_bias);
  CHECK(llama.mlp_bias);
  const ModelConfig qwen3 = parse(with(tiny_config(), {{"attention_bias", true}, {"mlp_bias", true}}));
  CHECK(qwen3.o_bias);
  CHECK_FALSE(qwen3.mlp_bias);
}

TEST_CASE("sliding windows cap the context only where they are active") {
  const Json qwen = with(tiny_config(), {{"sliding_window", 32}, {"max_window_layers", 1}});
  CHECK(parse(qwen).context_limit == 128);  // use_sliding_window is off
  CHECK(parse(with(qwen, {{"use_sliding_window", true}})).context_limit == 32);
  CHECK(parse(with(qwen, {{"use_sliding_window", true}, {"max_window_layers", 2}})).context_limit == 128);
  const Json types{"full_attention", "sliding_attention"};
  CHECK(parse(with(qwen, {{"use_sliding_window", true}, {"layer_types", types}})).warnings.size() == 1);
  EXPECT_ERROR(load, "no sliding_window is in use", parse(with(qwen, {{"layer_types", types}})));
  EXPECT_ERROR(load, "1 entries for 2 layers", parse(with(qwen, {{"layer_types", {"full_attention"}}})));
  EXPECT_ERROR(unsupported, "chunked_attention",
               parse(with(qwen, {{"layer_types", {"full_attention", "chunked_attention"}}})));
  EXPECT_ERROR(invalid_request, "sliding window", parse(with(qwen, {{"use_sliding_window", true}})).context_for(33));
}

TEST_CASE("RoPE in both spellings") {
  const Json scaling{{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  const ModelConfig old_spelling = parse(with(tiny_config(), {{"rope_theta", 5e5}, {"rope_scaling", scaling}}));
  CHECK(old_spelling.rope.type == "yarn");
  CHECK(old_spelling.rope.theta == 5e5);
  CHECK(old_spelling.rope.original_context == 32);
  CHECK(old_spelling.context_ceiling == 128);
  Json parameters = with(scaling, {{"rope_theta", 7e5}});
  const ModelConfig new_spelling = parse(with(tiny_config(), {{"rope_parameters", parameters}}));
  CHECK(new_spelling.rope.theta == 7e5);
  CHECK(new_spelling.rope.factor == 4.0);
  // YaRN without the original context takes the configuration's own, and may then be run four times as far.
  parameters.erase("original_max_position_embeddings");
  const ModelConfig implied = parse(with(tiny_config(), {{"rope_parameters", parameters}}));
  CHECK(implied.rope.original_context == 128);
  CHECK(implied.context_limit == 128);
  CHECK(implied.context_for(512) == 512);
  EXPECT_ERROR(invalid_request, "yarn", implied.context_for(513));
}

TEST_CASE("RoPE that is not supported is named") {
  const auto scaled = [](const Json& scaling) { return with(tiny_config(), {{"rope_scaling", scaling}}); };
  EXPECT_ERROR(unsupported, "longrope", parse(scaled({{"rope_type", "longrope"}, {"factor", 2}})));
  EXPECT_ERROR(unsupported, "partial_rotary_factor", parse(with(tiny_config(), {{"partial_rotary_factor", 0.5}})));
  EXPECT_ERROR(load, "factor", parse(scaled({{"rope_type", "linear"}})));
  EXPECT_ERROR(load, "must be above 0", parse(scaled({{"rope_type", "linear"}, {"factor", -1}})));
  EXPECT_ERROR(load, "low_freq_factor", parse(scaled({{"rope_type", "llama3"}, {"factor", 8}})));
  EXPECT_ERROR(load, "rope_theta", parse(with(tiny_config(), {{"rope_theta", 0}})));
  EXPECT_ERROR(load, "\"rope_scaling\" must be an object", parse(scaled("linear")));
  const Json by_kind{{"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}}};
  EXPECT_ERROR(unsupported, "full_attention", parse(with(tiny_config(), {{"rope_parameters", by_kind}})));

  const ModelConfig dynamic = parse(scaled({{"rope_type", "dynamic"}, {"factor", 4}}));
  CHECK(dynamic.rope.type == "default");
  CHECK(dynamic.context_limit == 128);
  EXPECT_ERROR(invalid_request, "dynamic RoPE", dynamic.context_for(129));
}

TEST_CASE("rope_scaling given at load replaces the configuration's and raises the context") {
  const Json yarn{{"rope_type", "yarn"}, {"factor", 4.0}};
  const ModelConfig config = parse(with(tiny_config(), {{"rope_theta", 1e6}}), nullptr, yarn);
  CHECK(config.context_limit == 512);
  CHECK(config.rope.theta == 1e6);
  CHECK(parse(tiny_config(), nullptr, {{"rope_type", "linear"}, {"factor", 2.0}}).context_limit == 256);
  EXPECT_ERROR(invalid_request, "max_position_embeddings", parse(tiny_config()).context_for(129));
  EXPECT_ERROR(invalid_request, "negative", parse(tiny_config()).context_for(-1));
}

TEST_CASE("frequencies of every type") {
  // Values of transformers 5.23, head_dim 8.
  RopeConfig rope;
  CHECK(rope_frequencies(rope, 8).inverse == std::vector<float>{1.0F, 0.1F, 0.01F, 0.001F});
  rope.type = "linear";
  rope.factor = 4;
  CHECK(rope_frequencies(rope, 8).inverse == std::vector<float>{0.25F, 0.025F, 0.0025F, 0.00025F});
  rope.type = "yarn";
  rope.original_context = 64;
  const RopeFrequencies yarn = rope_frequencies(rope, 8);
  CHECK(yarn.attention_factor == doctest::Approx(1.1386294361).epsilon(1e-7));
  CHECK(yarn.inverse[0] == 1.0F);
  CHECK(yarn.inverse[3] == doctest::Approx(0.00025F));
  rope.attention_factor = 1.5;
  CHECK(rope_frequencies(rope, 8).attention_factor == 1.5F);
}

TEST_CASE("end tokens are united, and the class default counts only when nobody says") {
  const Json llama = tiny_config("LlamaForCausalLM");
  CHECK(parse(llama).eos_token_ids == std::vector<int32_t>{2});
  CHECK(parse(llama, {{"eos_token_id", {9, 7}}}).eos_token_ids == std::vector<int32_t>{7, 9});
  CHECK(parse(with(llama, {{"eos_token_id", 7}}), {{"eos_token_id", {9, 7}}}).eos_token_ids ==
        std::vector<int32_t>{7, 9});
  const ModelConfig none = parse(with(llama, {{"eos_token_id", -1}}));
  CHECK(none.eos_token_ids.empty());
  CHECK(none.warnings.size() == 1);
  EXPECT_ERROR(load, "eos_token_id", parse(with(llama, {{"eos_token_id", "</s>"}})));
}

TEST_CASE("generation_config.json is typed and ranged") {
  const GenerationDefaults defaults =
      parse(tiny_config(), {{"do_sample", true}, {"temperature", 0.6}, {"top_k", 20}, {"top_p", 0.95}}).generation;
  CHECK(defaults.do_sample == true);
  CHECK(defaults.temperature == 0.6);
  CHECK(defaults.top_k == 20);
  CHECK(defaults.top_p == 0.95);
  CHECK_FALSE(defaults.min_p.has_value());
  EXPECT_ERROR(load, "temperature", parse(tiny_config(), {{"temperature", "hot"}}));
  EXPECT_ERROR(load, "top_k", parse(tiny_config(), {{"top_k", 1.5}}));
}

TEST_CASE("a default out of range is left out with a warning, and the model still loads") {
  const std::pair<const char*, Json> defaults[] = {{"top_p", 1.5},       {"top_p", 0},  {"min_p", 1},
                                                   {"temperature", 1e300}, {"temperature", -1}, {"top_k", -1},
                                                   {"max_new_tokens", 0}, {"repetition_penalty", 0}};
  for (const auto& given : defaults) {
    const char* key = given.first;
    CAPTURE(key);
    const ModelConfig config = parse(tiny_config(), {{key, given.second}});
    REQUIRE(config.warnings.size() == 1);
    CHECK(config.warnings[0].find(fmt::format("\"{}\" is ", key)) != std::string::npos);
    const GenerationDefaults& d = config.generation;
    CHECK_FALSE((d.top_p || d.min_p || d.temperature || d.top_k || d.max_new_tokens || d.repetition_penalty));
  }
  CHECK(parse(tiny_config(), {{"num_beams", 4}, {"no_repeat_ngram_size", 3}}).warnings.size() == 2);
  CHECK(parse(tiny_config(), {{"num_beams", 1}, {"typical_p", 1.0}, {"suppress_tokens", nullptr}}).warnings.empty());
}

TEST_CASE("what would change the result is refused by name") {
  EXPECT_ERROR(unsupported, "GPT2LMHeadModel", parse(minimal("GPT2LMHeadModel")));
  EXPECT_ERROR(unsupported, "gemma", parse(Json{{"model_type", "gemma"}}));
  EXPECT_ERROR(unsupported, "mixtral", parse(with(minimal("MistralForCausalLM"), {{"model_type", "mixtral"}})));
  EXPECT_ERROR(unsupported, "gelu", parse(with(tiny_config(), {{"hidden_act", "gelu"}})));
  EXPECT_ERROR(unsupported, "quantization_config (gptq)",
               parse(with(tiny_config(), {{"quantization_config", {{"quant_method", "gptq"}}}})));
  EXPECT_ERROR(load, "neither", parse(Json::object()));
}

TEST_CASE("nonsense is refused") {
  const auto refused = [](const char* key, const Json& value) {
    INFO(key, " = ", value.dump());
    EXPECT_ERROR(load, key, parse(with(tiny_config(), {{key, value}})));
  };
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
                          "vocab_size", "intermediate_size", "max_position_embeddings"}) {
    refused(key, 0);
    refused(key, -3);
    refused(key, 2.5);
    refused(key, "16");
    refused(key, int64_t{1} << 40);
  }
  refused("num_key_value_heads", 3);
  refused("head_dim", 7);
  refused("rms_norm_eps", -1);
  EXPECT_ERROR(
      load, "more than a row can hold",
      parse(with(tiny_config(), {{"num_attention_heads", 65536}, {"num_key_value_heads", 1}, {"head_dim", 65536}})));
}
