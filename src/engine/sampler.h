// One row of logits -> one token. Belongs to one request; not thread-safe.
//
// Filters, in this order: logit_bias; repetition penalty (every token of prompt and output: positive logits divided,
// negative multiplied); presence and frequency penalty (generated tokens: presence once, frequency per occurrence);
// temperature; top_k (every logit equal to the k-th largest stays); top_p (tokens by probability, equal ones by id, up
// to and with the one that reaches top_p); min_p (what top_p left and is at least min_p times as likely as the best).
// Temperature 0 takes the largest penalised logit, equal ones the lowest id.
// Log-probabilities are those of the model: log-softmax of the raw logits, before every filter.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/parameters.h"
#include "engine/request.h"

namespace expert {

// A number in [0, 1) that depends on nothing but (seed, position): Philox4x32-10 (Salmon et al., SC 2011) with the seed
// as key and the position as counter, its first 53 bits.
double uniform_at(uint64_t seed, uint64_t position);

class Sampler {
 public:
  Sampler(const SamplingParameters& parameters, std::span<const int32_t> prompt);

  // `logits` [vocab] is overwritten. `logprobs` may be null. Throws inference when no token can be chosen: NaN,
  // +infinity, or nothing finite.
  int32_t sample(std::span<float> logits, TokenLogprobs* logprobs);

  // How many of the largest logits the next sample() depends on, without log-probabilities; the others may be anything
  // below them. 0: on every one.
  int32_t best_logits() const noexcept;

 private:
  struct Candidate {
    float weight;
    int32_t id;
  };

  void apply_penalties(std::span<float> logits) const;
  int32_t sample_filtered(std::span<float> logits, float largest);
  void keep_top_k(std::span<float> logits);
  void keep_top_p(std::span<float> weights);
  void keep_min_p(std::span<float> weights) const;
  void remember(int32_t token);

  SamplingParameters parameters_;
  std::unordered_set<int32_t> seen_;                // prompt and output; only with a repetition penalty
  std::unordered_map<int32_t, int32_t> generated_;  // counts; only with presence or frequency penalty
  uint64_t position_ = 0;                           // of the next output token
  std::vector<float> largest_;                      // scratch
  std::vector<Candidate> candidates_;               // scratch
};

// Log-softmax of raw logits for `chosen` and the `count` best, equal ones by id.
TokenLogprobs logprobs_of(std::span<const float> logits, int32_t chosen, int32_t count);

}  // namespace expert
