#include "adapters/adapter_set.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <tuple>

#include "core/error.h"
#include "io/sha256.h"

namespace expert {
namespace {

// Of WeightedAdapter and SetMember: soft prompts stand by load_order, then by name.
template <typename Prompt>
void sort_prompts(std::vector<const Prompt*>& prompts) {
  std::ranges::stable_sort(prompts, {}, [](const Prompt* prompt) { return std::tie(prompt->load_order, prompt->name); });
}

std::vector<const WeightedAdapter*> prompts_in_order(const std::vector<WeightedAdapter>& experts) {
  std::vector<const WeightedAdapter*> prompts;
  for (const WeightedAdapter& expert : experts) {
    if (expert.adapter->soft_prompt()) prompts.push_back(&expert);
  }
  sort_prompts(prompts);
  return prompts;
}

SetMember member_of(const WeightedAdapter& expert) {
  if (!expert.adapter) fail(ErrorCode::invalid_request, "an expert is missing");
  return {expert.adapter->hash(), expert.weight, static_cast<bool>(expert.adapter->soft_prompt()), expert.load_order,
          expert.name};
}

// One vector of one site, summed or multiplied up over the experts in FP64. One expert alone at weight 1 keeps its own
// values: 1 + (v - 1) would round a small one.
class ComposedVector {
 public:
  bool present() const { return only_ != nullptr || !values_.empty(); }
  size_t size() const { return only_ != nullptr ? only_->size() : values_.size(); }
  bool all_zero() const {
    const auto zero = [](const auto& values) {
      return std::all_of(values.begin(), values.end(), [](auto value) { return value == 0; });
    };
    return only_ != nullptr ? zero(*only_) : zero(values_);
  }
  // *= 1 + w (v - 1)
  void multiply(const std::vector<float>& v, double w) {
    if (begins_alone(v, w)) return;
    start(v.size(), 1.0);
    for (size_t i = 0; i < v.size(); ++i) values_[i] *= 1.0 + w * (static_cast<double>(v[i]) - 1.0);
  }
  // += w (v - 1), beginning at 1
  void blend(const std::vector<float>& v, double w) {
    if (begins_alone(v, w)) return;
    start(v.size(), 1.0);
    for (size_t i = 0; i < v.size(); ++i) values_[i] += w * (static_cast<double>(v[i]) - 1.0);
  }
  // += w (0 - 1), beginning at 1
  void blend_zero(size_t size, double w) {
    start(size, 1.0);
    for (double& value : values_) value -= w;
  }
  // += w v
  void add(const std::vector<float>& v, double w) {
    if (begins_alone(v, w)) return;
    start(v.size(), 0.0);
    for (size_t i = 0; i < v.size(); ++i) values_[i] += w * static_cast<double>(v[i]);
  }
  void append_to(std::vector<float>& memory) const {
    if (only_ != nullptr) {
      memory.insert(memory.end(), only_->begin(), only_->end());
    } else {
      std::transform(values_.begin(), values_.end(), std::back_inserter(memory),
                     [](double value) { return static_cast<float>(value); });
    }
  }

 private:
  bool begins_alone(const std::vector<float>& v, double w) {
    if (present() || w != 1.0) return false;
    only_ = &v;
    return true;
  }
  void start(size_t size, double value) {
    if (only_ != nullptr) {
      values_.assign(only_->begin(), only_->end());
      only_ = nullptr;
    } else if (values_.empty()) {
      values_.assign(size, value);
    }
  }
  const std::vector<float>* only_ = nullptr;  // of an adapter, which lives as long as the set
  std::vector<double> values_;
};

// What several experts' vectors become at one site.
struct SiteVectors {
  ComposedVector input_scale, output_scale, result_scale, bias;

  void add(const SiteDelta& delta, double weight) {
    if (!delta.input_scale.empty()) input_scale.multiply(delta.input_scale, weight);
    if (!delta.result_scale.empty()) result_scale.multiply(delta.result_scale, weight);
    if (!delta.bias.empty()) bias.add(delta.bias, weight);
    if (delta.replaces_base) {
      output_scale.blend_zero(static_cast<size_t>(delta.outputs), weight);
    } else if (!delta.output_scale.empty()) {
      output_scale.blend(delta.output_scale, weight);
    }
  }
};

}  // namespace

// All vectors of a set in one piece of device memory: one allocation and one upload, however many sites.
class AdapterSet::Vectors {
 public:
  void place(const ComposedVector& vector, Tensor& slot) {
    if (!vector.present()) return;
    slot.offset = values_.size() * sizeof(float);
    slot.rows = 1;
    slot.cols = static_cast<int64_t>(vector.size());
    vector.append_to(values_);
    slots_.push_back(&slot);
  }

  void upload(Backend& backend) {
    if (slots_.empty()) return;
    if (!std::all_of(values_.begin(), values_.end(), [](float value) { return std::isfinite(value); })) {
      fail(ErrorCode::invalid_request, "the experts' weights make a scale or a bias overflow");
    }
    const Tensor memory = backend.allocate(DType::f32, 1, static_cast<int64_t>(values_.size()));
    backend.upload(memory, values_.data(), values_.size() * sizeof(float));
    for (Tensor* slot : slots_) slot->buffer = memory.buffer;
  }

 private:
  std::vector<float> values_;
  std::vector<Tensor*> slots_;
};

ContentHash set_hash(std::vector<SetMember> members, int max_experts) {
  for (const SetMember& member : members) {
    if (!std::isfinite(member.weight)) {
      fail(ErrorCode::invalid_request, "expert weight {} is not a finite number", member.weight);
    }
  }
  std::erase_if(members, [](const SetMember& member) { return member.weight == 0; });
  if (static_cast<int64_t>(members.size()) > max_experts) {
    fail(ErrorCode::invalid_request, "{} experts on one request; the limit is {}", members.size(), max_experts);
  }
  std::ranges::sort(members, {}, &SetMember::hash);
  if (std::ranges::adjacent_find(members, {}, &SetMember::hash) != members.end()) {
    fail(ErrorCode::invalid_request, "the same expert is named twice; give it once, with the sum of the weights");
  }
  Sha256 sha;
  std::vector<const SetMember*> prompts;
  for (const SetMember& member : members) {
    sha.update(std::as_bytes(std::span(member.hash)));
    sha.update_number(std::bit_cast<uint32_t>(member.weight));
    if (member.has_soft_prompt) prompts.push_back(&member);
  }
  // Names decide their order, and names are not part of a content hash.
  sort_prompts(prompts);
  for (const SetMember* prompt : prompts) sha.update(std::as_bytes(std::span(prompt->hash)));
  const Digest digest = sha.finish();
  ContentHash hash{};
  std::memcpy(hash.data(), digest.data(), hash.size());
  return hash;
}

std::shared_ptr<const AdapterSet> AdapterSet::compose(std::span<const WeightedAdapter> experts, int site_count,
                                                      int max_experts) {
  std::vector<SetMember> members;
  std::ranges::transform(experts, std::back_inserter(members), member_of);
  const std::shared_ptr<AdapterSet> set(new AdapterSet());
  set->hash_ = set_hash(std::move(members), max_experts);
  std::ranges::copy_if(experts, std::back_inserter(set->experts_), [](const auto& expert) { return expert.weight != 0; });
  std::ranges::sort(set->experts_, {}, [](const WeightedAdapter& expert) -> const ContentHash& {
    return expert.adapter->hash();
  });
  set->add_terms(site_count);
  set->add_vectors();
  set->add_soft_prompts();
  return set;
}

void AdapterSet::add_terms(int site_count) {
  by_site_.assign(static_cast<size_t>(site_count), -1);
  for (const WeightedAdapter& expert : experts_) {
    for (const SiteDelta& delta : expert.adapter->deltas()) {
      int& index = by_site_.at(static_cast<size_t>(delta.site));
      if (index < 0) {
        index = static_cast<int>(deltas_.size());
        deltas_.emplace_back();
      }
      LinearDelta& composed = deltas_[static_cast<size_t>(index)];
      if (delta.a) composed.low_rank.push_back({delta.a, delta.b, expert.weight});
      if (delta.d) composed.dense.push_back({delta.d, expert.weight});
    }
  }
  for (LinearDelta& delta : deltas_) {
    if (!delta.low_rank.empty()) delta.planned_terms = experts_.front().adapter->backend().plan_terms(delta.low_rank);
  }
}

void AdapterSet::add_vectors() {
  std::vector<SiteVectors> composed(deltas_.size());
  for (const WeightedAdapter& expert : experts_) {
    for (const SiteDelta& delta : expert.adapter->deltas()) {
      const int index = by_site_[static_cast<size_t>(delta.site)];
      composed[static_cast<size_t>(index)].add(delta, static_cast<double>(expert.weight));
    }
  }
  Vectors vectors;
  for (size_t i = 0; i < deltas_.size(); ++i) {
    LinearDelta& delta = deltas_[i];
    const SiteVectors& site = composed[i];
    vectors.place(site.input_scale, delta.input_scale);
    delta.skip_base = site.output_scale.present() && site.output_scale.all_zero();
    if (!delta.skip_base) vectors.place(site.output_scale, delta.output_scale);
    vectors.place(site.bias, delta.bias);
    vectors.place(site.result_scale, delta.result_scale);
  }
  if (!experts_.empty()) vectors.upload(experts_.front().adapter->backend());
}

void AdapterSet::add_soft_prompts() {
  const std::vector<const WeightedAdapter*> prompts = prompts_in_order(experts_);
  if (prompts.size() == 1) soft_prompt_ = prompts.front()->adapter->soft_prompt();
  if (prompts.size() < 2) return;
  std::vector<float> values;
  for (const WeightedAdapter* prompt : prompts) {
    const std::vector<float>& rows = prompt->adapter->soft_prompt_values();
    values.insert(values.end(), rows.begin(), rows.end());
  }
  Backend& backend = prompts.front()->adapter->backend();
  const int64_t hidden = prompts.front()->adapter->soft_prompt().cols;
  soft_prompt_ = backend.allocate(DType::f32, static_cast<int64_t>(values.size()) / hidden, hidden);
  backend.upload(soft_prompt_, values.data(), values.size() * sizeof(float));
}

const LinearDelta* AdapterSet::delta(int site) const noexcept {
  if (site < 0 || static_cast<size_t>(site) >= by_site_.size()) return nullptr;
  const int index = by_site_[static_cast<size_t>(site)];
  return index < 0 ? nullptr : &deltas_[static_cast<size_t>(index)];
}

}  // namespace expert
