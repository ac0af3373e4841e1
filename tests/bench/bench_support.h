// What the bench programs share: time, the memory bandwidth of this machine, and matrices of Qwen3-0.6B's shapes.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "capi/bandwidth.h"

namespace expert::bench {

using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int64_t in, out;
};
constexpr Shape kLayer[] = {{"q", 1024, 2048},    {"k", 1024, 1024},  {"v", 1024, 1024},   {"o", 2048, 1024},
                            {"gate", 1024, 3072}, {"up", 1024, 3072}, {"down", 3072, 1024}};
constexpr Shape kHead = {"head", 1024, 151936};

inline double seconds_of(const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Best {
  double best, median;
};

inline Best of_repeats(int repeat, const std::function<double()>& rate) {
  std::vector<double> rates;
  for (int i = 0; i < repeat; ++i) rates.push_back(rate());
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
}

// GB/s of the best number of streams, and of each.
struct Bandwidth {
  Best best{0, 0};
  std::vector<std::pair<size_t, double>> by_streams;
};

inline Bandwidth read_bandwidth(int threads, int repeat) {
  const capi::BandwidthProbe probe(threads);
  Bandwidth result;
  for (const size_t streams : capi::BandwidthProbe::kStreams) {
    std::vector<double> rates = probe.passes(streams, repeat);
    std::sort(rates.begin(), rates.end());
    const Best rate{rates.back() / 1e9, rates[rates.size() / 2] / 1e9};
    result.by_streams.emplace_back(streams, rate.best);
    if (rate.best > result.best.best) result.best = rate;
  }
  return result;
}

inline MatrixPtr random_matrix(Backend& backend, const Shape& shape, WeightFormat format) {
  static const std::vector<float> noise = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0F, 0.03F);
    std::vector<float> values(1 << 20);
    for (float& value : values) value = normal(random);
    return values;
  }();
  MatrixSource source;
  source.rows = shape.out;
  source.cols = shape.in;
  source.read = [&](int64_t first, int64_t count, void* to) {
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(static_cast<float*>(to) + r * shape.in, noise.data() + (first + r) * 61 % ((1 << 20) - 4096),
                  static_cast<size_t>(shape.in) * sizeof(float));
    }
  };
  return backend.pack(source, format);
}

inline int option(int argc, char** argv, const char* name, int fallback) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return std::stoi(argv[i + 1]);
  }
  return fallback;
}

inline std::string text_option(int argc, char** argv, const char* name) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return {};
}

}  // namespace expert::bench
