#include "engine/expert_registry.h"

#include <algorithm>
#include <set>

#include "core/log.h"
#include "io/json.h"

namespace expert {
namespace {

namespace fs = std::filesystem;

bool looks_like_path(const std::string& source) {
  return source.find('/') != std::string::npos || source.ends_with(".expert");
}

// Anything at all: opening it says what is wrong with a FIFO or a device.
bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// "sql", "expert-sql@0.3.0" or a PEFT directory's own name.
bool is_called(const ExpertData& expert, std::string_view spec) {
  const size_t at = spec.find('@');
  const std::string_view name = spec.substr(0, at);
  if (at != std::string_view::npos && spec.substr(at + 1) != expert.version) return false;
  return name == expert.name || "expert-" + std::string(name) == expert.name;
}

// Names one state of an expert's files, without reading them.
std::string identity_of(const std::string& path) {
  std::string identity = fs::absolute(path).lexically_normal().string();
  const auto add = [&](const std::string& file) {
    if (!file_exists(file)) return;
    const FileIdentity id = File::open(file).identity();
    identity += fmt::format("|{}:{}:{}:{}:{}", id.device, id.inode, id.size, id.mtime_ns, id.ctime_ns);
  };
  if (file_exists(path)) {
    add(path);
  } else {
    for (const char* name : {"manifest.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}) {
      add(join_path(path, name));
    }
  }
  return identity;
}

ContentHash to_hash(const std::string& hex) {
  ContentHash hash{};
  for (size_t i = 0; i < hash.size() && 2 * i + 1 < hex.size(); ++i) {
    hash[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return hash;
}

uint64_t packed_estimate(const SafeTensors& tensors, WeightFormat format) {
  uint64_t elements = 0;
  for (const TensorEntry& entry : tensors.entries()) elements += entry.elements();
  return elements * (format == WeightFormat::bf16 ? 2 : 4);
}

}  // namespace

class ExpertRegistry::Handle final : public LoadedExpert {
 public:
  Handle(const ExpertRegistry* owner, ExpertPtr data) : owner_(owner), data_(std::move(data)) {}

  const std::string& name() const noexcept override { return data_->name; }
  const std::string& version() const noexcept override { return data_->version; }
  const std::vector<std::string>& kinds() const noexcept override { return data_->kinds; }
  uint64_t size_bytes() const noexcept override { return data_->adapter->size_bytes(); }
  const Json& manifest() const noexcept override { return data_->manifest_json; }
  const std::vector<std::string>& warnings() const noexcept override { return data_->warnings; }
  bool unloaded() const noexcept override { return unloaded_.load(); }

  const ExpertRegistry* owner() const noexcept { return owner_; }
  const ExpertPtr& data() const noexcept { return data_; }
  void mark_unloaded() noexcept { unloaded_.store(true); }

 private:
  const ExpertRegistry* owner_;
  ExpertPtr data_;
  std::atomic<bool> unloaded_{false};
};

ExpertRegistry::ExpertRegistry(RegistryOptions options)
    : options_(std::move(options)),
      hashes_(options_.cache_directory.empty() ? std::string() : join_path(options_.cache_directory, "packages")) {}

std::shared_ptr<const LoadedExpert> ExpertRegistry::load(const std::string& source) {
  if (source.empty()) fail(ErrorCode::invalid_request, "the source of an expert is empty");
  ExpertPtr data;
  {
    const std::lock_guard loading(load_mutex_);
    data = from_source(source);
  }
  if (!data) {
    throw Error(ErrorCode::load,
                fmt::format("{}: no such expert: neither a file nor a directory, and not installed", source),
                "give a .expert file, a directory, or a name that `expert-cli list` shows");
  }
  data->unloaded = false;
  auto handle = std::make_shared<Handle>(this, std::move(data));
  const std::lock_guard lock(mutex_);
  loaded_.push_back(handle);
  return handle;
}

void ExpertRegistry::unload(const std::shared_ptr<const LoadedExpert>& handle) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find(loaded_.begin(), loaded_.end(), handle);
  if (found == loaded_.end()) {
    if (handle && handle->unloaded()) return;
    fail(ErrorCode::invalid_request, "the expert was not loaded by this engine");
  }
  const ExpertPtr data = (*found)->data();
  (*found)->mark_unloaded();
  loaded_.erase(found);
  cache_.forget(data);
  forget_sets(data);
}

// A set that is being formed right now is forgotten by whoever forms it, who looks at `unloaded` afterwards.
void ExpertRegistry::forget_sets(const ExpertPtr& expert) const {
  expert->unloaded = true;
  sets_.forget(*expert->adapter);
}

std::vector<std::shared_ptr<const LoadedExpert>> ExpertRegistry::loaded() const {
  const std::lock_guard lock(mutex_);
  return {loaded_.begin(), loaded_.end()};
}

ExpertPtr ExpertRegistry::resolve(const ExpertUse& use) {
  if (use.expert) {
    const auto* handle = dynamic_cast<const Handle*>(use.expert.get());
    if (handle == nullptr || handle->owner() != this) {
      fail(ErrorCode::invalid_request, "expert {} was loaded by another engine", use.expert->name());
    }
    if (handle->unloaded()) fail(ErrorCode::closed, "expert {} was unloaded", handle->name());
    return handle->data();
  }
  if (use.name.empty()) fail(ErrorCode::invalid_request, "an expert without a name");
  if (ExpertPtr found = find_loaded(use.name)) {
    cache_.note_hit();
    return found;
  }

  const std::lock_guard loading(load_mutex_);
  const uint64_t loads = cache_.stats().loads;
  ExpertPtr data = from_source(use.name);
  if (data && cache_.stats().loads == loads) cache_.note_hit();
  if (!data) {
    throw Error(ErrorCode::invalid_request, fmt::format("unknown expert \"{}\"", use.name),
                "`expert-cli list` shows what is installed; a path to a package works too");
  }
  keep(data);
  return data;
}

ExpertPtr ExpertRegistry::find_loaded(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (auto handle = loaded_.rbegin(); handle != loaded_.rend(); ++handle) {
    if (is_called(*(*handle)->data(), name)) return (*handle)->data();
  }
  return nullptr;
}

// Null when nothing has this name.
ExpertPtr ExpertRegistry::from_source(const std::string& source) {
  if (!looks_like_path(source)) {
    if (ExpertPtr found = by_name(source)) return found;
  }
  return exists(source) ? from_path(source) : nullptr;
}

// Installed, then bundled.
ExpertPtr ExpertRegistry::by_name(const std::string& name) {
  std::optional<InstalledExpert> installed;
  try {
    if (options_.store) installed = options_.store->find(name);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_request) throw;  // not a name an installed expert can have
  }
  if (installed) {
    if (ExpertPtr found = known(installed->content_hash + "|" + installed->name)) return found;
    return from_package(options_.store->open(*installed, hashes_), &*installed);
  }
  for (const Bundled& candidate : bundled()) {
    ExpertData named;
    named.name = candidate.manifest.name;
    named.version = candidate.manifest.version;
    if (is_called(named, name)) return from_path(candidate.path.string());
  }
  return nullptr;
}

ExpertPtr ExpertRegistry::from_path(const std::string& path) {
  const std::string identity = identity_of(path);
  {
    const std::lock_guard lock(mutex_);
    const auto key = key_of_path_.find(identity);
    const auto found = key == key_of_path_.end() ? by_key_.end() : by_key_.find(key->second);
    if (found != by_key_.end()) {
      if (ExpertPtr expert = found->second.lock()) return expert;
    }
  }
  ExpertPtr expert = from_package(Package::open(path, {}, &hashes_));
  const std::lock_guard lock(mutex_);
  if (key_of_path_.size() > 4096) key_of_path_.clear();
  key_of_path_[identity] = expert->key;
  return expert;
}

ExpertPtr ExpertRegistry::known(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : found->second.lock();
}

// The tensors are packed while their hash is still being computed, where it is not known from an earlier reading.
ExpertPtr ExpertRegistry::from_package(Package package, const InstalledExpert* installed) {
  // Before known experts are asked: the tokenizer is not part of the content hash.
  std::vector<std::string> warnings = check_tokenizer(package);
  const auto key_of = [&] { return package.content_hash() + "|" + package.name(); };
  if (package.content_hash_is_known()) {
    if (ExpertPtr found = known(key_of())) return found;
  }
  const std::shared_ptr<ExpertData> expert = describe(package);
  expert->warnings.insert(expert->warnings.end(), warnings.begin(), warnings.end());

  const WeightFormat format = expert_format(options_.model->weight_format());
  make_room(packed_estimate(package.tensors(), format));
  Adapter::Source source;
  source.origin = package.path();
  source.config = &package.adapter_config();
  source.tensors = &package.tensors();
  source.late_hash = [&] { return to_hash(package.content_hash()); };
  cache_.note_load();
  const Model& model = *options_.model;
  const AdapterBase base{model.sites(),
                         *options_.backend,
                         format,
                         [&model] { return model.source_tensors(); },
                         [&model] { return model.fingerprint(); },
                         options_.cache_directory};
  expert->adapter = Adapter::load(source, base);
  if (installed != nullptr) Store::require_installed(*installed, package);
  package.remember(hashes_);
  expert->key = key_of();

  const std::lock_guard lock(mutex_);
  std::erase_if(by_key_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<const ExpertData>& slot = by_key_[expert->key];
  if (ExpertPtr found = slot.lock()) return found;  // the same bytes under another name
  slot = expert;
  return expert;
}

// All of an expert but its adapter and its key.
std::shared_ptr<ExpertData> ExpertRegistry::describe(const Package& package) const {
  const BaseMatch match = match_base(package);
  auto expert = std::make_shared<ExpertData>();
  expert->backend = options_.backend;
  expert->name = package.name();
  expert->version = package.version();
  expert->kinds = package.kinds();
  expert->manifest = package.optional_manifest();
  expert->warnings = match.warnings;
  if (!expert->manifest) return expert;
  expert->manifest_json = expert->manifest->raw;
  if (match.base_model < expert->manifest->base_models.size()) {
    expert->prompt_template = expert->manifest->base_models[match.base_model].prompt_template.value_or("");
  }
  const auto& tolerated = expert->manifest->warnings;
  expert->warnings.insert(expert->warnings.end(), tolerated.begin(), tolerated.end());
  if (expert->manifest->decoding.use_grammar) {
    expert->warnings.push_back(expert->name + " asks for a grammar; grammars are not applied yet");
  }
  return expert;
}

BaseMatch ExpertRegistry::match_base(const Package& package) const {
  BaseIdentity base;
  base.fingerprint = [this] { return options_.model->fingerprint(); };
  // A base has several names; the error for the first is the one to show.
  std::optional<Error> refused;
  std::optional<BaseMatch> by_shape;
  for (const std::string& name : options_.base_names) {
    base.name = name;
    try {
      BaseMatch match = package.match_base(base);
      if (package.has_manifest() || base_name_matches(package.adapter_base_name(), name)) return match;
      if (!by_shape) by_shape = std::move(match);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::incompatible) throw;
      if (!refused) refused = error;
    }
  }
  if (by_shape) return *by_shape;
  throw *refused;
}

std::vector<std::string> ExpertRegistry::check_tokenizer(const Package& package) const {
  const auto packaged = package.text("tokenizer.json");
  if (!packaged) return {};
  const std::string path = (options_.model_directory / "tokenizer.json").string();
  if (!file_exists(path)) {
    return {package.name() + " brings a tokenizer.json, the base has none to compare it with"};
  }
  const std::string own = read_text_file(path);
  if (own == *packaged) return {};
  if (!same_tokenizer(parse_json(*packaged, package.path() + ": tokenizer.json"), parse_json(own, path))) {
    throw Error(ErrorCode::incompatible,
                fmt::format("{}: its tokenizer.json differs from the base model's", package.path()),
                "use the base model the expert was made for");
  }
  return {};
}

void ExpertRegistry::keep(const ExpertPtr& expert) {
  expert->unloaded = false;
  cache_.keep(expert);
}

bool ExpertRegistry::drop_one() {
  const ExpertPtr dropped = cache_.drop_one();
  if (dropped) forget_sets(dropped);
  return dropped != nullptr;
}

// Drops experts that were loaded on demand, used longest ago first, until `needed` bytes fit.
void ExpertRegistry::make_room(uint64_t needed) {
  const auto over = [&](uint64_t budget) { return budget != 0 && bytes() + needed > budget; };
  while (over(options_.host_budget) && drop_one()) {
  }
  while (over(options_.memory_limit)) {
    if (drop_one()) continue;
    throw Error(ErrorCode::out_of_memory,
                fmt::format("the expert needs {} bytes; {} of the {} bytes left for experts by memory_limit are in use",
                            needed, bytes(), options_.memory_limit),
                "unload experts, wait for requests to end, or raise memory_limit");
  }
}

uint64_t ExpertRegistry::bytes() const {
  const std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  for (const auto& [key, weak] : by_key_) {
    if (const ExpertPtr expert = weak.lock()) sum += expert->adapter->size_bytes();
  }
  return sum;
}

size_t ExpertRegistry::in_memory() const {
  const std::lock_guard lock(mutex_);
  return static_cast<size_t>(
      std::count_if(by_key_.begin(), by_key_.end(), [](const auto& entry) { return !entry.second.expired(); }));
}

uint64_t ExpertRegistry::installed_bytes() const {
  uint64_t sum = 0;
  try {
    for (const InstalledExpert& installed : options_.store ? options_.store->list() : std::vector<InstalledExpert>{}) {
      sum += installed.size_bytes;
    }
  } catch (const Error&) {
    return 0;  // installing and listing say what is wrong with the store
  }
  return sum;
}

// Read once: nothing installs into this folder while we run.
const std::vector<ExpertRegistry::Bundled>& ExpertRegistry::bundled() const {
  std::call_once(bundled_once_, [this] {
    if (options_.bundled_experts.empty()) return;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(options_.bundled_experts, error)) {
      try {
        const std::string path = entry.path().string();
        const std::string manifest = join_path(path, "manifest.json");
        if (file_exists(manifest)) {
          bundled_.push_back({entry.path(), parse_manifest(read_text_file(manifest), manifest)});
        } else if (path.ends_with(".expert")) {
          bundled_.push_back({entry.path(), Package::open(path).manifest()});
        }
      } catch (const Error& failure) {
        log(LogLevel::warning, fmt::format("bundled expert left out: {}", failure.what()));
      }
    }
    std::sort(bundled_.begin(), bundled_.end(), [](const Bundled& a, const Bundled& b) { return a.path < b.path; });
  });
  return bundled_;
}

bool ExpertRegistry::fits(const Manifest& manifest) const {
  return std::any_of(manifest.base_models.begin(), manifest.base_models.end(), [&](const ManifestBaseModel& model) {
    return std::any_of(options_.base_names.begin(), options_.base_names.end(),
                       [&](const std::string& name) { return base_name_matches(model.name, name); });
  });
}

std::vector<RouteCandidate> ExpertRegistry::candidates() const {
  std::vector<RouteCandidate> result;
  std::set<std::string> names;
  const auto add = [&](const Manifest& manifest) {
    if (names.insert(manifest.name).second) result.push_back(RouteCandidate::from(manifest));
  };
  {
    const std::lock_guard lock(mutex_);
    for (auto handle = loaded_.rbegin(); handle != loaded_.rend(); ++handle) {
      if ((*handle)->data()->manifest) add(*(*handle)->data()->manifest);
    }
  }
  for (const InstalledExpert& installed : options_.store ? options_.store->list() : std::vector<InstalledExpert>{}) {
    try {
      const std::string path = join_path(installed.path, "manifest.json");
      if (!file_exists(path)) continue;
      const Manifest manifest = parse_manifest(read_text_file(path), path);
      if (fits(manifest)) add(manifest);
    } catch (const Error& failure) {
      log(LogLevel::warning, fmt::format("installed expert left out: {}", failure.what()));
    }
  }
  for (const Bundled& candidate : bundled()) {
    if (fits(candidate.manifest)) add(candidate.manifest);
  }
  return result;
}

}  // namespace expert
