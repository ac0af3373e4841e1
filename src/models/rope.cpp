#include "models/rope.h"

#include <algorithm>
#include <cmath>

namespace expert {
namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;
constexpr int64_t kFirstPositions = 1024;

// theta^(2i / dim) in F32, rounded once from F64.
std::vector<float> periods(const RopeConfig& config, int32_t dim) {
  const auto theta = static_cast<double>(static_cast<float>(config.theta));
  std::vector<float> result;
  for (int32_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(static_cast<float>(std::pow(theta, static_cast<double>(exponent))));
  }
  return result;
}

std::vector<float> default_frequencies(const RopeConfig& config, int32_t dim) {
  std::vector<float> inverse = periods(config, dim);
  for (float& value : inverse) value = 1.0F / value;
  return inverse;
}

std::vector<float> linear_frequencies(const RopeConfig& config, int32_t dim) {
  std::vector<float> inverse = default_frequencies(config, dim);
  for (float& value : inverse) value /= static_cast<float>(config.factor);
  return inverse;
}

// Short wavelengths stay, long ones are divided by the factor, those between are blended.
std::vector<float> llama3_frequencies(const RopeConfig& config, int32_t dim) {
  std::vector<float> inverse = default_frequencies(config, dim);
  const auto original = static_cast<double>(config.original_context);
  const auto longest = static_cast<float>(original / config.low_freq_factor);
  const auto shortest = static_cast<float>(original / config.high_freq_factor);
  const auto factor = static_cast<float>(config.factor);
  for (float& value : inverse) {
    const float wavelength = static_cast<float>(kTwoPi) / value;
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      value /= factor;
      continue;
    }
    const float blend = (static_cast<float>(original) / wavelength - static_cast<float>(config.low_freq_factor)) /
                        static_cast<float>(config.high_freq_factor - config.low_freq_factor);
    value = (1.0F - blend) * value / factor + blend * value;
  }
  return inverse;
}

// The pair that makes `rotations` full turns within the original context.
double pair_of_rotations(const RopeConfig& config, int32_t dim, double rotations) {
  const auto original = static_cast<double>(config.original_context);
  return dim * std::log(original / (rotations * kTwoPi)) / (2 * std::log(config.theta));
}

// Fast pairs are kept (extrapolation), slow pairs divided by the factor (interpolation), with a ramp between.
std::vector<float> yarn_frequencies(const RopeConfig& config, int32_t dim) {
  double low = pair_of_rotations(config, dim, config.beta_fast);
  double high = pair_of_rotations(config, dim, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;

  std::vector<float> inverse = periods(config, dim);
  for (size_t pair = 0; pair < inverse.size(); ++pair) {
    const float ramp =
        std::clamp((static_cast<float>(pair) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
    const float kept = 1.0F - ramp;
    const float extrapolated = 1.0F / inverse[pair];
    const float interpolated = 1.0F / (static_cast<float>(config.factor) * inverse[pair]);
    inverse[pair] = interpolated * (1.0F - kept) + extrapolated * kept;
  }
  return inverse;
}

double yarn_attention_factor(const RopeConfig& config) {
  if (config.attention_factor) return *config.attention_factor;
  const auto scale = [&](double mscale) {
    return config.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(config.factor) + 1.0;
  };
  if (config.mscale != 0 && config.mscale_all_dim != 0) return scale(config.mscale) / scale(config.mscale_all_dim);
  return scale(1.0);
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& config, int32_t head_dim) {
  if (config.type == "linear") return {linear_frequencies(config, head_dim), 1.0F};
  if (config.type == "llama3") return {llama3_frequencies(config, head_dim), 1.0F};
  if (config.type == "yarn") {
    return {yarn_frequencies(config, head_dim), static_cast<float>(yarn_attention_factor(config))};
  }
  return {default_frequencies(config, head_dim), 1.0F};
}

RopeCache::RopeCache(const RopeConfig& config, int32_t head_dim, int64_t context_size)
    : frequencies_(rope_frequencies(config, head_dim)), context_size_(context_size) {
  table_.rotary_dim = head_dim;
}

const RopeTable& RopeCache::covering(int64_t positions, Backend& backend) {
  if (positions > table_.cos.rows) {
    extend(std::min(context_size_, std::max({positions, 2 * table_.cos.rows, kFirstPositions})), backend);
  }
  return table_;
}

void RopeCache::extend(int64_t positions, Backend& backend) {
  const auto pairs = static_cast<int64_t>(frequencies_.inverse.size());
  std::vector<float> cosines(static_cast<size_t>(positions * pairs));
  std::vector<float> sines(cosines.size());
  size_t at = 0;
  for (int64_t position = 0; position < positions; ++position) {
    for (const float frequency : frequencies_.inverse) {
      const float angle = static_cast<float>(position) * frequency;
      cosines[at] = std::cos(angle) * frequencies_.attention_factor;
      sines[at] = std::sin(angle) * frequencies_.attention_factor;
      ++at;
    }
  }
  const auto uploaded = [&](const std::vector<float>& values) {
    Tensor tensor = backend.allocate(DType::f32, positions, pairs);
    backend.upload(tensor, values.data(), values.size() * sizeof(float));
    return tensor;
  };
  backend.synchronize();  // enqueued work may still read the old table
  table_.cos = uploaded(cosines);
  table_.sin = uploaded(sines);
}

}  // namespace expert
