// What the bench programs share: time, the memory bandwidth of this machine, and matrices of Qwen3-0.6B's shapes.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"

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

inline void pin_to(int index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

// Sum of 64-bit words, a cache line from each of kStreams places in turn: one core gets more out of memory that way
// than from one place.
template <size_t kStreams>
uint64_t sum_words(const uint64_t* words, size_t count) {
  typedef uint64_t Vector __attribute__((vector_size(16)));
  const size_t length = count / kStreams / 8 * 8;
  Vector lane[kStreams][4] = {};
  for (size_t i = 0; i < length; i += 8) {
#pragma GCC unroll 8
    for (size_t s = 0; s < kStreams; ++s) {
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) lane[s][j] += *reinterpret_cast<const Vector*>(words + s * length + i + 2 * j);
    }
  }
  Vector sum = {};
  for (const auto& stream : lane) sum += stream[0] + stream[1] + stream[2] + stream[3];
  return sum[0] + sum[1];
}

inline uint64_t sum_streams(const uint64_t* words, size_t count, size_t streams) {
  switch (streams) {
    case 1:
      return sum_words<1>(words, count);
    case 2:
      return sum_words<2>(words, count);
    case 4:
      return sum_words<4>(words, count);
    default:
      return sum_words<8>(words, count);
  }
}

// Page-aligned words on huge pages where the system grants them.
inline std::span<uint64_t> map_words(size_t count) {
  constexpr size_t kHugePage = size_t{2} << 20;
  void* memory = std::aligned_alloc(kHugePage, (count * 8 + kHugePage - 1) / kHugePage * kHugePage);
  if (memory == nullptr) throw std::bad_alloc();
  madvise(memory, count * 8, MADV_HUGEPAGE);
  const std::span words(static_cast<uint64_t*>(memory), count);
  std::fill(words.begin(), words.end(), 1);
  return words;
}

// GB/s of reading `bytes` of memory with pinned threads, each its own part. Threads are fresh, so the caller stays
// unpinned.
inline Best read_bandwidth(size_t bytes, int threads, size_t streams, int repeat) {
  const std::span<uint64_t> words = map_words(bytes / 8);
  std::vector<double> rates(static_cast<size_t>(repeat));
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  Clock::time_point begin;
  std::barrier together(threads);
  const auto scan = [&](int t) {
    pin_to(t);
    const size_t part = words.size() / static_cast<size_t>(threads);
    for (int r = 0; r < repeat; ++r) {
      together.arrive_and_wait();
      if (t == 0) begin = Clock::now();
      sums[static_cast<size_t>(t) * 8] += sum_streams(words.data() + static_cast<size_t>(t) * part, part, streams);
      together.arrive_and_wait();
      if (t == 0) {
        rates[static_cast<size_t>(r)] =
            static_cast<double>(bytes) / 1e9 / std::chrono::duration<double>(Clock::now() - begin).count();
      }
    }
  };
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) workers.emplace_back(scan, t);
  for (std::thread& worker : workers) worker.join();
  std::free(words.data());
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
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
