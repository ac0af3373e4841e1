#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/kth_largest.h"

namespace expert {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

// The largest of some logits; NaN where one of them is. In lanes of its own each, so that they are compared as vectors.
float largest_of(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> most;
  most.fill(kNever);
  std::array<int32_t, kLanes> nan{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* x = &logits[i];
    for (size_t l = 0; l < kLanes; ++l) {
      most[l] = x[l] > most[l] ? x[l] : most[l];
      nan[l] |= static_cast<int32_t>(x[l] != x[l]);
    }
  }
  for (size_t l = 0; i < logits.size(); ++i, ++l) {
    most[l] = std::max(most[l], logits[i]);
    nan[l] |= static_cast<int32_t>(std::isnan(logits[i]));
  }
  if (std::ranges::any_of(nan, [](int32_t is) { return is != 0; })) return std::numeric_limits<float>::quiet_NaN();
  return *std::ranges::max_element(most);
}

// The first of equal maxima. Throws when the row decides nothing. Block by block, so that the place is looked for in one.
size_t index_of_largest(std::span<const float> logits) {
  constexpr size_t kBlock = 2048;
  float largest = kNever;
  size_t block = 0;
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    const float most = largest_of(logits.subspan(first, std::min(kBlock, logits.size() - first)));
    if (most <= largest) continue;  // not so of a NaN
    largest = most;
    block = first;
    if (std::isnan(most)) break;
  }
  if (!std::isfinite(largest)) {
    fail(ErrorCode::inference, "the model gave logits that are not numbers (the largest of {} is {})", logits.size(),
         largest);
  }
  return static_cast<size_t>(std::ranges::find(logits.begin() + static_cast<ptrdiff_t>(block), logits.end(), largest) -
                             logits.begin());
}

double sum_of(std::span<const float> weights) {
  double sum = 0;
  for (const float weight : weights) sum += static_cast<double>(weight);
  return sum;
}

}  // namespace

double uniform_at(uint64_t seed, uint64_t position) {
  const auto word = philox4x32_10({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                                  static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint64_t bits = (uint64_t{word[1]} << 32) | word[0];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

TokenLogprobs logprobs_of(std::span<const float> logits, int32_t chosen, int32_t count) {
  const double largest = static_cast<double>(logits[index_of_largest(logits)]);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  const double normalizer = largest + std::log(sum);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - normalizer);
  };

  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const size_t kept = std::min(ids.size(), static_cast<size_t>(count));
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(kept), ids.end(), [&](int32_t a, int32_t b) {
    const float left = logits[static_cast<size_t>(a)];
    const float right = logits[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  });

  TokenLogprobs result{chosen, logprob(chosen), {}};
  result.top.reserve(kept);
  for (size_t i = 0; i < kept; ++i) result.top.emplace_back(ids[i], logprob(ids[i]));
  return result;
}

Sampler::Sampler(const SamplingParameters& parameters, std::span<const int32_t> prompt) : parameters_(parameters) {
  if (parameters_.repetition_penalty != 1.0F) seen_.insert(prompt.begin(), prompt.end());
}

int32_t Sampler::sample(std::span<float> logits, TokenLogprobs* logprobs) {
  std::vector<float> raw;
  if (logprobs != nullptr) raw.assign(logits.begin(), logits.end());

  apply_penalties(logits);
  const size_t best = index_of_largest(logits);
  const int32_t token =
      parameters_.temperature == 0.0F ? static_cast<int32_t>(best) : sample_filtered(logits, logits[best]);

  if (logprobs != nullptr) *logprobs = logprobs_of(raw, token, parameters_.logprobs);
  remember(token);
  return token;
}

int32_t Sampler::best_logits() const noexcept {
  constexpr int32_t kMost = 64;
  const bool as_they_are = parameters_.logit_bias.empty() && parameters_.repetition_penalty == 1.0F &&
                           parameters_.presence_penalty == 0.0F && parameters_.frequency_penalty == 0.0F;
  if (!as_they_are || parameters_.logprobs > 0) return 0;
  if (parameters_.temperature == 0.0F) return 1;
  return parameters_.top_k <= kMost ? parameters_.top_k : 0;
}

void Sampler::apply_penalties(std::span<float> logits) const {
  const auto at = [&](int32_t id) -> float* {
    return static_cast<size_t>(id) < logits.size() ? &logits[static_cast<size_t>(id)] : nullptr;
  };
  for (const auto& [id, bias] : parameters_.logit_bias) {
    if (float* logit = at(id)) *logit += bias;
  }
  for (const int32_t id : seen_) {
    if (float* logit = at(id)) {
      *logit = *logit > 0 ? *logit / parameters_.repetition_penalty : *logit * parameters_.repetition_penalty;
    }
  }
  for (const auto& [id, count] : generated_) {
    if (float* logit = at(id)) {
      *logit -= parameters_.presence_penalty + parameters_.frequency_penalty * static_cast<float>(count);
    }
  }
}

// From here on an excluded token has logit -infinity, or weight 0.
int32_t Sampler::sample_filtered(std::span<float> logits, float largest) {
  // Temperature keeps the order, so that ties are judged on the logits themselves.
  if (parameters_.top_k > 0) keep_top_k(logits);
  for (float& value : logits) {
    value = value == kNever ? 0.0F : std::exp((value - largest) / parameters_.temperature);
  }
  const std::span<float> weights = logits;
  if (parameters_.top_p < 1.0F) keep_top_p(weights);
  if (parameters_.min_p > 0.0F) keep_min_p(weights);

  const double target = uniform_at(parameters_.seed, position_) * sum_of(weights);
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0F) continue;
    last = i;
    sum += static_cast<double>(weights[i]);
    if (sum > target) break;
  }
  return static_cast<int32_t>(last);
}

void Sampler::keep_top_k(std::span<float> logits) {
  const auto k = static_cast<size_t>(parameters_.top_k);
  if (k >= logits.size()) return;
  const float threshold = kth_largest(logits, k, largest_);
  for (float& logit : logits) {
    if (logit < threshold) logit = kNever;
  }
}

void Sampler::keep_top_p(std::span<float> weights) {
  const double total = sum_of(weights);
  const double wanted = static_cast<double>(parameters_.top_p) * total;
  // All tokens below (1 - top_p) / vocab together hold less than 1 - top_p: none of them is needed. Half of it, so that
  // rounding cannot matter.
  const auto floor = static_cast<float>(0.5 * (total - wanted) / static_cast<double>(weights.size()));
  candidates_.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > floor) candidates_.push_back({weights[i], static_cast<int32_t>(i)});
  }

  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  };
  double sum = 0;
  Candidate crossing = {0.0F, std::numeric_limits<int32_t>::max()};
  auto sorted = candidates_.begin();
  for (ptrdiff_t batch = 64; sorted != candidates_.end() && sum < wanted; batch *= 4) {
    const auto first = sorted;
    sorted += std::min(batch, candidates_.end() - first);
    std::partial_sort(first, sorted, candidates_.end(), likelier);
    for (auto it = first; it != sorted && sum < wanted; ++it) {
      sum += static_cast<double>(it->weight);
      crossing = *it;
    }
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (likelier(crossing, {weights[i], static_cast<int32_t>(i)})) weights[i] = 0.0F;
  }
}

void Sampler::keep_min_p(std::span<float> weights) const {
  // The best token has weight exp(0) = 1 and survives every filter before this one.
  for (float& weight : weights) {
    if (weight < parameters_.min_p) weight = 0.0F;
  }
}

void Sampler::remember(int32_t token) {
  ++position_;
  if (parameters_.repetition_penalty != 1.0F) seen_.insert(token);
  if (parameters_.presence_penalty != 0.0F || parameters_.frequency_penalty != 0.0F) ++generated_[token];
}

}  // namespace expert
