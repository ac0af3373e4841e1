// The host tier of experts: which of them are in memory, who may use them, and what is to be read from disk next.
//
// An expert is in memory because somebody loaded it by hand, because requests use it, or because it was used lately and
// there is room. Those that requests name share a budget; beyond it the one that was used longest ago goes, unless it is
// pinned. A request is given all its experts at once, or waits: so two requests never hold what the other one needs.
// Those that wait are served in the order of the waiting line (put_in_order), and while the first of them does not fit,
// nobody behind it is given anything; whoever has its experts goes on, ends, and makes room.
//
// Logic without threads or files of its own; thread-safe. Whoever loads asks next() what to do (expert_loader.h).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adapters/adapter_set_cache.h"
#include "engine/expert_lease.h"

namespace expert {

struct ExpertCacheOptions {
  uint64_t budget = 0;        // for those that requests name; 0: none
  uint64_t memory_limit = 0;  // for all experts together; 0: none
};

struct ExpertCacheStats {
  uint64_t hits = 0;       // experts of requests that were in memory
  uint64_t loads = 0;      // read from disk
  uint64_t failures = 0;   // could not be read again
  uint64_t evictions = 0;  // dropped for room
  uint64_t loaded_bytes = 0, evicted_bytes = 0;
  uint64_t bytes = 0;       // in memory now, or room made for one that is being read
  uint64_t used_bytes = 0;  // of these: what the budget counts
  uint64_t experts = 0;     // in memory now
  uint64_t pinned = 0;      // of these: used by requests that wait or run
  uint64_t loading = 0;     // to be read, their room is made
  uint64_t waiting = 0;     // requests that have no room yet
};

// What is to be done next: a set to form, or an expert to read.
struct ExpertWork {
  std::shared_ptr<ExpertLease> to_form;
  ExpertCardPtr card;
  ExpertSource source;
};

class ExpertCache {
 public:
  // `sets`: forgets those of an expert that leaves memory; may be null.
  explicit ExpertCache(const ExpertCacheOptions& options, AdapterSetCache* sets = nullptr)
      : options_(options), sets_(sets) {}

  // --- requests -----------------------------------------------------------------------------------------------------
  // A claim on these experts, of which none is named twice. With `to_form` set they are in memory: the caller forms the
  // set; otherwise that comes out of next(). Throws out_of_memory for what never fits, closed.
  struct Claim {
    std::shared_ptr<ExpertLease> lease;
    bool to_form = false;
  };
  enum class Turn : uint8_t { in_line, first };  // first: somebody waits for it in a call, outside the waiting line
  Claim claim(std::vector<ExpertNeed> needs, ExpertLease::Clock::time_point asked = {}, Turn turn = Turn::in_line);
  // Who of those in line goes first; whoever is not named stays behind.
  void put_in_order(std::span<ExpertLease* const> leases);

  // --- whoever loads --------------------------------------------------------------------------------------------------
  std::optional<ExpertWork> next();           // none: nothing can be done now
  std::optional<ExpertWork> wait_for_next();  // none: closed
  void formed(ExpertLease& lease, std::shared_ptr<const AdapterSet> set);
  void not_formed(ExpertLease& lease, const Error& error);
  void loaded(const ExpertPtr& expert);
  // Ends the requests that wanted it from there.
  void not_loaded(const ExpertWork& work, const Error& error);

  // --- experts read by whoever names them first, or loaded by hand ----------------------------------------------------
  enum class Use : uint8_t { by_request, by_hand };
  // Makes room for one that is about to be read; give_back() or add() ends that. False: there is none now. Throws
  // out_of_memory where waiting would not help.
  bool reserve(uint64_t bytes, Use use);
  void give_back(uint64_t bytes, Use use);
  // The expert was read, in room of `reserved` bytes. Gives the one that was there before, if any. Throws out_of_memory
  // for one loaded by hand that turned out not to fit; another one is not kept.
  ExpertPtr add(const ExpertPtr& expert, uint64_t reserved, Use use);
  // One that is in memory; null: it is not. By hand: it stays until drop_handle() was called as often.
  ExpertPtr find(const std::string& key, Use use);
  void drop_handle(const ExpertData& expert);

  // Ends every claim that is not ready, and next().
  void close();
  ExpertCacheStats stats() const;
  const ExpertCacheOptions& options() const noexcept { return options_; }

 private:
  friend class ExpertLease;
  class Change;
  struct Entry {
    ExpertCardPtr card;
    ExpertPtr data;       // null: still to be read
    ExpertSource source;  // from where
    uint64_t bytes = 0;
    uint64_t used = 0;     // when, counted in uses
    int32_t pins = 0;      // claims that were granted
    int32_t handles = 0;   // loaded by hand
    bool reading = false;  // being read now
    bool leaving = false;  // unloaded: goes with its last pin
    bool counts() const noexcept { return handles == 0 && !leaving; }  // against the budget
    bool evictable() const noexcept { return data && pins == 0 && counts(); }
  };
  using Entries = std::map<std::string, Entry>;

  void wait(ExpertLease& lease);
  void release(ExpertLease& lease);

  uint64_t used_bytes() const;
  uint64_t all_bytes() const;
  uint64_t held_bytes() const;
  uint64_t bytes_of(const ExpertLease& lease) const;
  std::optional<Error> why_never(uint64_t bytes) const;
  bool make_room(uint64_t bytes, Use use, Change& change);
  bool grant(ExpertLease& lease, Change& change);
  void grant_waiting(Change& change);
  void pin(ExpertLease& lease);
  void unpin(ExpertLease& lease, Change& change);
  bool begin_forming(ExpertLease& lease);
  bool end_forming(ExpertLease& lease, Change& change);
  void settle(ExpertLease& lease, const Error& error, Change& change);
  void send_back(ExpertLease& lease, Change& change);
  void remove(Entries::iterator entry, Change& change);
  std::vector<ExpertLease*> wanting(const std::string& key) const;
  std::optional<ExpertWork> next_locked();

  const ExpertCacheOptions options_;
  AdapterSetCache* const sets_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Entries entries_;                     // by key
  std::vector<ExpertLease*> waiting_;   // no room was made for them yet
  std::vector<ExpertLease*> granted_;   // from then to their release
  uint64_t reserved_[2] = {0, 0};       // bytes of what is being read by whoever named it first, by Use
  uint64_t arrivals_ = 0, uses_ = 0;
  bool closed_ = false;
  ExpertCacheStats counts_;
};

}  // namespace expert
