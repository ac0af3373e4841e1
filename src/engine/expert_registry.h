// The experts of one engine: loaded by their user, or on demand for a request and then kept while there is room.
// Thread-safe; loading runs on the caller's thread, beside the engine's.
#pragma once

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter.h"
#include "adapters/adapter_set_cache.h"
#include "engine/engine.h"
#include "engine/expert_cache.h"
#include "models/model.h"
#include "packages/hash_memo.h"
#include "packages/package.h"
#include "packages/store.h"
#include "router/router.h"

namespace expert {

// One expert in memory. Immutable; requests hold it while they run.
struct ExpertData {
  std::shared_ptr<Backend> backend;  // outlives the adapter's memory
  std::shared_ptr<const Adapter> adapter;
  std::string name;
  std::string version;
  std::vector<std::string> kinds;
  std::optional<Manifest> manifest;
  Json manifest_json;           // null without one
  std::string prompt_template;  // of the manifest's entry for this base; may be empty
  std::vector<std::string> warnings;
  std::string key;  // content hash and name
  mutable std::atomic<bool> unloaded{false};  // no set may be kept for it
};
using ExpertPtr = std::shared_ptr<const ExpertData>;

struct RegistryOptions {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
  std::filesystem::path model_directory;
  std::vector<std::string> base_names;
  std::filesystem::path bundled_experts;  // empty: none
  std::optional<Store> store;
  std::string cache_directory;  // for what is costly to compute from an expert and this base; empty: none
  uint64_t memory_limit = 0;   // for experts; 0: none
  uint64_t host_budget = 0;    // beyond it, those loaded on demand are dropped from memory; 0: none
};

class ExpertRegistry {
 public:
  explicit ExpertRegistry(RegistryOptions options);

  // `source` as in Engine::load_expert.
  std::shared_ptr<const LoadedExpert> load(const std::string& source);
  void unload(const std::shared_ptr<const LoadedExpert>& handle);
  std::vector<std::shared_ptr<const LoadedExpert>> loaded() const;

  // What a request names: a handle, a name (loaded: the latest first; installed; bundled) or a path. Throws
  // invalid_request (unknown), closed (unloaded), and what loading throws.
  ExpertPtr resolve(const ExpertUse& use);

  // Whatever the router may choose from: loaded, installed and bundled experts that fit the base and say what they are
  // for. One per name, the one resolve() would give.
  std::vector<RouteCandidate> candidates() const;

  // Sets formed lately, none of an expert that was unloaded or dropped for room.
  AdapterSetCache& sets() const noexcept { return sets_; }

  uint64_t bytes() const;  // of all experts in memory
  size_t in_memory() const;
  uint64_t installed_bytes() const;  // of the packages on disk; 0 where the store cannot be read
  const ExpertCache& cache() const noexcept { return cache_; }

 private:
  class Handle;
  struct Bundled {
    std::filesystem::path path;
    Manifest manifest;
  };

  ExpertPtr find_loaded(const std::string& name) const;
  ExpertPtr by_name(const std::string& name);
  ExpertPtr from_source(const std::string& source);
  ExpertPtr from_path(const std::string& path);
  // `installed`: what the package must turn out to be before it is used; null: anything.
  ExpertPtr from_package(Package package, const InstalledExpert* installed = nullptr);
  std::shared_ptr<ExpertData> describe(const Package& package) const;
  ExpertPtr known(const std::string& key) const;
  void keep(const ExpertPtr& expert);
  void forget_sets(const ExpertPtr& expert) const;
  bool drop_one();  // false: every expert in memory is held by somebody
  void make_room(uint64_t needed);
  BaseMatch match_base(const Package& package) const;
  std::vector<std::string> check_tokenizer(const Package& package) const;  // warnings
  const std::vector<Bundled>& bundled() const;
  bool fits(const Manifest& manifest) const;

  RegistryOptions options_;
  mutable AdapterSetCache sets_;
  HashMemo hashes_;
  std::mutex load_mutex_;  // one load at a time: equal bytes are packed once
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Handle>> loaded_;                    // in order of loading
  ExpertCache cache_;                                              // loaded on demand
  std::map<std::string, std::weak_ptr<const ExpertData>> by_key_;  // everything in memory
  std::map<std::string, std::string> key_of_path_;                 // file identity -> key
  mutable std::once_flag bundled_once_;
  mutable std::vector<Bundled> bundled_;
};

}  // namespace expert
