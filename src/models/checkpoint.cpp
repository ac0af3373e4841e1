#include "models/checkpoint.h"

#include "core/error.h"

namespace expert {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kScreen = "screen of the head, two bits and two";
constexpr size_t kSmallestScreenedHead = size_t{4} << 20;  // smaller ones stay in a processor's caches

// Which tensor feeds the embedding and which the head, as Transformers resolves tying: a tied head's own copy counts
// only where it differs, and stands in for an embedding that was left out.
struct HeadRule {
  std::string embedding = kEmbedding;
  bool own_head = true;
  std::vector<std::string> unused;  // present, equal to one that is used
};

HeadRule head_rule(const ModelConfig& config, const TensorSet& tensors, std::vector<std::string>& warnings) {
  HeadRule rule;
  if (!config.tied_head) return rule;
  const TensorRef embedding = tensors.find(kEmbedding);
  const TensorRef head = tensors.find(kHead);
  rule.own_head = embedding && head && !same_tensor(embedding, head);
  if (rule.own_head) {
    warnings.push_back(fmt::format("{}: tie_word_embeddings is true, but {} differs from the embedding and is used",
                                   tensors.source(), kHead));
  } else if (embedding && head) {
    rule.unused.emplace_back(kHead);
  } else if (head) {
    rule.embedding = kHead;
  }
  return rule;
}

class Planner {
 public:
  Planner(const ModelConfig& config, Checkpoint& checkpoint, WeightPlan& plan)
      : config_(config), checkpoint_(checkpoint), plan_(plan) {}

  void plan(const HeadRule& rule) {
    plan_.vocabulary(rule.embedding, config_.vocab_size, config_.hidden_size, checkpoint_.embedding);
    checkpoint_.layers.resize(static_cast<size_t>(config_.layers));
    for (int32_t i = 0; i < config_.layers; ++i) layer(i);
    norm("model.norm", config_.hidden_size, checkpoint_.final_norm);
    checkpoint_.head.site =
        checkpoint_.sites.add({"lm_head", config_.vocab_size, config_.hidden_size, SiteKind::head});
    checkpoint_.embedding_site =
        checkpoint_.sites.add({"model.embed_tokens", config_.hidden_size, config_.vocab_size, SiteKind::embedding});
    checkpoint_.sites.set_tied_head(config_.tied_head && !rule.own_head);
    if (rule.own_head) plan_.vocabulary(kHead, config_.vocab_size, config_.hidden_size, checkpoint_.head.weight);
  }

 private:
  void layer(int32_t index) {
    DecoderLayer& layer = checkpoint_.layers[static_cast<size_t>(index)];
    const std::string prefix = fmt::format("model.layers.{}.", index);
    norm(prefix + "input_layernorm", config_.hidden_size, layer.input_norm);
    attention(prefix + "self_attn.", index, layer.attention);
    norm(prefix + "post_attention_layernorm", config_.hidden_size, layer.post_attention_norm);
    linear(prefix + "mlp.gate_proj", config_.intermediate_size, config_.hidden_size, config_.mlp_bias, layer.mlp.gate);
    linear(prefix + "mlp.up_proj", config_.intermediate_size, config_.hidden_size, config_.mlp_bias, layer.mlp.up);
    linear(prefix + "mlp.down_proj", config_.hidden_size, config_.intermediate_size, config_.mlp_bias, layer.mlp.down);
  }

  void attention(const std::string& prefix, int32_t index, Attention& attention) {
    const int64_t q_size = int64_t{config_.heads} * config_.head_dim;
    const int64_t kv_size = int64_t{config_.kv_heads} * config_.head_dim;
    attention.layer = index;
    attention.heads = config_.heads;
    attention.kv_heads = config_.kv_heads;
    attention.head_dim = config_.head_dim;
    attention.norm_eps = config_.rms_norm_eps;
    linear(prefix + "q_proj", q_size, config_.hidden_size, config_.qkv_bias, attention.q);
    linear(prefix + "k_proj", kv_size, config_.hidden_size, config_.qkv_bias, attention.k);
    linear(prefix + "v_proj", kv_size, config_.hidden_size, config_.qkv_bias, attention.v);
    linear(prefix + "o_proj", config_.hidden_size, q_size, config_.o_bias, attention.o);
    if (config_.qk_norm) {
      plan_.vector(prefix + "q_norm.weight", config_.head_dim, attention.q_norm);
      plan_.vector(prefix + "k_norm.weight", config_.head_dim, attention.k_norm);
    }
  }

  void linear(const std::string& name, int64_t out, int64_t in, bool bias, Linear& slot) {
    slot.site = checkpoint_.sites.add({name, out, in, SiteKind::linear, bias});
    plan_.matrix(name + ".weight", out, in, slot.weight);
    if (bias) plan_.vector(name + ".bias", out, slot.bias);
  }

  void norm(const std::string& name, int64_t size, RmsNorm& slot) {
    slot.eps = config_.rms_norm_eps;
    plan_.vector(name + ".weight", size, slot.weight);
  }

  const ModelConfig& config_;
  Checkpoint& checkpoint_;
  WeightPlan& plan_;
};

void choose_formats(WeightChoice choice, const WeightPlan& plan, const TensorSet& tensors, Checkpoint& checkpoint) {
  const auto both = [&](WeightFormat layers, WeightFormat head) {
    checkpoint.format = layers;
    checkpoint.head_format = head;
  };
  switch (choice) {
    case WeightChoice::f32:
      return both(WeightFormat::f32, WeightFormat::f32);
    case WeightChoice::bf16:
      return both(WeightFormat::bf16, WeightFormat::bf16);
    case WeightChoice::int8:
      return both(WeightFormat::int8, WeightFormat::int8);
    case WeightChoice::int4:
      return both(WeightFormat::int4, WeightFormat::int8);
    case WeightChoice::int4_all:
      return both(WeightFormat::int4, WeightFormat::int4);
    case WeightChoice::automatic:
      break;
  }
  const WeightFormat lossless = lossless_format(plan, tensors);
  both(lossless, lossless);
}

std::optional<WeightCache> open_cache(const TensorSet& tensors, const std::string& directory, Backend& backend,
                                      const ModelOptions& options, Checkpoint& checkpoint) {
  if (options.cache_dir.empty() || tensors.total_bytes() < options.smallest_cached) return std::nullopt;
  if (backend.info().layout.empty()) return std::nullopt;
  checkpoint.cache_key = weight_cache_key(options.cache_dir.string(), directory, tensors, backend.info(),
                                          weights_name(checkpoint.format, checkpoint.head_format));
  return WeightCache::open(*checkpoint.cache_key, backend.info().threads, options.head_screen ? "" : kScreen);
}

void load_weights(const WeightPlan& plan, const TensorSet& tensors, const std::optional<WeightCache>& cache,
                  Backend& backend, const ModelOptions& options, Checkpoint& checkpoint) {
  const auto total = static_cast<double>(tensors.total_bytes());
  uint64_t done = 0;
  checkpoint.from_cache = cache.has_value();
  for (const PlannedWeight& weight : plan.entries()) {
    if (weight.vector) {
      *weight.vector = read_vector(weight, tensors, backend);
      checkpoint.weight_bytes += weight.vector->size_bytes();
    } else {
      const WeightFormat format = weight.vocabulary ? checkpoint.head_format : checkpoint.format;
      MatrixPtr matrix = cache ? cache->find(weight.name, weight.rows, weight.cols, format, backend) : nullptr;
      if (!matrix) {
        matrix = read_matrix(weight, tensors, backend, format);
        checkpoint.from_cache = false;
      }
      checkpoint.weight_bytes += matrix->size_bytes();
      checkpoint.matrix_names.push_back(weight.name);
      checkpoint.matrices.push_back(matrix);
      *weight.matrix = std::move(matrix);
    }
    done += tensors.at(weight.name)->bytes;
    if (options.progress) options.progress(static_cast<double>(done) / total);
  }
}

// A screen of the head, where it is read faster than the head itself.
void load_screen(const std::optional<WeightCache>& cache, Backend& backend, const ModelOptions& options,
                 Checkpoint& checkpoint) {
  const Matrix& head = *checkpoint.head.weight;
  const size_t bytes = backend.screen_size(head.rows(), head.cols());
  if (!options.head_screen || bytes == 0 || head.size_bytes() < kSmallestScreenedHead) return;
  if (checkpoint.head_format == WeightFormat::int4) return;
  if (options.memory_limit != 0 && checkpoint.weight_bytes + 4 * bytes > options.memory_limit) return;
  checkpoint.head_screen = cache ? cache->find_screen(kScreen, head.rows(), head.cols(), backend) : nullptr;
  if (!checkpoint.head_screen) {
    checkpoint.head_screen = backend.pack_screen(head);
    checkpoint.from_cache = false;
  }
  checkpoint.matrix_names.emplace_back(kScreen);
  checkpoint.matrices.push_back(checkpoint.head_screen);
}

// Experts that depend on the base's values (DoRA's norms, replaced tokens) find them at their site.
void give_weights_to_sites(Checkpoint& checkpoint) {
  const auto give = [&](const Linear& linear) { checkpoint.sites.set_weight(linear.site, linear.weight); };
  for (const DecoderLayer& layer : checkpoint.layers) {
    for (const Linear* linear : {&layer.attention.q, &layer.attention.k, &layer.attention.v, &layer.attention.o,
                                 &layer.mlp.gate, &layer.mlp.up, &layer.mlp.down}) {
      give(*linear);
    }
  }
  give(checkpoint.head);
  checkpoint.sites.set_weight(checkpoint.embedding_site, checkpoint.embedding);
}

}  // namespace

Checkpoint load_checkpoint(const ModelConfig& config, const TensorSet& tensors, const std::string& directory,
                           Backend& backend, const ModelOptions& options) {
  // Every layer has tensors of its own, so the layers planned are bounded by what the files hold.
  if (static_cast<size_t>(config.layers) > tensors.names().size()) {
    fail(ErrorCode::load, "{}: {} layers in the configuration, but only {} tensors", tensors.source(), config.layers,
         tensors.names().size());
  }
  Checkpoint checkpoint;
  WeightPlan plan;
  const HeadRule rule = head_rule(config, tensors, checkpoint.warnings);
  Planner(config, checkpoint, plan).plan(rule);
  check_tensors(plan, tensors, rule.unused);

  choose_formats(options.weights, plan, tensors, checkpoint);
  const std::optional<WeightCache> cache = open_cache(tensors, directory, backend, options, checkpoint);
  load_weights(plan, tensors, cache, backend, options, checkpoint);
  tensors.require_unchanged();
  if (cache) checkpoint.cache_file = cache->file();

  if (!rule.own_head) checkpoint.head.weight = checkpoint.embedding;
  give_weights_to_sites(checkpoint);
  // One decoded token reads everything but the embedding, of which it reads one row.
  checkpoint.bytes_per_token =
      checkpoint.weight_bytes - (rule.own_head ? checkpoint.embedding->size_bytes() : size_t{0});
  load_screen(cache, backend, options, checkpoint);
  if (checkpoint.head_screen) checkpoint.weight_bytes += checkpoint.head_screen->size_bytes();
  return checkpoint;
}

}  // namespace expert
