#include "packages/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "core/utf8.h"
#include "packages/registry.h"
#include "packages/semver.h"

namespace expert {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStagingPrefix = ".staging-";

std::string absolute_path(const std::string& path) {
  std::error_code error;
  std::string absolute = fs::absolute(path, error).lexically_normal().string();
  while (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
  return error ? path : absolute;
}

void write_package(const Package& package, const std::string& folder) {
  create_directories(folder);
  std::vector<std::string> folders = {folder};
  for (const PackageFile& item : package.files()) {
    const std::string path = join_path(folder, item.name);
    const std::string parent = fs::path(path).parent_path().string();
    if (parent != folder && std::find(folders.begin(), folders.end(), parent) == folders.end()) {
      create_directories(parent);
      folders.push_back(parent);
    }
    write_new_file(path, *package.file(item.name));
  }
  for (const std::string& written : folders) sync_directory(written);
}

// Puts `staged` at `target` in one step. What was at `target` ends up at `staged`.
void swap_into_place(const std::string& staged, const std::string& target) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(target, error))) {
    if (std::rename(staged.c_str(), target.c_str()) == 0) return;
  } else if (::renameat2(AT_FDCWD, staged.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    return;
  } else if (errno == EINVAL || errno == ENOSYS) {  // a file system that cannot exchange: two steps instead of one
    const std::string old = staged + "-old";
    if (std::rename(target.c_str(), old.c_str()) == 0 && std::rename(staged.c_str(), target.c_str()) == 0) return;
  }
  fail(ErrorCode::load, "{}: cannot be put in place: {}", target, std::generic_category().message(errno));
}

uint64_t weight_bytes(const TensorSet& tensors) {
  uint64_t total = 0;
  for (const auto& file : tensors.files()) total += file->file() == nullptr ? 0 : file->file()->size();
  return total;
}

InstalledExpert record_of(const Package& package, const std::string& name, const std::string& folder) {
  InstalledExpert expert;
  expert.name = name;
  expert.version = package.version();
  expert.base_model = package.has_manifest() ? last_segment(package.manifest().base_models.front().name)
                                             : last_segment(package.adapter_base_name());
  expert.kinds = package.kinds();
  if (package.has_manifest()) expert.capabilities = package.manifest().capabilities;
  expert.size_bytes = package.size_bytes();
  expert.path = folder;
  expert.installed_at = utc_now();
  expert.content_hash = package.content_hash();
  expert.files_hash = package.files_hash();
  return expert;
}

std::string installable_name(const Package& package) {
  try {
    return canonical_name(package.name());
  } catch (const Error& error) {
    throw Error(ErrorCode::manifest, error.what(), "rename the folder, or give it a manifest.json with a name");
  }
}

void require_signature_or_leave(const Package& package, const InstallOptions& options) {
  if (options.skip_verify) return;
  const bool is_signed = package.file("signature.sig") != nullptr;
  throw Error(
      ErrorCode::signature,
      fmt::format("{}: {}", package.path(), is_signed ? "the signature cannot be checked yet" : "unsigned package"),
      "install it with --skip-verify if you trust where it comes from; it is recorded as not verified");
}

}  // namespace

std::string default_home() {
  if (const char* home = std::getenv("EXPERT_HOME"); home != nullptr && *home != '\0') return home;
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return join_path(home, ".expert");
  throw Error(ErrorCode::invalid_request, "no folder for experts: neither EXPERT_HOME nor HOME is set",
              "set EXPERT_HOME");
}

ExpertSpec ExpertSpec::parse(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t begin = std::min(text.find_first_not_of(kBlank), text.size());
  text = text.substr(begin, text.find_last_not_of(kBlank) + 1 - begin);
  const size_t at = std::min(text.find('@'), text.size());
  ExpertSpec spec;
  try {
    spec.name = canonical_name(text.substr(0, at));
    if (at < text.size()) spec.version = Version::parse(text.substr(at + 1)).str();
  } catch (const Error& error) {
    throw Error(ErrorCode::invalid_request, error.what(), "name an expert as \"sql\" or \"sql@0.3.0\"");
  }
  return spec;
}

// Everything that changes the store happens while one of these lives: it holds the lock, has removed what crashed
// processes left, and knows the registry as it is on disk.
class Store::Transaction {
 public:
  explicit Transaction(const Store& store, bool ignore_broken_registry = false) : store_(store) {
    if (!unicode::is_utf8(store.home_)) {
      throw Error(ErrorCode::invalid_request, fmt::format("{}: the registry holds only paths that are UTF-8", store.home_),
                  "name another home folder (EXPERT_HOME)");
    }
    create_directories(experts_folder());
    lock();
    try {
      remove_leftovers();
      registry = load(ignore_broken_registry);
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
  }
  ~Transaction() {
    try {
      remove_leftovers();
    } catch (...) {
      // The next transaction tries again.
    }
    ::close(descriptor_);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  std::string experts_folder() const { return join_path(store_.home_, "experts"); }
  std::string folder_of(const std::string& name, const std::string& version) const {
    return join_path(join_path(experts_folder(), name), version);
  }
  // In the same file system as the experts, so that a rename moves it into place.
  std::string new_staging() const {
    static std::atomic<uint64_t> counter{0};
    return join_path(experts_folder(), fmt::format("{}{}-{}", kStagingPrefix, ::getpid(), counter++));
  }
  void save() const { registry.save(store_.registry_path(), store_.home_); }

  Registry registry;

 private:
  void lock() {
    const std::string path = join_path(store_.home_, ".lock");
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor_ < 0) fail(ErrorCode::load, "{}: cannot lock: {}", path, std::generic_category().message(errno));
    while (::flock(descriptor_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      ::close(descriptor_);
      fail(ErrorCode::load, "{}: cannot lock: {}", path, std::generic_category().message(error));
    }
  }

  // Under the lock no other process stages anything, so whatever is there was abandoned.
  void remove_leftovers() const {
    std::error_code error;
    for (const std::string& name : list_directory(experts_folder())) {
      if (name.starts_with(kStagingPrefix)) fs::remove_all(join_path(experts_folder(), name), error);
    }
  }

  Registry load(bool ignore_broken) const {
    try {
      return Registry::load(store_.registry_path());
    } catch (const Error&) {
      if (!ignore_broken) throw;
      return {};
    }
  }

  const Store& store_;
  int descriptor_ = -1;
};

Store::Store(std::string home)
    : home_(absolute_path(home)), file_(std::make_shared<RegistryFile>(registry_path())) {}

std::string Store::registry_path() const { return join_path(home_, "expert-registry.json"); }
std::string Store::cache_directory() const { return join_path(home_, "cache"); }

InstalledExpert Store::install(const std::string& source, const InstallOptions& options) {
  const Package package = Package::open(source);
  require_signature_or_leave(package, options);
  const std::string name = installable_name(package);
  Transaction change(*this);
  const std::string target = change.folder_of(name, package.version());
  InstalledExpert expert = record_of(package, name, target);
  expert.source = absolute_path(source);
  if (const InstalledExpert* known = change.registry.find({name, expert.version})) {
    if (known->files_hash == expert.files_hash && is_intact(*known)) return *known;
    if (known->files_hash != expert.files_hash && !options.force) {
      throw Error(ErrorCode::invalid_request,
                  fmt::format("{}@{} is installed with other content", name, expert.version),
                  "uninstall it first, raise the version, or force the installation");
    }
  }
  const std::string staging = change.new_staging();
  write_package(package, staging);
  create_directories(fs::path(target).parent_path().string());
  swap_into_place(staging, target);
  sync_directory(fs::path(target).parent_path().string());
  change.registry.put(expert);
  change.save();
  return expert;
}

bool Store::is_intact(const InstalledExpert& expert) const {
  try {
    return Package::open_installed(expert.path, expert.name, expert.version).files_hash() == expert.files_hash;
  } catch (const Error&) {
    return false;
  }
}

Package Store::open(const InstalledExpert& expert) const {
  Package package = Package::open_installed(expert.path, expert.name, expert.version);
  require_installed(expert, package);
  return package;
}

Package Store::open(const InstalledExpert& expert, const HashMemo& memo) const {
  Package package = Package::open_installed(expert.path, expert.name, expert.version, &memo);
  if (package.content_hash_is_known()) require_installed(expert, package);
  return package;
}

void Store::require_installed(const InstalledExpert& expert, const Package& package) {
  if (expert.content_hash.empty() || package.content_hash() == expert.content_hash) return;
  throw Error(ErrorCode::signature,
              fmt::format("{}@{}: the installed files are not what was installed", expert.name, expert.version),
              "install it again");
}

void Store::uninstall(std::string_view text) {
  const ExpertSpec spec = ExpertSpec::parse(text);
  Transaction change(*this);
  const std::vector<InstalledExpert> removed = change.registry.remove(spec);
  if (removed.empty()) fail(ErrorCode::invalid_request, "{} is not installed", text);
  change.save();
  for (const InstalledExpert& expert : removed) {
    const std::string folder = change.folder_of(expert.name, expert.version);
    // Out of the way in one step; the transaction removes what is staged.
    if (std::rename(folder.c_str(), change.new_staging().c_str()) != 0 && errno != ENOENT) {
      fail(ErrorCode::load, "{}: cannot remove: {}", folder, std::generic_category().message(errno));
    }
    std::error_code not_empty;
    fs::remove(fs::path(folder).parent_path(), not_empty);
  }
}

std::shared_ptr<const Registry> Store::registry() const { return file_->read(); }

std::vector<InstalledExpert> Store::list() const { return registry()->experts; }

std::optional<InstalledExpert> Store::find(std::string_view text) const {
  const std::shared_ptr<const Registry> installed = registry();
  const InstalledExpert* expert = installed->find(ExpertSpec::parse(text));
  return expert == nullptr ? std::nullopt : std::optional(*expert);
}

InstalledModel Store::add_model(const std::string& directory, std::string_view name) {
  const std::string path = absolute_path(directory);
  if (!unicode::is_utf8(path)) {
    throw Error(ErrorCode::invalid_request, fmt::format("{}: the registry holds only paths that are UTF-8", path),
                "rename the folder, or give its path to each run: --model takes any");
  }
  const TensorSet tensors = TensorSet::open(path);
  if (!file_exists(join_path(path, "config.json"))) fail(ErrorCode::load, "{}: config.json is missing", path);
  InstalledModel model;
  model.name = name.empty() ? base_name_of(path) : std::string(name);
  model.path = path;
  if (model.name.empty() || model.name.find_first_of("/\\\n") != std::string::npos || model.name.size() > 200 ||
      !unicode::is_utf8(model.name)) {
    fail(ErrorCode::invalid_request, "\"{}\" cannot name a model", model.name.substr(0, 200));
  }
  model.size_bytes = weight_bytes(tensors);
  model.source = "local";
  model.installed_at = utc_now();
  Transaction change(*this);
  if (const InstalledModel* known = change.registry.find_model(model.name)) {
    if (known->path == path && known->size_bytes == model.size_bytes) return *known;
    if (known->path != path) {
      throw Error(ErrorCode::invalid_request,
                  fmt::format("a model named {} is registered at {}", known->name, known->path),
                  "remove it first, or give the new one another name");
    }
    std::erase_if(change.registry.models, [&](const auto& other) { return other.name == model.name; });
  }
  std::vector<InstalledModel>& models = change.registry.models;
  models.insert(std::upper_bound(models.begin(), models.end(), model,
                                 [](const auto& a, const auto& b) { return a.name < b.name; }),
                model);
  if (change.registry.default_model.empty()) change.registry.default_model = model.name;
  change.save();
  return model;
}

void Store::remove_model(std::string_view name) {
  Transaction change(*this);
  Registry& registry = change.registry;
  if (std::erase_if(registry.models, [&](const auto& model) { return model.name == name; }) == 0) {
    fail(ErrorCode::invalid_request, "no model named {} is registered", name);
  }
  if (registry.default_model == name)
    registry.default_model = registry.models.empty() ? "" : registry.models.front().name;
  change.save();
}

std::vector<InstalledModel> Store::models() const { return Registry::load(registry_path()).models; }

std::optional<InstalledModel> Store::find_model(std::string_view name) const {
  Registry registry = Registry::load(registry_path());
  const InstalledModel* model = registry.find_model(name);
  return model == nullptr ? std::nullopt : std::optional(*model);
}

std::optional<InstalledModel> Store::default_model() const {
  Registry registry = Registry::load(registry_path());
  const InstalledModel* model = registry.find_model(registry.default_model);
  return model == nullptr ? std::nullopt : std::optional(*model);
}

void Store::set_default_model(std::string_view name) {
  Transaction change(*this);
  if (change.registry.find_model(name) == nullptr) {
    fail(ErrorCode::invalid_request, "no model named {} is registered", name);
  }
  change.registry.default_model = name;
  change.save();
}

void Store::record_fingerprint(std::string_view model_name, std::string_view sha256) {
  Transaction change(*this);
  InstalledModel* model = change.registry.find_model(model_name);
  if (model == nullptr || model->sha256 == sha256) return;
  model->sha256 = sha256;
  change.save();
}

void Store::rebuild() {
  Transaction change(*this, true);
  Registry rebuilt{.experts = {}, .models = change.registry.models, .default_model = change.registry.default_model};
  for (const std::string& name : list_directory(change.experts_folder())) {
    const std::string folder = join_path(change.experts_folder(), name);
    if (!is_canonical_name(name) || !directory_exists(folder)) continue;
    for (const std::string& version : list_directory(folder)) {
      const std::optional<InstalledExpert> expert = read_installed(name, version, join_path(folder, version));
      if (!expert) continue;
      const InstalledExpert* known = change.registry.find({name, version});
      rebuilt.put(known != nullptr && known->files_hash == expert->files_hash ? *known : *expert);
    }
  }
  change.registry = std::move(rebuilt);
  change.save();
}

// Nothing when the folder holds no expert of this name and version.
std::optional<InstalledExpert> Store::read_installed(const std::string& name, const std::string& version,
                                                     const std::string& folder) const {
  try {
    const Package package = Package::open_installed(folder, name, version);
    if (package.name() != name || package.version() != version || !Version::valid(version)) return std::nullopt;
    InstalledExpert expert = record_of(package, name, folder);
    expert.source = "rebuild";
    return expert;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace expert
