#include "adapters/lora.h"

#include <cmath>
#include <optional>

#include "adapters/base_changes.h"
#include "adapters/dora_norms.h"
#include "adapters/expert_tensors.h"
#include "adapters/factor_list.h"
#include "adapters/lora_config.h"
#include "core/error.h"

namespace expert {
namespace {

// What was saved for one targeted site. Tied: the head's pair is the embedding's, transposed.
struct LoraPair {
  int site = 0;
  const TensorEntry* a = nullptr;
  const TensorEntry* b = nullptr;
  const TensorEntry* magnitude = nullptr;
  const TensorEntry* bias = nullptr;
  bool of_embedding = false;  // a [rank, vocab] and b [hidden, rank], whichever site they serve
};

class LoraLoader {
 public:
  LoraLoader(const Adapter::Source& source, const AdapterBase& base)
      : source_(source),
        base_(base),
        config_(LoraConfig::parse(*source.config, source.origin + ": adapter_config.json")),
        tensors_(source, base.sites, "LoRA"),
        changes_(base, tensors_, deltas_) {}

  Lowered load() {
    check();
    lower();
    Lowered lowered;
    lowered.kind = config_.dora() ? "dora" : config_.rank_stabilised() ? "rslora" : "lora";
    lowered.deltas = deltas_.take();
    return lowered;
  }

 private:
  // All names and shapes, before any value is read.
  void check() {
    if (const std::vector<std::string> absent = config_.modules().absent(base_.sites); !absent.empty()) {
      fail(ErrorCode::incompatible, "{}: the base model has no module {}", source_.origin, fmt::join(absent, ", "));
    }
    const bool tied = config_.ensure_weight_tying() && base_.sites.tied_head();
    const bool tied_targets = tied && !config_.modules().save_tied_layers() && config_.modules().name_tied_layers();
    for (int site = 0; site < base_.sites.size(); ++site) {
      const LinearSite& where = base_.sites[site];
      const bool follows = tied_targets && where.kind != SiteKind::linear;
      if (config_.targets(where.name) || follows) pairs_.push_back(take_pair(site, follows));
    }
    for (const LoraPair& pair : pairs_) check_shapes(pair);
    change_the_base(tied);
    changes_.compare_copies();
    tensors_.require_all_taken();
    if (pairs_.empty() && deltas_.empty()) {
      fail(ErrorCode::incompatible, "{}: it bends no module of the base model", source_.origin);
    }
  }

  void change_the_base(bool tied) {
    changes_.replace_modules(config_.modules(), tied);
    changes_.replace_tokens(config_.token_indices(), config_.ensure_weight_tying());
    for (int site = 0; site < base_.sites.size(); ++site) {
      const LinearSite& where = base_.sites[site];
      if (!where.has_bias || config_.modules().is_saved(where.name)) continue;
      const bool changed = config_.biases() == ChangedBiases::all ||
                           (config_.biases() == ChangedBiases::of_targets && config_.targets(where.name));
      if (changed) changes_.change_bias(site);
    }
    for (const LoraPair& pair : pairs_) {
      if (!deltas_.has(pair.site)) continue;
      if (changes_.follows_rows(pair.site) && !config_.dora() && !pair.of_embedding) continue;
      const SiteDelta& other = deltas_.at(pair.site);
      if (other.a || other.replaces_base) {
        fail(ErrorCode::load, "{}: {} is both a target and replaced", source_.origin, base_.sites[pair.site].name);
      }
    }
  }

  LoraPair take_pair(int site, bool follows) {
    const LinearSite& where = base_.sites[site];
    LoraPair pair;
    pair.site = site;
    pair.of_embedding = where.kind == SiteKind::embedding;
    const auto take = [&](TensorPart a, TensorPart b, int from) {
      pair.a = tensors_.take(from, a);
      pair.b = tensors_.take(from, b);
    };
    if (pair.of_embedding) {
      take(TensorPart::embedding_a, TensorPart::embedding_b, site);
    } else {
      take(TensorPart::lora_a, TensorPart::lora_b, site);
    }
    const auto embedding = base_.sites.find(SiteKind::embedding);
    if (follows && where.kind == SiteKind::head) {
      check_tied_pair(pair, *embedding);
      if (!pair.a && !pair.b) {
        pair.of_embedding = true;
        take(TensorPart::embedding_a, TensorPart::embedding_b, *embedding);
      }
    }
    if (!pair.a || !pair.b) {
      fail(ErrorCode::load, "{}: {} of targeted module {} is missing", source_.origin,
           !pair.a && !pair.b ? "the LoRA pair" : (pair.a ? "lora_B" : "lora_A"), where.name);
    }
    if (config_.dora()) {
      pair.magnitude = tensors_.take(site, TensorPart::magnitude);
      if (!pair.magnitude) fail(ErrorCode::load, "{}: DoRA's magnitude of {} is missing", source_.origin, where.name);
    }
    if (config_.lora_bias()) {
      if (where.kind == SiteKind::embedding) {
        fail(ErrorCode::load, "{}: \"lora_bias\" on an embedding ({}) is not supported", source_.origin, where.name);
      }
      pair.bias = tensors_.take(site, TensorPart::lora_bias);
      if (!pair.bias) fail(ErrorCode::load, "{}: lora_B.bias of {} is missing", source_.origin, where.name);
    }
    return pair;
  }

  // Both copies of a tied pair were saved: they are one pair, or we could not say which one PEFT would use.
  void check_tied_pair(const LoraPair& head, int embedding) {
    const TensorEntry* a = tensors_.peek(embedding, TensorPart::embedding_a);
    const TensorEntry* b = tensors_.peek(embedding, TensorPart::embedding_b);
    if (!head.a || !head.b || !a || !b) return;
    for (const TensorEntry* entry : {head.a, head.b, a, b}) tensors_.require_matrix(*entry);
    const bool equal = tensors_.read(*head.a) == transposed(tensors_.read(*b), b->shape[0], b->shape[1]) &&
                       tensors_.read(*head.b) == transposed(tensors_.read(*a), a->shape[0], a->shape[1]);
    if (!equal) {
      fail(ErrorCode::load, "{}: ensure_weight_tying, but {} and {} are not one pair", source_.origin, head.a->name,
           a->name);
    }
  }

  // Head following the embedding: its A [rank, hidden] is the embedding's B, its B [vocab, rank] the embedding's A.
  void check_shapes(const LoraPair& pair) const {
    const LinearSite& where = base_.sites[pair.site];
    tensors_.require_matrix(*pair.a);
    tensors_.require_matrix(*pair.b);
    const int64_t rank = config_.rank_of(where.name);
    if (pair.a->shape[0] != rank || pair.b->shape[1] != rank) {
      fail(ErrorCode::load, "{}: {}: lora_A {} and lora_B {} do not have the rank {} of adapter_config.json",
           source_.origin, where.name, shape_text(*pair.a), shape_text(*pair.b), rank);
    }
    const bool crossed = pair.of_embedding && where.kind == SiteKind::head;
    const int64_t in = crossed ? where.out : where.in;
    const int64_t out = crossed ? where.in : where.out;
    if (pair.a->shape[1] != in || pair.b->shape[0] != out) {
      fail(ErrorCode::incompatible, "{}: {}: lora_A {} and lora_B {} do not fit the base's weight [{}, {}]",
           source_.origin, where.name, shape_text(*pair.a), shape_text(*pair.b), where.out, where.in);
    }
    if (pair.magnitude) tensors_.require_vector(*pair.magnitude, where.out, "outputs");
    if (pair.bias) tensors_.require_vector(*pair.bias, where.out, "outputs");
  }

  void lower() {
    std::optional<DoraNormCache> norms;
    if (config_.dora()) norms.emplace(source_, base_);
    for (const LoraPair& pair : pairs_) {
      if (norms || is_apart(pair)) lower(pair, norms ? &*norms : nullptr);
    }
    if (norms) {
      norms->save();
    } else {
      lower_plain();
    }
  }

  bool is_apart(const LoraPair& pair) const { return pair.of_embedding || changes_.follows_rows(pair.site); }

  // Linear layers without DoRA: their values need no look but one, so all are read, checked and packed in one go.
  void lower_plain() {
    FactorList factors(source_.origin, *source_.tensors);
    std::vector<SiteDelta*> changed;
    for (const LoraPair& pair : pairs_) {
      if (is_apart(pair)) continue;
      const double scale = config_.scale_of(base_.sites[pair.site].name);
      SiteDelta& delta = deltas_.at(pair.site);
      if (pair.bias) add_bias(delta.bias, tensors_.read(*pair.bias, scale));
      factors.add(*pair.a, FactorSource::Role::a);
      factors.add(*pair.b, FactorSource::Role::b, scale);
      changed.push_back(&delta);
    }
    const std::vector<MatrixPtr> packed = factors.pack(base_.backend, base_.format);
    for (size_t i = 0; i < changed.size(); ++i) {
      changed[i]->a = packed[2 * i];
      changed[i]->b = packed[2 * i + 1];
    }
  }

  // The scale is multiplied in at F32, before the format rounds.
  void lower(const LoraPair& pair, DoraNormCache* norms) {
    const LinearSite& where = base_.sites[pair.site];
    const double scale = config_.scale_of(where.name);
    const int64_t rank = config_.rank_of(where.name);
    std::vector<float> a = tensors_.read(*pair.a);         // [rank, in]
    std::vector<float> b = tensors_.read(*pair.b, scale);  // [out, rank]
    if (pair.of_embedding && where.kind == SiteKind::head) {
      std::vector<float> own_a = transposed(tensors_.read(*pair.b), where.in, rank);
      b = transposed(tensors_.read(*pair.a, scale), rank, where.out);
      a = std::move(own_a);
    }
    SiteDelta& delta = deltas_.at(pair.site);
    if (pair.bias) add_bias(delta.bias, tensors_.read(*pair.bias, scale));
    const bool table = where.kind == SiteKind::embedding;
    if (norms) {
      delta.output_scale = dora_gains(pair, a, b, rank, *norms);
      for (size_t i = 0; i < b.size(); ++i) b[i] *= delta.output_scale[i / static_cast<size_t>(rank)];
    }
    if (changes_.put_beside_rows(pair.site, a, b, rank)) return;
    if (table) {
      delta.a = pack_values(base_.backend, base_.format, transposed(a, rank, where.in), where.in, rank);
      delta.b = pack_values(base_.backend, base_.format, b, where.out, rank);
    } else {
      delta.a = pack_factor(base_.backend, FactorSource::Role::a, base_.format, a, rank, where.in);
      delta.b = pack_factor(base_.backend, FactorSource::Role::b, base_.format, b, where.out, rank);
    }
  }

  // g = m / ||W + s B A||, per output.
  std::vector<float> dora_gains(const LoraPair& pair, const std::vector<float>& a, const std::vector<float>& b,
                                int64_t rank, DoraNormCache& cache) {
    const LinearSite& where = base_.sites[pair.site];
    const std::vector<float>* norms = cache.find(where);
    if (!norms) {
      LowRankUpdate update{b, a, rank};
      if (where.kind == SiteKind::embedding) {
        update = {transposed(a, rank, where.in), transposed(b, where.out, rank), rank};
      }
      cache.add(where, dora_norms(where, update, base_.backend));
      norms = cache.find(where);
    }
    std::vector<float> gains = tensors_.read(*pair.magnitude);
    for (size_t i = 0; i < gains.size(); ++i) {
      gains[i] /= (*norms)[i];
      if (std::isfinite(gains[i])) continue;
      fail(ErrorCode::incompatible, "{}: {}: the adapted weight of output {} has the norm {}, DoRA cannot scale it",
           source_.origin, where.name, i, (*norms)[i]);
    }
    return gains;
  }

  static void add_bias(std::vector<float>& bias, const std::vector<float>& more) {
    if (bias.empty()) bias.assign(more.size(), 0.0F);
    for (size_t i = 0; i < more.size(); ++i) bias[i] += more[i];
  }

  const Adapter::Source& source_;
  const AdapterBase& base_;
  LoraConfig config_;
  ExpertTensors tensors_;
  SiteDeltas deltas_;
  BaseChanges changes_;
  std::vector<LoraPair> pairs_;  // ascending by site
};

}  // namespace

Lowered load_lora(const Adapter::Source& source, const AdapterBase& base) { return LoraLoader(source, base).load(); }

}  // namespace expert
