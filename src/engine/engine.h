// The engine: one resident base model, loaded experts, one thread that steps a batch. Every method is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "engine/generation.h"
#include "engine/request.h"

namespace expert {

struct EngineOptions {
  std::string base_model;        // a directory, a registered name, or empty: configured default, else the bundled model
  std::string device = "auto";   // auto | cpu | reference | cuda[:N]
  std::string weights = "auto";  // auto | f32 | bf16 | int8 | int4 | int4-all
  std::string kv = "auto";   // auto | f32 | bf16 | int8; auto: f32 over f32 weights, else bf16
  int64_t context_size = 0;  // 0: the model's own
  Json rope_scaling;         // null: the configuration's own
  int threads = 0;
  uint64_t memory_limit = 0;    // bytes for weights + experts + KV; 0: no limit of our own
  uint64_t prefix_cache_bytes = UINT64_MAX;  // of the KV cache, for what no request uses; 0: no prefix cache
  uint64_t expert_cache_bytes = 0;  // of host memory, for experts that requests name; 0: a quarter of what is free
  int32_t max_queue = 256;      // requests that wait or run; one more is refused
  int32_t max_batch = 16;       // requests that run at once
  int32_t max_experts = 10;     // of one request
  int32_t stream_queue = 1024;  // chunks a stream holds for a reader who falls behind; one more ends the request
  std::filesystem::path home;   // empty: $EXPERT_HOME, else ~/.expert
  bool use_weight_cache = true;
  bool head_screen = true;  // a copy of a large head that makes tokens faster; not with a memory_limit that it would fill
  std::function<void(double fraction)> progress;  // loading, 0…1, on the calling thread
};

// A loaded expert. Keeps its bytes until the last request that uses it has ended.
class LoadedExpert {
 public:
  virtual ~LoadedExpert() = default;
  virtual const std::string& name() const noexcept = 0;
  virtual const std::string& version() const noexcept = 0;
  virtual const std::vector<std::string>& kinds() const noexcept = 0;
  virtual uint64_t size_bytes() const noexcept = 0;
  virtual const Json& manifest() const noexcept = 0;                      // null without one
  virtual const std::vector<std::string>& warnings() const noexcept = 0;  // e.g. a match with the base that is unproven
  virtual bool unloaded() const noexcept = 0;
};

class Engine {
 public:
  // Loads the base model. Throws load, incompatible, unsupported, out_of_memory, invalid_request.
  static std::shared_ptr<Engine> open(const EngineOptions& options);
  virtual ~Engine() = default;  // closes

  // `source`: a .expert file, a directory, or the name of an installed expert. Loading the same bytes again returns
  // an equal expert; another one of the same name coexists, and by name the latest wins.
  virtual std::shared_ptr<const LoadedExpert> load_expert(const std::string& source) = 0;
  virtual void unload(const std::shared_ptr<const LoadedExpert>& expert) = 0;  // a second call is harmless
  virtual std::vector<std::shared_ptr<const LoadedExpert>> experts() const = 0;

  // Forms the set these experts make, so that a request that names them starts with it; returns its hash, hex. Empty
  // for the base alone. Throws as submit().
  virtual std::string compose(std::span<const ExpertUse> experts) = 0;

  // Checks everything that can be checked before it runs; throws invalid_request, load, incompatible, closed,
  // out_of_memory (queue full). Null only for a request that is only_if_quick.
  virtual std::shared_ptr<Generation> submit(Request request) = 0;
  virtual Json route(
      const Request& request) const = 0;  // {experts:[{name,weight,score,reason}], parameters, confidence, explanation}

  virtual std::vector<int32_t> tokenize(std::string_view text, bool special_in_text, bool add_special) const = 0;
  virtual std::string detokenize(std::span<const int32_t> ids, bool skip_special) const = 0;
  virtual std::string apply_chat_template(const Json& messages, const Json& tools, bool add_generation_prompt,
                                          const Json& variables) const = 0;
  virtual int32_t vocab_size() const noexcept = 0;
  virtual int32_t hidden_size() const noexcept = 0;
  // [ids, vocab_size], row-major. Runs beside other requests.
  virtual std::vector<float> logits(std::span<const int32_t> ids, std::span<const ExpertUse> experts) = 0;
  // [hidden_size]; pooling: "last" | "mean".
  virtual std::vector<float> embed(std::string_view text, const std::string& pooling, bool normalize,
                                   std::span<const ExpertUse> experts) = 0;

  virtual Json info()
      const = 0;  // model, architecture, fingerprint, weights, kv, isa, threads, context_size, warnings
  virtual Json stats() const = 0;  // counters, histograms, memory per tier, KV blocks
  virtual std::string metrics() const = 0;  // the same as Prometheus text
  // Ends running requests as cancelled, or waits for them; later calls throw closed; twice is harmless.
  virtual void close(bool drain) = 0;
};

}  // namespace expert
