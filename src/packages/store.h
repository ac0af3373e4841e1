// The experts and base models installed under $EXPERT_HOME (default ~/.expert):
//   expert-registry.json, experts/<name>/<version>/, cache/
// Safe to use from several processes: every change happens under a lock file, in a staging folder that is renamed into
// place, and the registry is replaced as a whole. A crash leaves only staging folders, removed by the next change.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "packages/package.h"

namespace expert {

class RegistryFile;
struct Registry;

// $EXPERT_HOME, else $HOME/.expert; ErrorCode::invalid_request when neither is set.
std::string default_home();

struct InstalledExpert {
  std::string name;     // canonical
  std::string version;  // semver
  std::string base_model;
  std::vector<std::string> kinds;
  std::vector<std::string> capabilities;
  uint64_t size_bytes = 0;
  std::string path;  // absolute folder
  std::string source;
  std::string installed_at;  // RFC 3339, UTC
  std::string content_hash;  // Package::content_hash()
  std::string files_hash;    // Package::files_hash()
  bool verified = false;
  std::string publisher;  // "" when unsigned
};

struct InstalledModel {
  std::string name;
  std::string path;
  std::string sha256;  // base_fingerprint(), "" until it was asked for
  uint64_t size_bytes = 0;
  std::string source;
  std::string installed_at;
};

// "sql", "expert-sql", "sql@0.3.0".
struct ExpertSpec {
  std::string name;                                // canonical
  std::string version;                             // "" = any
  static ExpertSpec parse(std::string_view text);  // ErrorCode::invalid_request
};

struct InstallOptions {
  bool skip_verify = false;  // take an unsigned package, recorded as verified: false
  bool force = false;        // replace an installed name@version whose content differs
};

class Store {
 public:
  // Touches nothing on disk until something is read or changed.
  explicit Store(std::string home);

  const std::string& home() const { return home_; }
  std::string cache_directory() const;  // for base_fingerprint()

  // `source`: a `.expert` file or a directory. ErrorCode::signature for an unsigned package without skip_verify.
  // Installing the same content again changes nothing; other content under the same name@version needs `force`.
  InstalledExpert install(const std::string& source, const InstallOptions& options = {});
  // "sql", "expert-sql": all versions; "sql@0.3.0": one. ErrorCode::invalid_request when it is not installed.
  void uninstall(std::string_view spec);
  std::vector<InstalledExpert> list() const;  // by name, newest version first
  // The same document for as long as nobody changes what is installed.
  std::shared_ptr<const Registry> registry() const;
  // The newest version, releases before pre-releases, or the one named after '@'.
  std::optional<InstalledExpert> find(std::string_view spec) const;

  // Its package as installed, under its installed name and version. Files that are not what was installed are
  // ErrorCode::signature.
  Package open(const InstalledExpert& expert) const;
  // The same with a memo of content hashes. Whether the files are what was installed stays open where their hash is not
  // known yet: whoever uses them calls require_installed() before their first use.
  Package open(const InstalledExpert& expert, const HashMemo& memo) const;
  static void require_installed(const InstalledExpert& expert, const Package& package);

  // Records a Hugging Face directory under `name` (default: its last segment). The first one becomes the default.
  InstalledModel add_model(const std::string& directory, std::string_view name = {});
  void remove_model(std::string_view name);  // forgets it; the directory stays
  std::vector<InstalledModel> models() const;
  std::optional<InstalledModel> find_model(std::string_view name) const;
  std::optional<InstalledModel> default_model() const;
  void set_default_model(std::string_view name);
  void record_fingerprint(std::string_view model_name, std::string_view sha256);

  // Replaces the registry by what the folders under experts/ hold; base models are kept when they can still be read.
  void rebuild();

 private:
  class Transaction;
  std::string registry_path() const;
  bool is_intact(const InstalledExpert& expert) const;
  std::optional<InstalledExpert> read_installed(const std::string& name, const std::string& version,
                                                const std::string& folder) const;
  std::string home_;
  std::shared_ptr<RegistryFile> file_;  // of this store and its copies
};

}  // namespace expert
