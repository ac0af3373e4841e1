#include "adapters/base_changes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "core/error.h"

namespace expert {
namespace {

// The smallest format that keeps every value: a replaced module is what was saved, whatever the base's format.
WeightFormat exact_format(const std::vector<float>& values) {
  const bool bf16 = std::all_of(values.begin(), values.end(),
                                [](float value) { return (std::bit_cast<uint32_t>(value) & 0xFFFFU) == 0; });
  return bf16 ? WeightFormat::bf16 : WeightFormat::f32;
}

// Whether `copy`, a value of `dtype`, is what `base` becomes when it is stored in it: no further away than rounding.
bool equal_as(DType dtype, float base, float copy) {
  if (dtype == DType::f32) return base == copy;
  const float half_step = dtype == DType::bf16 ? std::abs(copy) * 0x1p-8F : std::max(std::abs(copy) * 0x1p-11F, 0x1p-25F);
  return std::abs(base - copy) <= half_step;
}

}  // namespace

const TensorSet& BaseChanges::checkpoint() {
  if (!checkpoint_) {
    if (!base_.tensors) fail(ErrorCode::internal, "{}: the base's tensors are not at hand", tensors_.origin());
    checkpoint_ = base_.tensors();
  }
  return *checkpoint_;
}

std::vector<float> BaseChanges::base_bias(int site) {
  return checkpoint().at(base_.sites[site].name + ".bias").read_f32();
}

void BaseChanges::replace_modules(const TargetModules& modules, bool tied) {
  if (const std::vector<std::string> absent = modules.absent_saved(base_.sites); !absent.empty()) {
    fail(ErrorCode::incompatible,
         "{}: modules_to_save names {}, which is no linear layer, head or embedding of the base", tensors_.origin(),
         fmt::join(absent, ", "));
  }
  const auto embedding = base_.sites.find(SiteKind::embedding);
  const auto head = base_.sites.find(SiteKind::head);
  const bool saves_one = (embedding && modules.is_saved(base_.sites[*embedding].name)) ||
                         (head && modules.is_saved(base_.sites[*head].name));
  const bool both = tied && base_.sites.tied_head() && saves_one;
  for (int site = 0; site < base_.sites.size(); ++site) {
    const LinearSite& where = base_.sites[site];
    const bool follows = both && where.kind != SiteKind::linear;
    if (!modules.is_saved(where.name) && !follows) continue;
    const TensorEntry* entry = tensors_.take(site, TensorPart::saved_weight);
    if (entry == nullptr && follows) {
      entry = tensors_.take(where.kind == SiteKind::head ? *embedding : *head, TensorPart::saved_weight);
    }
    if (entry == nullptr) {
      fail(ErrorCode::load, "{}: the weight of {} (modules_to_save) is missing", tensors_.origin(), where.name);
    }
    replace_module(site, *entry);
    if (where.has_bias) change_bias(site, true);
  }
  if (!both) return;
  const TensorEntry* first = tensors_.take(*embedding, TensorPart::saved_weight);
  const TensorEntry* second = tensors_.take(*head, TensorPart::saved_weight);
  if (first != nullptr && second != nullptr && tensors_.read(*first) != tensors_.read(*second)) {
    fail(ErrorCode::load, "{}: ensure_weight_tying, but {} and {} differ", tensors_.origin(), first->name,
         second->name);
  }
}

void BaseChanges::replace_module(int site, const TensorEntry& entry) {
  const LinearSite& where = base_.sites[site];
  tensors_.require_matrix(entry);
  const bool table = where.kind == SiteKind::embedding;
  const int64_t rows = table ? where.in : where.out;
  const int64_t cols = table ? where.out : where.in;
  if (entry.shape[0] != rows && entry.shape[1] == cols && where.kind != SiteKind::linear) {
    fail(ErrorCode::incompatible, "{}: the vocabulary was resized: {} has {} rows, the base {}", tensors_.origin(),
         entry.name, entry.shape[0], rows);
  }
  if (entry.shape[0] != rows || entry.shape[1] != cols) {
    fail(ErrorCode::incompatible, "{}: {} {} does not fit the base's weight [{}, {}]", tensors_.origin(), entry.name,
         shape_text(entry), rows, cols);
  }
  const std::vector<float> values = tensors_.read(entry);
  SiteDelta& delta = deltas_.at(site);
  delta.replaces_base = true;
  delta.outputs = where.out;
  delta.d = pack_values(base_.backend, exact_format(values), values, rows, cols);
}

void BaseChanges::change_bias(int site, bool replaced) {
  const LinearSite& where = base_.sites[site];
  const TensorEntry* entry = replaced ? nullptr : tensors_.take(site, TensorPart::base_bias);
  if (entry == nullptr) entry = tensors_.take(site, TensorPart::saved_bias);
  if (entry == nullptr) {
    throw Error(ErrorCode::load, fmt::format("{}: the bias of {} is missing", tensors_.origin(), where.name),
                "some versions of PEFT lose it when saving; with \"bias\": \"none\" in adapter_config.json the base's is used");
  }
  tensors_.require_vector(*entry, where.out, "outputs");
  std::vector<float> changed = tensors_.read(*entry);
  const std::vector<float> base = base_bias(site);
  std::vector<float>& bias = deltas_.at(site).bias;
  bias.resize(changed.size());
  for (size_t i = 0; i < changed.size(); ++i) bias[i] = changed[i] - base[i];
}

int BaseChanges::site_named(const std::string& name) const {
  for (int site = 0; site < base_.sites.size(); ++site) {
    const LinearSite& where = base_.sites[site];
    if (where.kind == SiteKind::linear) continue;
    if (name.empty() ? where.kind == SiteKind::embedding : where.name.ends_with(name)) return site;
  }
  fail(ErrorCode::incompatible, "{}: trainable_token_indices names {}, which is neither head nor embedding of the base",
       tensors_.origin(), name.substr(0, 200));
}

void BaseChanges::replace_tokens(const std::map<std::string, std::vector<int64_t>>& indices, bool ensure_weight_tying) {
  std::map<int, std::vector<int64_t>> by_site;
  for (const auto& [name, tokens] : indices) {
    if (!by_site.emplace(site_named(name), tokens).second) {
      fail(ErrorCode::load, "{}: trainable_token_indices names a module twice", tensors_.origin());
    }
  }
  const auto embedding = base_.sites.find(SiteKind::embedding);
  const auto head = base_.sites.find(SiteKind::head);
  if (embedding && head && base_.sites.tied_head() && by_site.contains(*embedding)) {
    const auto own = by_site.find(*head);
    const bool differs = own != by_site.end() && own->second != by_site.at(*embedding);
    if (differs && ensure_weight_tying) {
      fail(ErrorCode::load, "{}: ensure_weight_tying, but head and embedding have other trainable_token_indices",
           tensors_.origin());
    }
    if (!differs) by_site[*head] = by_site.at(*embedding);
  }
  const bool named = std::any_of(indices.begin(), indices.end(),
                                 [&](const auto& index) { return head && site_named(index.first) == *head; });
  for (const auto& [site, tokens] : by_site) {
    const TensorEntry* entry = tensors_.take(site, TensorPart::token_rows);
    const bool follows = entry == nullptr && head && site == *head && base_.sites.tied_head();
    if (follows) entry = tensors_.take(*embedding, TensorPart::token_rows);
    if (entry == nullptr) {
      fail(ErrorCode::load, "{}: the rows of trainable_token_indices of {} are missing", tensors_.origin(),
           base_.sites[site].name);
    }
    replace_rows(site, tokens, *entry, follows && !named);
  }
}

bool BaseChanges::put_beside_rows(int site, const std::vector<float>& a, const std::vector<float>& b, int64_t rank) {
  if (!follows_rows(site)) return false;
  const HeadRows& head = *following_head_;
  std::vector<float> both_a = head.rows;
  both_a.insert(both_a.end(), a.begin(), a.end());
  const int64_t out = base_.sites[site].out;
  std::vector<float> both_b;
  both_b.reserve(head.selection.size() + b.size());
  for (int64_t r = 0; r < out; ++r) {
    both_b.insert(both_b.end(), head.selection.begin() + r * head.count, head.selection.begin() + (r + 1) * head.count);
    both_b.insert(both_b.end(), b.begin() + r * rank, b.begin() + (r + 1) * rank);
  }
  const WeightFormat format = base_.format == WeightFormat::f32 ? base_.format : exact_format(head.rows);
  SiteDelta& delta = deltas_.at(site);
  using Role = FactorSource::Role;
  delta.a = pack_factor(base_.backend, Role::a, format, both_a, head.count + rank, base_.sites[site].in);
  delta.b = pack_factor(base_.backend, Role::b, format, both_b, out, head.count + rank);
  return true;
}

// The head: e = 0 for these tokens, and their rows through a selection. The embedding: the difference to the base's
// rows, in F32, because there e would scale features and not tokens.
void BaseChanges::replace_rows(int site, const std::vector<int64_t>& tokens, const TensorEntry& entry, bool follows) {
  const LinearSite& where = base_.sites[site];
  const bool table = where.kind == SiteKind::embedding;
  const int64_t vocab = table ? where.in : where.out;
  const int64_t hidden = table ? where.out : where.in;
  const auto count = static_cast<int64_t>(tokens.size());
  tensors_.require_matrix(entry);
  if (entry.shape[0] != count || entry.shape[1] != hidden) {
    fail(entry.shape[0] != count ? ErrorCode::load : ErrorCode::incompatible,
         "{}: {} {} does not fit {} trainable tokens and the base's hidden size {}", tensors_.origin(), entry.name,
         shape_text(entry), count, hidden);
  }
  std::set<int64_t> seen;
  for (const int64_t token : tokens) {
    if (token < 0 || token >= vocab) {
      fail(ErrorCode::incompatible, "{}: trainable token {} is outside the base's vocabulary of {}", tensors_.origin(),
           token, vocab);
    }
    if (!seen.insert(token).second) {
      fail(ErrorCode::load, "{}: trainable token {} is named twice", tensors_.origin(), token);
    }
  }
  if (count * (vocab + hidden) > vocab * hidden) {
    fail(ErrorCode::load, "{}: {} trainable tokens of a vocabulary of {}: save the whole module (modules_to_save)",
         tensors_.origin(), count, vocab);
  }

  std::vector<float> rows = tensors_.read(entry);
  std::vector<float> selection(static_cast<size_t>(vocab * count));  // [vocab, count]
  for (int64_t i = 0; i < count; ++i) selection[static_cast<size_t>(tokens[static_cast<size_t>(i)] * count + i)] = 1.0F;
  SiteDelta& delta = deltas_.at(site);
  if (!table) {
    delta.output_scale.assign(static_cast<size_t>(vocab), 1.0F);
    for (const int64_t token : tokens) delta.output_scale[static_cast<size_t>(token)] = 0.0F;
    using Role = FactorSource::Role;
    delta.a = pack_factor(base_.backend, Role::a, exact_format(rows), rows, count, hidden);
    delta.b = pack_factor(base_.backend, Role::b, WeightFormat::bf16, selection, vocab, count);
    if (follows) following_head_ = HeadRows{site, std::move(rows), std::move(selection), count};
    return;
  }
  std::vector<float> base(static_cast<size_t>(hidden));
  for (int64_t i = 0; i < count; ++i) {
    base_.backend.unpack_rows(*where.weight, tokens[static_cast<size_t>(i)], 1, base.data());
    for (size_t c = 0; c < base.size(); ++c) rows[static_cast<size_t>(i * hidden) + c] -= base[c];
  }
  delta.a = pack_values(base_.backend, WeightFormat::bf16, selection, vocab, count);
  delta.b = pack_values(base_.backend, WeightFormat::f32, transposed(rows, count, hidden), hidden, count);
}

void BaseChanges::compare_copies() {
  for (const auto& [part, bias] : {std::pair{TensorPart::base_weight, false},
                                   {TensorPart::saved_weight, false},
                                   {TensorPart::base_bias, true},
                                   {TensorPart::saved_bias, true}}) {
    for (const int site : tensors_.untaken_sites(part)) compare(site, *tensors_.take(site, part), bias);
  }
}

void BaseChanges::compare(int site, const TensorEntry& entry, bool bias) {
  const LinearSite& where = base_.sites[site];
  const TensorSet& checkpoint = this->checkpoint();
  TensorRef own = checkpoint.find(where.name + (bias ? ".bias" : ".weight"));
  // A tied checkpoint keeps one of the two.
  if (!own && where.kind != SiteKind::linear) {
    own = checkpoint.find(where.kind == SiteKind::head ? "model.embed_tokens.weight" : "lm_head.weight");
  }
  if (!own) {
    fail(ErrorCode::incompatible, "{}: tensor {} is a copy of something the base does not have", tensors_.origin(),
         entry.name);
  }
  if (entry.shape != own->shape) {
    const bool resized = where.kind != SiteKind::linear && entry.shape.size() == 2;
    fail(ErrorCode::incompatible, "{}: {}{} {} is saved along, the base has {}", tensors_.origin(),
         resized ? "the vocabulary was resized: " : "", entry.name, shape_text(entry), shape_text(*own.entry));
  }
  tensors_.require_float(entry);
  const std::vector<float> theirs = tensors_.read(entry);
  const std::vector<float> ours = own.read_f32();
  for (size_t i = 0; i < ours.size(); ++i) {
    if (equal_as(*entry.dtype, ours[i], theirs[i])) continue;
    throw Error(ErrorCode::incompatible,
                fmt::format("{}: {} is saved along and differs from the base's", tensors_.origin(), entry.name),
                "the expert was made over other weights; to replace a layer, name it in modules_to_save");
  }
}

}  // namespace expert
