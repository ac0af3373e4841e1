// What an engine counts while it works. Written by its threads, read by anyone at any time; nothing here locks or
// allocates, so counting costs a step a few atomic additions.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "core/json.h"

namespace expert {

// How often values fell below each bound. One step between bounds is a factor of 1.25 to 2.5, so a percentile read
// from it is right to about that.
class Histogram {
 public:
  enum class Unit : uint8_t { milliseconds, count };
  static constexpr size_t kBounds = 24;

  explicit Histogram(Unit unit) : unit_(unit) {}
  void add(double value) noexcept;

  // {count, sum, mean, p50, p90, p99, max}
  Json summary() const;
  // As Prometheus text: `name`_bucket{le="…"}, `name`_sum, `name`_count.
  void write(std::string& out, const char* name, const char* help) const;

 private:
  double bound(size_t i) const noexcept;
  double percentile(const std::array<uint64_t, kBounds + 1>& counts, uint64_t total, double fraction) const;
  std::array<uint64_t, kBounds + 1> read() const noexcept;

  Unit unit_;
  std::array<std::atomic<uint64_t>, kBounds + 1> counts_{};  // the last one: beyond every bound
  std::atomic<double> sum_{0};
  std::atomic<double> largest_{0};
};

// Totals of an engine.
struct Counters {
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> refused{0};       // at submit: bad arguments, a failed load, a full queue
  std::atomic<uint64_t> finished[5] = {};  // by FinishReason
  std::atomic<uint64_t> prompt_tokens{0};
  std::atomic<uint64_t> completion_tokens{0};

  using Unit = Histogram::Unit;
  Histogram queue_ms{Unit::milliseconds};        // from submit to the batch
  Histogram prefill_ms{Unit::milliseconds};      // from the batch to the first token
  Histogram first_token_ms{Unit::milliseconds};  // from submit
  Histogram token_ms{Unit::milliseconds};        // between the tokens of an answer, the mean of each
  Histogram total_ms{Unit::milliseconds};        // from submit to the end
  Histogram experts_ms{Unit::milliseconds};      // to have the experts of a request in memory
  Histogram expert_load_ms{Unit::milliseconds};  // of one expert, from disk to memory
  Histogram step_ms{Unit::milliseconds};
  Histogram step_rows{Unit::count};
  Histogram step_requests{Unit::count};

  // {"queue_ms": {count, …}, …}
  Json histograms() const;
};

// Prometheus text (exposition format 0.0.4) of an engine's stats() and histograms.
std::string prometheus_text(const Json& stats, const Counters& counters);

}  // namespace expert
