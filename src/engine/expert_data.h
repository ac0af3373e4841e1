// One expert as an engine knows it: its card, which stays, and its weights, which come and go.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter.h"
#include "packages/manifest.h"
#include "packages/store.h"

namespace expert {

// All that a request needs of an expert before it runs. Made when the expert is first read.
struct ExpertCard {
  std::string key;  // content hash and name
  ContentHash hash{};
  std::string name;
  std::string version;
  std::vector<std::string> kinds;
  std::optional<Manifest> manifest;
  Json manifest_json;           // null without one
  std::string prompt_template;  // of the manifest's entry for this base; may be empty
  std::vector<std::string> warnings;
  int64_t soft_prompt_rows = 0;
  mutable std::atomic<uint64_t> bytes{0};  // of its weights in memory; an estimate until they were there once
};
using ExpertCardPtr = std::shared_ptr<const ExpertCard>;

// One expert in memory. Immutable.
struct ExpertData {
  std::shared_ptr<Backend> backend;  // outlives the adapter's memory
  std::shared_ptr<const Adapter> adapter;
  ExpertCardPtr card;
};
using ExpertPtr = std::shared_ptr<const ExpertData>;

// Where an expert is read from.
struct ExpertSource {
  std::string path;
  std::optional<InstalledExpert> installed;  // what the package must turn out to be; none: whatever the card says
};

// One expert of a request.
struct ExpertNeed {
  ExpertCardPtr card;
  float weight = 1.0F;
  ExpertSource source;
  ExpertPtr held;  // by its user's handle: in memory, whatever the disk says; null: named only
  bool read_for_it = false;  // nobody had named it before
};

}  // namespace expert
