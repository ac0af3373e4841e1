#include "adapters/soft_prompt.h"

#include <array>
#include <cmath>

#include "adapters/base_changes.h"
#include "adapters/expert_tensors.h"
#include "core/error.h"

namespace expert {
namespace {

constexpr const char* kRowsName = "prompt_embeddings";

constexpr std::array<std::string_view, 3> kPromptRead = {"num_virtual_tokens", "token_dim",
                                                         "num_transformer_submodules"};
// How the rows began, and what made them.
constexpr std::array<std::string_view, 10> kPromptWithoutEffect = {
    "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path",          "tokenizer_kwargs",
    "num_attention_heads", "num_layers",             "encoder_reparameterization_type", "encoder_hidden_size",
    "encoder_num_layers",  "encoder_dropout"};

const TensorEntry& find_rows(const Adapter::Source& source) {
  for (const TensorEntry& entry : source.tensors->entries()) {
    if (entry.name == kRowsName) return entry;
  }
  fail(ErrorCode::load, "{}: tensor {} is missing", source.origin, kRowsName);
}

// PEFT may save embedding and head along: they must be the base's.
void check_copies(const Adapter::Source& source, const AdapterBase& base) {
  ExpertTensors tensors(source, base.sites, "soft prompt", kRowsName);
  SiteDeltas none;
  BaseChanges(base, tensors, none).compare_copies();
  tensors.require_all_taken();
}

void check_rows(const Adapter::Source& source, const JsonFields& fields, const TensorEntry& entry, int64_t hidden) {
  if (entry.shape.size() != 2 || entry.shape[0] < 1 || !entry.dtype || *entry.dtype == DType::i32) {
    fail(ErrorCode::load, "{}: {} is not a matrix of F32, F16 or BF16", source.origin, entry.describe());
  }
  if (fields.integer_or("num_transformer_submodules", 1) != 1) {
    fail(ErrorCode::incompatible, "{}: \"num_transformer_submodules\" is {}; the base is a decoder alone",
         fields.source(), fields.integer("num_transformer_submodules"));
  }
  const int64_t tokens = fields.integer("num_virtual_tokens");
  if (entry.shape[0] != tokens) {
    fail(ErrorCode::load, "{}: {} has {} rows, \"num_virtual_tokens\" is {}", source.origin, entry.name, entry.shape[0],
         tokens);
  }
  if (entry.shape[1] != fields.integer_or("token_dim", entry.shape[1])) {
    fail(ErrorCode::load, "{}: {} has rows of {}, \"token_dim\" is {}", source.origin, entry.name, entry.shape[1],
         fields.integer("token_dim"));
  }
  if (entry.shape[1] != hidden) {
    fail(ErrorCode::incompatible, "{}: {} has rows of {}, the base's hidden size is {}", source.origin, entry.name,
         entry.shape[1], hidden);
  }
}

}  // namespace

Lowered load_soft_prompt(const Adapter::Source& source, const AdapterBase& base) {
  const JsonFields fields(*source.config, source.origin + ": adapter_config.json");
  refuse_unknown_keys(fields, kPromptRead, kPromptWithoutEffect);
  const auto embedding = base.sites.find(SiteKind::embedding);
  if (!embedding) fail(ErrorCode::internal, "{}: the base has no embedding", source.origin);
  const TensorEntry& entry = find_rows(source);
  check_copies(source, base);
  check_rows(source, fields, entry, base.sites[*embedding].out);

  std::vector<float> values = source.tensors->read_f32(entry);
  for (const float value : values) {
    if (std::isfinite(value)) continue;
    fail(ErrorCode::load, "{}: tensor {} holds a value that is not finite (NaN or infinity)", source.origin,
         entry.name);
  }
  Lowered lowered;
  lowered.kind = fields.string("peft_type") == "P_TUNING" ? "p_tuning" : "prompt_tuning";
  lowered.soft_prompt = base.backend.allocate(DType::f32, entry.shape[0], entry.shape[1]);
  base.backend.upload(lowered.soft_prompt, values.data(), values.size() * sizeof(float));
  lowered.soft_prompt_values = std::move(values);
  return lowered;
}

}  // namespace expert
