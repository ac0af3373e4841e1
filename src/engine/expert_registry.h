// The experts of one engine: what names mean, and how a package becomes an expert in memory. Those that were loaded by
// hand stay; those that requests name come and go (expert_cache.h). Thread-safe.
//
// An expert that was never seen is read by whoever names it first, on that thread, so that a bad one is refused at once.
// From then on its card is known, and a request that names it waits for its weights without keeping anybody.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter_set_cache.h"
#include "engine/engine.h"
#include "engine/expert_cache.h"
#include "engine/expert_loader.h"
#include "engine/telemetry.h"
#include "io/hash_memo.h"
#include "models/model.h"
#include "packages/package.h"
#include "packages/store.h"
#include "router/router.h"

namespace expert {

struct RegistryOptions {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
  std::filesystem::path model_directory;
  std::vector<std::string> base_names;
  std::filesystem::path bundled_experts;  // empty: none
  std::optional<Store> store;
  std::string cache_directory;  // for what is costly to compute from an expert and this base; empty: none
  int max_experts = kDefaultMaxExperts;  // of one set
  ExpertCacheOptions memory;
  std::shared_ptr<Counters> counters;
  std::function<void()> changed;                          // a claim may be ready, or have failed; on any thread
  std::function<void(const std::string& name)> on_read;  // before an expert is read again; for tests, may be empty
};

class ExpertRegistry {
 public:
  explicit ExpertRegistry(RegistryOptions options);

  // `source` as in Engine::load_expert.
  std::shared_ptr<const LoadedExpert> load(const std::string& source);
  void unload(const std::shared_ptr<const LoadedExpert>& handle);
  std::vector<std::shared_ptr<const LoadedExpert>> loaded() const;

  // What a request names: a handle, a name (loaded: the latest first; installed; bundled) or a path. Throws
  // invalid_request (unknown), closed (unloaded), and what loading throws; MustRead where reading is refused.
  enum class Reading : uint8_t { allowed, refused };
  struct MustRead {};  // a package, or the manifests that the router chooses by
  ExpertNeed resolve(const ExpertUse& use, Reading reading);
  // A claim on these experts, in memory already or on their way. Throws out_of_memory for what never fits, closed, and
  // what forming their set throws. `asked`: since when the request waits. Null for no experts.
  std::shared_ptr<ExpertLease> claim(std::vector<ExpertNeed> needs, ExpertLease::Clock::time_point asked,
                                     ExpertCache::Turn turn = ExpertCache::Turn::in_line);

  // Whatever the router may choose from: loaded, installed and bundled experts that fit the base and say what they are
  // for. One per name, the one resolve() would give. Throws MustRead.
  using Candidates = std::shared_ptr<const std::vector<RouteCandidate>>;
  Candidates candidates(Reading reading) const;

  // Ends every claim that is not ready; later ones throw closed. Waits for what is being read now.
  void close() { loader_.close(); }

  ExpertCache& cache() noexcept { return cache_; }
  uint64_t installed_bytes() const;  // of the packages on disk; 0 where the store cannot be read

 private:
  class Handle;
  struct Bundled {
    std::filesystem::path path;
    Manifest manifest;
  };
  // What a name means: where it lies, and its card where that is known.
  struct Found {
    ExpertSource source;
    ExpertCardPtr card;    // null: never read
    std::string identity;  // of the files; empty: the store knows their content
  };

  ExpertPtr find_loaded(const std::string& name) const;
  std::optional<Found> locate(const std::string& source);
  std::optional<Found> by_name(const std::string& name);
  Found at_path(const std::string& path);
  ExpertCardPtr known(const std::string& key) const;
  ExpertCardPtr remember(const std::string& identity, ExpertCardPtr card);

  Package open(const ExpertSource& source) const;
  // Reads an expert for the first time. By request: where there is no room for it, its card alone.
  ExpertCardPtr read_new(const Found& found, ExpertCache::Use use, ExpertPtr* in_memory);
  ExpertPtr read_again(const ExpertCardPtr& card, const ExpertSource& source) const;
  std::shared_ptr<const Adapter> pack(const Package& package) const;
  std::shared_ptr<ExpertCard> describe(const Package& package) const;
  std::shared_ptr<const AdapterSet> form(const ExpertLease& lease) const;
  BaseMatch match_base(const Package& package) const;
  std::vector<std::string> check_tokenizer(const Package& package) const;  // warnings
  const std::vector<Bundled>& bundled() const;
  std::vector<RouteCandidate> read_candidates(const Registry* installed) const;
  bool fits(const Manifest& manifest) const;

  RegistryOptions options_;
  mutable AdapterSetCache sets_;
  mutable HashMemo hashes_;
  std::mutex reading_mutex_;  // one first reading at a time: equal bytes are packed once
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Handle>> loaded_;      // in order of loading
  uint64_t loads_and_unloads_ = 0;
  std::map<std::string, ExpertCardPtr> cards_;       // of everything that was read
  std::map<std::string, std::string> key_of_path_;   // file identity -> key
  // The candidates, and what they were collected from: these stay the same as long as that does.
  struct Collected {
    uint64_t loads_and_unloads = 0;
    std::shared_ptr<const Registry> installed;
    Candidates candidates;
  };
  mutable Collected collected_;
  mutable std::once_flag bundled_once_;
  mutable std::vector<Bundled> bundled_;
  ExpertCache cache_;
  ExpertLoader loader_;
};

}  // namespace expert
