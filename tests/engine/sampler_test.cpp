// The sampler against a plain re-statement of its documentation, against published Philox vectors, and in distribution.
#include "engine/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "core/error.h"
#include "support/volume.h"

using namespace expert;

namespace {

// Slow and literal: sorts everything, one filter after the other.
class PlainSampler {
 public:
  PlainSampler(SamplingParameters parameters, std::vector<int32_t> prompt)
      : parameters_(std::move(parameters)), prompt_(std::move(prompt)) {}

  int32_t sample(std::vector<float> logits) {
    penalise(logits);
    const int32_t token = choose(logits);
    output_.push_back(token);
    return token;
  }

 private:
  void penalise(std::vector<float>& logits) const {
    for (const auto& [id, bias] : parameters_.logit_bias) logits[static_cast<size_t>(id)] += bias;
    for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
      float& logit = logits[static_cast<size_t>(id)];
      const auto in = [&](const std::vector<int32_t>& list) { return std::count(list.begin(), list.end(), id); };
      const float penalty = parameters_.repetition_penalty;
      if (in(prompt_) + in(output_) > 0) logit = logit > 0 ? logit / penalty : logit * penalty;
      if (in(output_) > 0) {
        logit -= parameters_.presence_penalty + parameters_.frequency_penalty * static_cast<float>(in(output_));
      }
    }
  }

  int32_t choose(const std::vector<float>& logits) const {
    const float largest = *std::max_element(logits.begin(), logits.end());
    if (parameters_.temperature == 0) {
      return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
    }
    std::vector<float> weights(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) weights[i] = std::exp((logits[i] - largest) / parameters_.temperature);

    std::vector<float> sorted = logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    if (parameters_.top_k > 0 && static_cast<size_t>(parameters_.top_k) < sorted.size()) {
      for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] < sorted[static_cast<size_t>(parameters_.top_k) - 1]) weights[i] = 0;
      }
    }
    if (parameters_.top_p < 1) {
      std::vector<size_t> order(weights.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });
      const double wanted = static_cast<double>(parameters_.top_p) * total(weights);
      double sum = 0;
      for (const size_t i : order) {
        const bool kept = sum < wanted;
        sum += static_cast<double>(weights[i]);
        if (!kept) weights[i] = 0;
      }
    }
    for (float& weight : weights) {
      if (weight < parameters_.min_p) weight = 0;
    }
    const double target = uniform_at(parameters_.seed, output_.size()) * total(weights);
    double sum = 0;
    int32_t last = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] == 0) continue;
      last = static_cast<int32_t>(i);
      sum += static_cast<double>(weights[i]);
      if (sum > target) break;
    }
    return last;
  }

  static double total(const std::vector<float>& weights) {
    double sum = 0;
    for (const float weight : weights) sum += static_cast<double>(weight);
    return sum;
  }

  SamplingParameters parameters_;
  std::vector<int32_t> prompt_, output_;
};

std::vector<float> random_logits(std::mt19937_64& rng, size_t vocab, bool many_ties) {
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = many_ties ? std::round(normal(rng)) : normal(rng);
  return logits;
}

template <typename T>
T one_of(std::mt19937_64& rng, std::initializer_list<T> values) {
  return *(values.begin() +
           std::uniform_int_distribution<ptrdiff_t>(0, static_cast<ptrdiff_t>(values.size()) - 1)(rng));
}

SamplingParameters random_parameters(std::mt19937_64& rng) {
  SamplingParameters p;
  p.temperature = one_of(rng, {0.0F, 0.3F, 0.8F, 1.0F, 2.5F});
  p.top_p = one_of(rng, {1.0F, 0.95F, 0.5F, 0.05F, 1e-6F});
  p.top_k = one_of(rng, {0, 1, 2, 7, 40, 5000});
  p.min_p = one_of(rng, {0.0F, 0.02F, 0.5F});
  p.repetition_penalty = one_of(rng, {1.0F, 1.3F, 0.7F});
  p.presence_penalty = one_of(rng, {0.0F, 0.9F, -0.5F});
  p.frequency_penalty = one_of(rng, {0.0F, 0.4F, -0.2F});
  if (rng() % 2 == 0) p.logit_bias = {{3, 2.5F}, {11, -100.0F}};
  p.seed = rng();
  return p;
}

std::map<int32_t, double> frequencies(const SamplingParameters& parameters, const std::vector<float>& logits,
                                      int draws) {
  std::map<int32_t, double> counts;
  Sampler sampler(parameters, {});
  for (int i = 0; i < draws; ++i) {
    std::vector<float> row = logits;
    counts[sampler.sample(row, nullptr)] += 1.0 / draws;
  }
  return counts;
}

}  // namespace

TEST_CASE("random numbers are Philox4x32-10 of (seed, position)") {
  // Known-answer vectors published with Random123: counter 0, key 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
  const uint64_t bits = (uint64_t{0xe169c58d} << 32) | 0x6627e8d5;
  CHECK(uniform_at(0, 0) == static_cast<double>(bits >> 11) * 0x1.0p-53);
  CHECK(uniform_at(1, 0) != uniform_at(0, 0));
  CHECK(uniform_at(0, 1) != uniform_at(0, 0));
  CHECK(uniform_at(uint64_t{1} << 32, 0) != uniform_at(1, 0));

  double sum = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    const double u = uniform_at(42, i);
    REQUIRE(u >= 0.0);
    REQUIRE(u < 1.0);
    sum += u;
  }
  CHECK(sum / 20000 == doctest::Approx(0.5).epsilon(0.01));
}

TEST_CASE("equals the plain sampler for random parameters, logits and histories") {
  std::mt19937_64 rng(7);
  for (int round = 0; round < test::volume(400); ++round) {
    const SamplingParameters parameters = random_parameters(rng);
    const size_t vocab = one_of<size_t>(rng, {13, 100, 3000});
    std::vector<int32_t> prompt(rng() % 10);
    for (int32_t& id : prompt) id = static_cast<int32_t>(rng() % vocab);
    Sampler fast(parameters, prompt);
    PlainSampler plain(parameters, prompt);
    for (int step = 0; step < 12; ++step) {
      std::vector<float> logits = random_logits(rng, vocab, round % 2 == 0);
      const int32_t expected = plain.sample(logits);
      REQUIRE(fast.sample(logits, nullptr) == expected);
    }
  }
}

TEST_CASE("greedy takes the lowest of equal maxima, after bias and penalties") {
  SamplingParameters parameters;
  parameters.temperature = 0;
  std::vector<float> logits = {1, 5, 5, 2};
  CHECK(Sampler(parameters, {}).sample(logits, nullptr) == 1);

  parameters.logit_bias = {{3, 4.0F}};
  logits = {1, 5, 5, 2};
  CHECK(Sampler(parameters, {}).sample(logits, nullptr) == 3);

  parameters.logit_bias.clear();
  parameters.repetition_penalty = 2.0F;
  logits = {1, 5, 4, 2};
  CHECK(Sampler(parameters, std::vector<int32_t>{1}).sample(logits, nullptr) == 2);
  logits = {-1, -1.5F, -3, -4};
  CHECK(Sampler(parameters, std::vector<int32_t>{0}).sample(logits, nullptr) == 1);  // -1 becomes -2
}

TEST_CASE("presence and frequency penalties count generated tokens only") {
  SamplingParameters parameters;
  parameters.temperature = 0;
  parameters.frequency_penalty = 1.0F;
  Sampler sampler(parameters, std::vector<int32_t>{0, 0, 0, 0});
  std::vector<int32_t> tokens;
  for (int i = 0; i < 5; ++i) {
    std::vector<float> logits = {2.5F, 1.0F, -9.0F};
    tokens.push_back(sampler.sample(logits, nullptr));
  }
  CHECK(tokens == std::vector<int32_t>{0, 0, 1, 0, 1});  // 2.5, 1.5, then .5 < 1; 1 at 0 after its turn, .5 again; ...
}

TEST_CASE("filters keep what they say") {
  SamplingParameters parameters;
  parameters.temperature = 1;
  const std::vector<float> logits = {std::log(0.4F), std::log(0.3F), std::log(0.2F), std::log(0.1F)};
  const auto support = [&](const SamplingParameters& p) {
    std::vector<int32_t> ids;
    for (const auto& [id, share] : frequencies(p, logits, 2000)) ids.push_back(id);
    return ids;
  };
  parameters.top_p = 0.5F;  // 0.4 is not enough: the crossing token stays
  CHECK(support(parameters) == std::vector<int32_t>{0, 1});
  parameters.top_p = 0.95F;
  parameters.min_p = 0.4F;  // 0.2 / 0.4 stays, 0.1 / 0.4 goes
  CHECK(support(parameters) == std::vector<int32_t>{0, 1, 2});
  parameters = {};
  parameters.top_k = 2;
  CHECK(support(parameters) == std::vector<int32_t>{0, 1});

  // top_k keeps ties.
  Sampler sampler(parameters, {});
  std::map<int32_t, int> seen;
  for (int i = 0; i < 500; ++i) {
    std::vector<float> row = {1, 3, 2, 2, 2};
    ++seen[sampler.sample(row, nullptr)];
  }
  CHECK(seen.size() == 4);
  CHECK(seen.count(0) == 0);
}

TEST_CASE("the distribution is the model's: chi-square over 16 tokens, with temperature") {
  std::mt19937_64 rng(3);
  const std::vector<float> logits = random_logits(rng, 16, false);
  SamplingParameters parameters;
  parameters.temperature = 2.0F;
  parameters.seed = 5;
  constexpr int kDraws = 50000;
  auto shares = frequencies(parameters, logits, kDraws);
  double normalizer = 0;
  for (const float logit : logits) normalizer += std::exp(static_cast<double>(logit) / 2.0);
  double chi_square = 0;
  for (int32_t id = 0; id < 16; ++id) {
    const double expected = std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) / 2.0) / normalizer;
    chi_square += kDraws * (shares[id] - expected) * (shares[id] - expected) / expected;
  }
  CHECK(chi_square < 37.7);  // 15 degrees of freedom, p = 0.001; the seed is fixed
}

TEST_CASE("the token at a position depends on the seed and the position alone") {
  SamplingParameters parameters;
  parameters.seed = 99;
  const std::vector<float> logits(50, 0.0F);
  Sampler first(parameters, {});
  Sampler second(parameters, std::vector<int32_t>{4, 5});
  for (int i = 0; i < 20; ++i) {
    std::vector<float> a = logits, b = logits;
    CHECK(first.sample(a, nullptr) == second.sample(b, nullptr));
  }
}

TEST_CASE("logprobs are the model's own, before bias and penalties") {
  SamplingParameters parameters;
  parameters.temperature = 0;
  parameters.logprobs = 2;
  parameters.logit_bias = {{2, 10.0F}};
  std::vector<float> logits = {std::log(0.5F), std::log(0.25F), std::log(0.125F), std::log(0.125F)};
  TokenLogprobs logprobs;
  CHECK(Sampler(parameters, {}).sample(logits, &logprobs) == 2);
  CHECK(logprobs.token == 2);
  CHECK(logprobs.logprob == doctest::Approx(std::log(0.125)));
  REQUIRE(logprobs.top.size() == 2);
  CHECK(logprobs.top[0].first == 0);
  CHECK(logprobs.top[0].second == doctest::Approx(std::log(0.5)));
  CHECK(logprobs.top[1].first == 1);
}

TEST_CASE("greedy finds the first maximum, and one entry that is no number, wherever they stand") {
  SamplingParameters parameters;
  parameters.temperature = 0;
  for (const size_t vocab : {1, 15, 16, 17, 31, 32, 50}) {
    for (size_t at = 0; at < vocab; ++at) {
      std::vector<float> logits(vocab, -std::numeric_limits<float>::infinity());
      for (size_t i = at; i < vocab; i += 7) logits[i] = -3.0F;
      CHECK(Sampler(parameters, {}).sample(logits, nullptr) == static_cast<int32_t>(at));
      logits[at] = std::numeric_limits<float>::quiet_NaN();
      CHECK_THROWS_AS(Sampler(parameters, {}).sample(logits, nullptr), Error);
    }
  }
}

TEST_CASE("best_logits says what a choice depends on: the rest may be anything below it") {
  std::mt19937_64 rng(17);
  std::uniform_real_distribution<float> below(-50.0F, 0.0F);
  int depending = 0;
  for (int round = 0; round < 400; ++round) {
    SamplingParameters parameters = random_parameters(rng);
    if (round % 4 != 0) {
      parameters.repetition_penalty = 1.0F;
      parameters.presence_penalty = parameters.frequency_penalty = 0.0F;
      parameters.logit_bias.clear();
    }
    Sampler whole(parameters, {});
    Sampler some(parameters, {});
    for (int token = 0; token < 5; ++token) {
      std::vector<float> logits = random_logits(rng, 300, round % 2 == 0);
      std::vector<float> estimated = logits;
      const auto best = static_cast<size_t>(some.best_logits());
      if (best > 0) {
        ++depending;
        std::vector<float> sorted = logits;
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        const float least = sorted[best - 1];
        for (float& logit : estimated) {
          if (logit < least) logit = least - 1e-3F + below(rng);
        }
      }
      CHECK(some.sample(estimated, nullptr) == whole.sample(logits, nullptr));
    }
  }
  CHECK(depending > 400);
}

TEST_CASE("best_logits: greedy one, top_k so many, every one where anything else looks at them") {
  const auto best = [](const std::function<void(SamplingParameters&)>& change) {
    SamplingParameters parameters;
    change(parameters);
    return Sampler(parameters, std::vector<int32_t>{1, 2}).best_logits();
  };
  CHECK(best([](SamplingParameters&) {}) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0; }) == 1);
  CHECK(best([](SamplingParameters& p) { p.top_k = 20; }) == 20);
  CHECK(best([](SamplingParameters& p) { p.top_k = 64; }) == 64);
  CHECK(best([](SamplingParameters& p) { p.top_k = 65; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.top_p = 0.5F; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.min_p = 0.5F; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0, p.logprobs = 1; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0, p.repetition_penalty = 1.1F; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0, p.presence_penalty = 0.1F; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0, p.frequency_penalty = -0.1F; }) == 0);
  CHECK(best([](SamplingParameters& p) { p.temperature = 0, p.logit_bias = {{3, 1.0F}}; }) == 0);
}

TEST_CASE("rows without a choice are inference errors; masked tokens are never taken") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  SamplingParameters parameters;
  for (const float temperature : {0.0F, 1.0F}) {
    parameters.temperature = temperature;
    for (std::vector<float> bad :
         {std::vector<float>{1, nan, 2}, {infinity, 1, 2}, {-infinity, -infinity, -infinity}}) {
      CHECK_THROWS_AS(Sampler(parameters, {}).sample(bad, nullptr), Error);
    }
    Sampler sampler(parameters, {});
    for (int i = 0; i < 50; ++i) {
      std::vector<float> masked = {-infinity, 1, -infinity, 1};
      CHECK(sampler.sample(masked, nullptr) % 2 == 1);
    }
  }
  parameters.temperature = 1e-30F;  // must not overflow
  std::vector<float> logits = {1, 80, 2};
  CHECK(Sampler(parameters, {}).sample(logits, nullptr) == 1);
}

// Not a test of time: prints what one token costs over a vocabulary of 151,936 when EXPERT_TIMES is set.
TEST_CASE("times") {
  if (std::getenv("EXPERT_TIMES") == nullptr) return;
  std::mt19937_64 rng(1);
  const std::vector<float> logits = random_logits(rng, 151936, false);
  for (const auto& [name, temperature, top_k, top_p, min_p] :
       std::vector<std::tuple<const char*, float, int32_t, float, float>>{
           {"greedy", 0.0F, 0, 1.0F, 0.0F},
           {"temperature", 0.7F, 0, 1.0F, 0.0F},
           {"top_k 20", 0.7F, 20, 1.0F, 0.0F},
           {"top_p 0.9", 0.7F, 0, 0.9F, 0.0F},
           {"k 50, p 0.9, min_p", 0.7F, 50, 0.9F, 0.05F}}) {
    SamplingParameters parameters;
    parameters.temperature = temperature;
    parameters.top_k = top_k;
    parameters.top_p = top_p;
    parameters.min_p = min_p;
    Sampler sampler(parameters, {});
    std::vector<float> row;
    std::chrono::nanoseconds spent{0};
    for (int i = 0; i < 100; ++i) {
      row = logits;
      const auto start = std::chrono::steady_clock::now();
      sampler.sample(row, nullptr);
      spent += std::chrono::steady_clock::now() - start;
    }
    MESSAGE(name << ": " << static_cast<double>(spent.count()) / 100 / 1000 << " us");
  }
}
