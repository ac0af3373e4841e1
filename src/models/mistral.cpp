// Mistral: Llama without biases, and with one sliding window over all layers unless `sliding_window` is null. A
// configuration that does not mention the window has one of 4096 positions.
#include "core/error.h"
#include "models/registry.h"

namespace expert {
namespace {

constexpr int64_t kDefaultWindow = 4096;

void refuse_mixed_layers(const JsonFields& fields, const ModelConfig& config) {
  const std::string expected = config.sliding_window ? "sliding_attention" : "full_attention";
  for (const std::string& type : fields.strings_or_empty("layer_types")) {
    if (type != expected) {
      fail(ErrorCode::unsupported, "{}: layer_types with \"{}\" in a Mistral whose sliding_window asks for {}",
           fields.source(), type, expected);
    }
  }
}

void particulars(const JsonFields& fields, ModelConfig& config) {
  if (!fields.json().contains("sliding_window")) {
    config.sliding_window = kDefaultWindow;
  } else {
    config.sliding_window = fields.optional_integer("sliding_window");
  }
  refuse_mixed_layers(fields, config);
}

}  // namespace

const Architecture kMistral = {
    .name = "MistralForCausalLM",
    .model_type = "mistral",
    .vocab_size = 32000,
    .intermediate_size = 14336,
    .kv_heads = 8,
    .head_dim = std::nullopt,
    .max_position_embeddings = 131072,
    .bos_token_id = 1,
    .eos_token_id = 2,
    .particulars = particulars,
};

}  // namespace expert
