// expert-registry.json: what is installed, as one document that is read and replaced as a whole.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/json.h"
#include "packages/store.h"

namespace expert {

struct Registry {
  std::vector<InstalledExpert> experts;  // by name, newest version first
  std::vector<InstalledModel> models;    // by name
  std::string default_model;             // "" = none

  // An absent file is an empty registry. Anything that is no registry is ErrorCode::load, naming the rebuild.
  static Registry load(const std::string& path);
  void save(const std::string& path, const std::string& home) const;

  const InstalledExpert* find(const ExpertSpec& spec) const;  // exact version, or the newest release, or the newest
  void put(InstalledExpert expert);
  // Returns what was removed.
  std::vector<InstalledExpert> remove(const ExpertSpec& spec);
  InstalledModel* find_model(std::string_view name);
};

// The registry as the disk has it, parsed again only when its file is another one than last time. Thread-safe.
class RegistryFile {
 public:
  explicit RegistryFile(std::string path) : path_(std::move(path)) {}
  std::shared_ptr<const Registry> read();  // throws as Registry::load()

 private:
  const std::string path_;
  std::mutex mutex_;
  std::optional<FileIdentity> identity_;  // of what was read last
  std::shared_ptr<const Registry> last_;
};

std::string utc_now();  // RFC 3339

}  // namespace expert
