// Many requests at once, each with its own experts: what each of them waits and what all of them get done, beside the
// same requests on the base alone.
#pragma once

#include <functional>

#include "engine/engine.h"

namespace expert::capi {

struct LoadBenchOptions {
  EngineOptions engine;
  int64_t requests = 0;
  int64_t experts_per_request = 1;
  int64_t experts = 0;  // distinct random ones; 0: as many as the requests name together, 64 at most
  int64_t rank = 16;
  int64_t prompt_tokens = 128;
  int64_t decode_tokens = 64;
  int64_t repeat = 1;
};

// {model, weights, kv, isa, threads, requests, experts_per_request, experts, prompt_tokens, decode_tokens,
//  base: {tokens_per_second, wall_ms, queue_ms: {p50, p90, p99}, first_token_ms, token_ms, total_ms},
//  with_experts: {…}, share_of_base}
Json run_load_bench(const LoadBenchOptions& options, const std::function<void(double fraction)>& progress);

}  // namespace expert::capi
