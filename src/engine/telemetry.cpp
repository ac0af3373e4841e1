#include "engine/telemetry.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace expert {
namespace {

constexpr std::array<double, Histogram::kBounds> kMilliseconds = {
    0.05, 0.1, 0.25, 0.5,  1,    2,    3,    5,    7.5,   10,    15,    20,
    30,   50,  75,   100,  150,  250,  500,  1000, 2500,  10000, 30000, 120000};
constexpr std::array<double, Histogram::kBounds> kCounts = {1,  2,  3,   4,   5,   6,   8,   10,  12,  16,  20,   24,
                                                            32, 48, 64,  96,  128, 192, 256, 384, 512, 768, 1024, 4096};

double rounded_to_micro(double value) { return std::round(value * 1000) / 1000; }

struct Metric {
  const char* name;
  const char* type;
  const char* help;
  const char* pointer;  // into stats()
};

constexpr Metric kMetrics[] = {
    {"expert_requests_total", "counter", "Requests accepted.", "/requests/submitted"},
    {"expert_requests_refused_total", "counter", "Requests refused at submit.", "/requests/refused"},
    {"expert_requests_running", "gauge", "Requests in the batch.", "/requests/running"},
    {"expert_requests_waiting", "gauge", "Requests in the queue.", "/requests/waiting"},
    {"expert_prompt_tokens_total", "counter", "Prompt tokens of ended requests.", "/tokens/prompt"},
    {"expert_completion_tokens_total", "counter", "Tokens generated.", "/tokens/completion"},
    {"expert_steps_total", "counter", "Steps computed.", "/steps/count"},
    {"expert_steps_failed_total", "counter", "Steps that failed.", "/steps/failed"},
    {"expert_step_rows_total", "counter", "Tokens that went through the model.", "/steps/rows"},
    {"expert_preemptions_total", "counter", "Requests sent back to the queue.", "/schedule/preemptions"},
    {"expert_recomputed_tokens_total", "counter", "Tokens computed again after a preemption.",
     "/schedule/recomputed_tokens"},
    {"expert_kv_blocks", "gauge", "KV blocks of the pool.", "/kv/blocks_total"},
    {"expert_kv_blocks_used", "gauge", "KV blocks in use by requests.", "/kv/blocks_used"},
    {"expert_kv_blocks_kept", "gauge", "KV blocks kept for their content.", "/kv/blocks_kept"},
    {"expert_prefix_lookups_total", "counter", "Requests that looked for their prefix.", "/prefix_cache/lookups"},
    {"expert_prefix_hits_total", "counter", "Requests that found a part of it.", "/prefix_cache/hits"},
    {"expert_prefix_cached_tokens_total", "counter", "Prompt tokens found.", "/prefix_cache/cached_tokens"},
    {"expert_prefix_evictions_total", "counter", "KV blocks forgotten to be filled anew.", "/prefix_cache/evictions"},
    {"expert_experts_waiting", "gauge", "Requests that wait for room for their experts.", "/experts/waiting"},
    {"expert_host_experts", "gauge", "Experts in host memory.", "/experts/tiers/host/experts"},
    {"expert_host_experts_pinned", "gauge", "Experts in host memory that requests use.", "/experts/tiers/host/pinned"},
    {"expert_host_experts_loading", "gauge", "Experts on their way to host memory.", "/experts/tiers/host/loading"},
    {"expert_host_bytes", "gauge", "Experts in host memory, or on their way.", "/experts/tiers/host/bytes"},
    {"expert_host_budget_bytes", "gauge", "What those that requests name may take.", "/experts/tiers/host/budget_bytes"},
    {"expert_host_hits_total", "counter", "Experts of requests found in host memory.", "/experts/tiers/host/hits"},
    {"expert_host_evictions_total", "counter", "Experts dropped from host memory.", "/experts/tiers/host/evictions"},
    {"expert_host_evicted_bytes_total", "counter", "Bytes of these.", "/experts/tiers/host/evicted_bytes"},
    {"expert_disk_bytes", "gauge", "Installed packages.", "/experts/tiers/disk/bytes"},
    {"expert_disk_loads_total", "counter", "Experts read from disk.", "/experts/tiers/disk/loads"},
    {"expert_disk_loaded_bytes_total", "counter", "Bytes of these in memory.", "/experts/tiers/disk/loaded_bytes"},
    {"expert_disk_failures_total", "counter", "Experts that could not be read again.", "/experts/tiers/disk/failures"},
    {"expert_memory_weights_bytes", "gauge", "Base weights.", "/memory/weights_bytes"},
    {"expert_memory_experts_bytes", "gauge", "Experts in host memory.", "/memory/experts_bytes"},
    {"expert_memory_kv_bytes", "gauge", "KV cache.", "/memory/kv_bytes"},
};

void write_header(std::string& out, const char* name, const char* type, const char* help) {
  fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

}  // namespace

double Histogram::bound(size_t i) const noexcept {
  return unit_ == Unit::milliseconds ? kMilliseconds[i] : kCounts[i];
}

void Histogram::add(double value) noexcept {
  size_t i = 0;
  while (i < kBounds && value > bound(i)) ++i;
  counts_[i].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
  double largest = largest_.load(std::memory_order_relaxed);
  while (value > largest && !largest_.compare_exchange_weak(largest, value, std::memory_order_relaxed)) {
  }
}

std::array<uint64_t, Histogram::kBounds + 1> Histogram::read() const noexcept {
  std::array<uint64_t, kBounds + 1> counts{};
  for (size_t i = 0; i <= kBounds; ++i) counts[i] = counts_[i].load(std::memory_order_relaxed);
  return counts;
}

// The bound below which `fraction` of the values lie; never more than the largest value.
double Histogram::percentile(const std::array<uint64_t, kBounds + 1>& counts, uint64_t total, double fraction) const {
  const auto rank = static_cast<uint64_t>(std::ceil(fraction * static_cast<double>(total)));
  const double largest = largest_.load(std::memory_order_relaxed);
  uint64_t below = 0;
  for (size_t i = 0; i < kBounds; ++i) {
    below += counts[i];
    if (below >= rank) return std::min(bound(i), largest);
  }
  return largest;
}

Json Histogram::summary() const {
  const auto counts = read();
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  if (total == 0) return {{"count", 0}};
  const double sum = sum_.load(std::memory_order_relaxed);
  return {{"count", total},
          {"sum", rounded_to_micro(sum)},
          {"mean", rounded_to_micro(sum / static_cast<double>(total))},
          {"p50", rounded_to_micro(percentile(counts, total, 0.50))},
          {"p90", rounded_to_micro(percentile(counts, total, 0.90))},
          {"p99", rounded_to_micro(percentile(counts, total, 0.99))},
          {"max", rounded_to_micro(largest_.load(std::memory_order_relaxed))}};
}

void Histogram::write(std::string& out, const char* name, const char* help) const {
  const auto counts = read();
  write_header(out, name, "histogram", help);
  uint64_t below = 0;
  for (size_t i = 0; i < kBounds; ++i) {
    below += counts[i];
    fmt::format_to(std::back_inserter(out), "{}_bucket{{le=\"{}\"}} {}\n", name, bound(i), below);
  }
  below += counts[kBounds];
  fmt::format_to(std::back_inserter(out), "{}_bucket{{le=\"+Inf\"}} {}\n{}_sum {}\n{}_count {}\n", name, below, name,
                 sum_.load(std::memory_order_relaxed), name, below);
}

Json Counters::histograms() const {
  return {{"queue_ms", queue_ms.summary()},
          {"prefill_ms", prefill_ms.summary()},
          {"first_token_ms", first_token_ms.summary()},
          {"token_ms", token_ms.summary()},
          {"total_ms", total_ms.summary()},
          {"experts_ms", experts_ms.summary()},
          {"expert_load_ms", expert_load_ms.summary()},
          {"step_ms", step_ms.summary()},
          {"step_rows", step_rows.summary()},
          {"step_requests", step_requests.summary()}};
}

std::string prometheus_text(const Json& stats, const Counters& counters) {
  std::string out;
  for (const Metric& metric : kMetrics) {
    const Json::json_pointer at(metric.pointer);
    if (!stats.contains(at)) continue;
    write_header(out, metric.name, metric.type, metric.help);
    fmt::format_to(std::back_inserter(out), "{} {}\n", metric.name, stats.at(at).get<uint64_t>());
  }
  write_header(out, "expert_requests_finished_total", "counter", "Requests ended, by reason.");
  for (const auto& [reason, count] : stats.at("requests").at("finished").items()) {
    fmt::format_to(std::back_inserter(out), "expert_requests_finished_total{{reason=\"{}\"}} {}\n", reason,
                   count.get<uint64_t>());
  }
  counters.queue_ms.write(out, "expert_queue_milliseconds", "From submit to the batch.");
  counters.prefill_ms.write(out, "expert_prefill_milliseconds", "From the batch to the first token.");
  counters.first_token_ms.write(out, "expert_first_token_milliseconds", "From submit to the first token.");
  counters.token_ms.write(out, "expert_token_milliseconds", "Between the tokens of an answer, the mean of each.");
  counters.total_ms.write(out, "expert_request_milliseconds", "From submit to the end.");
  counters.experts_ms.write(out, "expert_experts_milliseconds", "To have the experts of a request in memory.");
  counters.expert_load_ms.write(out, "expert_load_milliseconds", "Of one expert, from disk to memory.");
  counters.step_ms.write(out, "expert_step_milliseconds", "Of one step.");
  counters.step_rows.write(out, "expert_step_rows", "Tokens of one step.");
  counters.step_requests.write(out, "expert_step_requests", "Requests of one step.");
  return out;
}

}  // namespace expert
