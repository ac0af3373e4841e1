#include "engine/expert_registry.h"

#include <algorithm>
#include <set>

#include "core/log.h"
#include "io/json.h"
#include "packages/registry.h"

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
bool is_called(const std::string& name, const std::string& version, std::string_view spec) {
  const size_t at = spec.find('@');
  const std::string_view wanted = spec.substr(0, at);
  if (at != std::string_view::npos && spec.substr(at + 1) != version) return false;
  return wanted == name || "expert-" + std::string(wanted) == name;
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

std::string key_of(const Package& package) { return package.content_hash() + "|" + package.name(); }

int64_t soft_prompt_rows(const Package& package) {
  const bool prompt = std::ranges::any_of(
      package.kinds(), [](const std::string& kind) { return kind == "prompt_tuning" || kind == "p_tuning"; });
  return prompt ? std::max<int64_t>(JsonFields(package.adapter_config(), package.path()).integer_or("num_virtual_tokens", 0), 0)
                : 0;
}

double milliseconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun).count();
}

// Room in the host tier for an expert that is about to be read.
class Room {
 public:
  Room(ExpertCache& cache, uint64_t bytes, ExpertCache::Use use)
      : cache_(cache), bytes_(bytes), use_(use), held_(cache.reserve(bytes, use)) {}
  ~Room() {
    if (held_) cache_.give_back(bytes_, use_);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  explicit operator bool() const noexcept { return held_; }
  ExpertPtr fill(const ExpertPtr& expert) {
    held_ = false;
    return cache_.add(expert, bytes_, use_);
  }

 private:
  ExpertCache& cache_;
  const uint64_t bytes_;
  const ExpertCache::Use use_;
  bool held_;
};

}  // namespace

class ExpertRegistry::Handle final : public LoadedExpert {
 public:
  Handle(const ExpertRegistry* owner, ExpertPtr data) : owner_(owner), card_(data->card), data_(std::move(data)) {}

  const std::string& name() const noexcept override { return card_->name; }
  const std::string& version() const noexcept override { return card_->version; }
  const std::vector<std::string>& kinds() const noexcept override { return card_->kinds; }
  uint64_t size_bytes() const noexcept override { return card_->bytes; }
  const Json& manifest() const noexcept override { return card_->manifest_json; }
  const std::vector<std::string>& warnings() const noexcept override { return card_->warnings; }
  bool unloaded() const noexcept override { return unloaded_.load(); }

  const ExpertRegistry* owner() const noexcept { return owner_; }
  // Under the registry's lock.
  const ExpertPtr& data() const noexcept { return data_; }
  ExpertPtr unload() noexcept {
    unloaded_.store(true);
    return std::move(data_);
  }

 private:
  const ExpertRegistry* owner_;
  ExpertCardPtr card_;
  ExpertPtr data_;  // null when unloaded
  std::atomic<bool> unloaded_{false};
};

ExpertRegistry::ExpertRegistry(RegistryOptions options)
    : options_(std::move(options)),
      hashes_(options_.cache_directory.empty() ? std::string() : join_path(options_.cache_directory, "packages")),
      cache_(options_.memory, &sets_),
      loader_(cache_, {.read = [this](const auto& card, const auto& source) { return read_again(card, source); },
                       .form = [this](const ExpertLease& lease) { return form(lease); },
                       .done = options_.changed}) {}

// --- loaded by hand -------------------------------------------------------------------------------------------------

std::shared_ptr<const LoadedExpert> ExpertRegistry::load(const std::string& source) {
  if (source.empty()) fail(ErrorCode::invalid_request, "the source of an expert is empty");
  ExpertPtr data;
  {
    const std::lock_guard reading(reading_mutex_);
    const std::optional<Found> found = locate(source);
    if (!found) {
      throw Error(ErrorCode::load,
                  fmt::format("{}: no such expert: neither a file nor a directory, and not installed", source),
                  "give a .expert file, a directory, or a name that `expert-cli list` shows");
    }
    if (found->card) data = cache_.find(found->card->key, ExpertCache::Use::by_hand);
    if (!data) read_new(*found, ExpertCache::Use::by_hand, &data);
  }
  auto handle = std::make_shared<Handle>(this, std::move(data));
  const std::lock_guard lock(mutex_);
  loaded_.push_back(handle);
  ++loads_and_unloads_;
  return handle;
}

void ExpertRegistry::unload(const std::shared_ptr<const LoadedExpert>& handle) {
  ExpertPtr data;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find(loaded_.begin(), loaded_.end(), handle);
    if (found == loaded_.end()) {
      if (handle && handle->unloaded()) return;
      fail(ErrorCode::invalid_request, "the expert was not loaded by this engine");
    }
    data = (*found)->unload();
    loaded_.erase(found);
    ++loads_and_unloads_;
  }
  cache_.drop_handle(*data);
}

std::vector<std::shared_ptr<const LoadedExpert>> ExpertRegistry::loaded() const {
  const std::lock_guard lock(mutex_);
  return {loaded_.begin(), loaded_.end()};
}

ExpertPtr ExpertRegistry::find_loaded(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (auto handle = loaded_.rbegin(); handle != loaded_.rend(); ++handle) {
    if (is_called((*handle)->name(), (*handle)->version(), name)) return (*handle)->data();
  }
  return nullptr;
}

// --- named by a request ---------------------------------------------------------------------------------------------

ExpertNeed ExpertRegistry::resolve(const ExpertUse& use, Reading reading) {
  if (use.expert) {
    const auto* handle = dynamic_cast<const Handle*>(use.expert.get());
    if (handle == nullptr || handle->owner() != this) {
      fail(ErrorCode::invalid_request, "expert {} was loaded by another engine", use.expert->name());
    }
    const std::lock_guard lock(mutex_);
    if (handle->unloaded()) fail(ErrorCode::closed, "expert {} was unloaded", handle->name());
    return {handle->data()->card, use.weight, {}, handle->data(), false};
  }
  if (use.name.empty()) fail(ErrorCode::invalid_request, "an expert without a name");
  if (ExpertPtr found = find_loaded(use.name)) return {found->card, use.weight, {}, found, false};

  std::optional<Found> found = locate(use.name);
  if (found && found->card) return {found->card, use.weight, found->source, nullptr, false};

  if (reading == Reading::refused) throw MustRead{};
  const std::lock_guard one_at_a_time(reading_mutex_);
  found = locate(use.name);  // whoever read before us may have read it
  if (!found) {
    throw Error(ErrorCode::invalid_request, fmt::format("unknown expert \"{}\"", use.name),
                "`expert-cli list` shows what is installed; a path to a package works too");
  }
  const bool first = !found->card;
  if (first) found->card = read_new(*found, ExpertCache::Use::by_request, nullptr);
  return {found->card, use.weight, found->source, nullptr, first};
}

std::shared_ptr<ExpertLease> ExpertRegistry::claim(std::vector<ExpertNeed> needs, ExpertLease::Clock::time_point asked,
                                                   ExpertCache::Turn turn) {
  if (needs.empty()) return nullptr;
  const ExpertCache::Claim claim = cache_.claim(std::move(needs), asked, turn);
  if (claim.to_form) {
    loader_.form(*claim.lease);
  } else {
    loader_.serve(*claim.lease);
  }
  return claim.lease;
}

std::shared_ptr<const AdapterSet> ExpertRegistry::form(const ExpertLease& lease) const {
  std::vector<WeightedAdapter> adapters;
  for (size_t i = 0; i < lease.needs().size(); ++i) {
    const ExpertCard& card = *lease.needs()[i].card;
    const int64_t load_order = card.manifest ? card.manifest->constraints.load_order : 0;
    adapters.push_back({lease.experts()[i]->adapter, lease.needs()[i].weight, load_order, card.name});
  }
  auto set = sets_.find_or_compose(adapters, options_.model->sites().size(), options_.max_experts);
  options_.counters->experts_ms.add(milliseconds_since(lease.asked()));
  return set;
}

// --- what names mean ------------------------------------------------------------------------------------------------

// None when nothing has this name.
std::optional<ExpertRegistry::Found> ExpertRegistry::locate(const std::string& source) {
  if (!looks_like_path(source)) {
    if (auto found = by_name(source)) return found;
  }
  return exists(source) ? std::optional(at_path(source)) : std::nullopt;
}

// Installed, then bundled.
std::optional<ExpertRegistry::Found> ExpertRegistry::by_name(const std::string& name) {
  std::optional<InstalledExpert> installed;
  try {
    if (options_.store) installed = options_.store->find(name);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_request) throw;  // not a name an installed expert can have
  }
  if (installed) {
    const std::string path = installed->path;
    return Found{{path, installed}, known(installed->content_hash + "|" + installed->name), {}};
  }
  for (const Bundled& candidate : bundled()) {
    const Manifest& manifest = candidate.manifest;
    if (is_called(manifest.name, manifest.version, name)) return at_path(candidate.path.string());
  }
  return std::nullopt;
}

ExpertRegistry::Found ExpertRegistry::at_path(const std::string& path) {
  Found found{{path, std::nullopt}, nullptr, identity_of(path)};
  const std::lock_guard lock(mutex_);
  const auto key = key_of_path_.find(found.identity);
  const auto card = key == key_of_path_.end() ? cards_.end() : cards_.find(key->second);
  if (card != cards_.end()) found.card = card->second;
  return found;
}

ExpertCardPtr ExpertRegistry::known(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = cards_.find(key);
  return found == cards_.end() ? nullptr : found->second;
}

// Gives the card that is known by this key, which may be an earlier one.
ExpertCardPtr ExpertRegistry::remember(const std::string& identity, ExpertCardPtr card) {
  constexpr size_t kMost = 4096;
  const std::lock_guard lock(mutex_);
  if (key_of_path_.size() > kMost) key_of_path_.clear();
  if (cards_.size() > kMost) std::erase_if(cards_, [](const auto& known) { return known.second.use_count() == 1; });
  if (!identity.empty()) key_of_path_[identity] = card->key;
  return cards_.try_emplace(card->key, card).first->second;
}

// --- from a package to an expert in memory --------------------------------------------------------------------------

Package ExpertRegistry::open(const ExpertSource& source) const {
  return source.installed ? options_.store->open(*source.installed, hashes_) : Package::open(source.path, {}, &hashes_);
}

// The tensors are packed while their hash is still being computed, where it is not known from an earlier reading.
ExpertCardPtr ExpertRegistry::read_new(const Found& found, ExpertCache::Use use, ExpertPtr* in_memory) {
  const auto begun = std::chrono::steady_clock::now();
  const Package package = open(found.source);
  // Before known experts are asked: the tokenizer is not part of the content hash.
  const std::vector<std::string> warnings = check_tokenizer(package);
  if (package.content_hash_is_known()) {
    if (const ExpertPtr there = cache_.find(key_of(package), use)) {
      if (in_memory != nullptr) *in_memory = there;
      return remember(found.identity, there->card);
    }
  }
  const std::shared_ptr<ExpertCard> card = describe(package);
  card->warnings.insert(card->warnings.end(), warnings.begin(), warnings.end());
  card->bytes = packed_estimate(package.tensors(), expert_format(options_.model->weight_format()));
  // An estimate refuses nobody: what does not fit is known when it is packed.
  const uint64_t budget = cache_.options().budget;
  if (use == ExpertCache::Use::by_request && budget != 0) card->bytes = std::min<uint64_t>(card->bytes, budget);

  std::shared_ptr<const Adapter> adapter;
  Room room(cache_, card->bytes, use);
  if (room) adapter = pack(package);
  if (found.source.installed) Store::require_installed(*found.source.installed, package);
  package.remember(hashes_);
  card->key = key_of(package);
  card->hash = to_hash(package.content_hash());
  if (adapter) card->bytes = adapter->size_bytes();
  const ExpertCardPtr kept = remember(found.identity, card);
  if (!adapter) return kept;
  options_.counters->expert_load_ms.add(milliseconds_since(begun));
  const ExpertPtr expert =
      room.fill(std::make_shared<const ExpertData>(ExpertData{options_.backend, std::move(adapter), kept}));
  if (in_memory != nullptr) *in_memory = expert;
  return kept;
}

// What the disk holds must be what the card says.
ExpertPtr ExpertRegistry::read_again(const ExpertCardPtr& card, const ExpertSource& source) const {
  if (options_.on_read) options_.on_read(card->name);
  const auto begun = std::chrono::steady_clock::now();
  const Package package = open(source);
  const auto require_same = [&] {
    if (key_of(package) == card->key) return;
    throw Error(ErrorCode::load, fmt::format("{}: its files have changed since {} was first read", source.path, card->name),
                "name it again: what is there now is another expert");
  };
  check_tokenizer(package);
  if (package.content_hash_is_known()) require_same();
  std::shared_ptr<const Adapter> adapter = pack(package);
  if (source.installed) Store::require_installed(*source.installed, package);
  require_same();
  package.remember(hashes_);
  card->bytes = adapter->size_bytes();
  options_.counters->expert_load_ms.add(milliseconds_since(begun));
  return std::make_shared<const ExpertData>(ExpertData{options_.backend, std::move(adapter), card});
}

std::shared_ptr<const Adapter> ExpertRegistry::pack(const Package& package) const {
  Adapter::Source source;
  source.origin = package.path();
  source.config = &package.adapter_config();
  source.tensors = &package.tensors();
  source.late_hash = [&] { return to_hash(package.content_hash()); };
  const Model& model = *options_.model;
  const AdapterBase base{model.sites(),
                         *options_.backend,
                         expert_format(model.weight_format()),
                         [&model] { return model.source_tensors(); },
                         [&model] { return model.fingerprint(); },
                         options_.cache_directory};
  auto adapter = Adapter::load(source, base);
  package.require_unchanged();
  return adapter;
}

// All of a card but its key, hash and bytes.
std::shared_ptr<ExpertCard> ExpertRegistry::describe(const Package& package) const {
  const BaseMatch match = match_base(package);
  auto card = std::make_shared<ExpertCard>();
  card->name = package.name();
  card->version = package.version();
  card->kinds = package.kinds();
  card->soft_prompt_rows = soft_prompt_rows(package);
  card->manifest = package.optional_manifest();
  card->warnings = match.warnings;
  if (!card->manifest) return card;
  card->manifest_json = card->manifest->raw;
  if (match.base_model < card->manifest->base_models.size()) {
    card->prompt_template = card->manifest->base_models[match.base_model].prompt_template.value_or("");
  }
  const auto& tolerated = card->manifest->warnings;
  card->warnings.insert(card->warnings.end(), tolerated.begin(), tolerated.end());
  if (card->manifest->decoding.use_grammar) {
    card->warnings.push_back(card->name + " asks for a grammar; grammars are not applied yet");
  }
  return card;
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

ExpertRegistry::Candidates ExpertRegistry::candidates(Reading reading) const {
  Collected now;
  if (options_.store) now.installed = options_.store->registry();
  {
    const std::lock_guard lock(mutex_);
    now.loads_and_unloads = loads_and_unloads_;
    const bool same = collected_.loads_and_unloads == now.loads_and_unloads && collected_.installed == now.installed;
    if (collected_.candidates && same) return collected_.candidates;
  }
  if (reading == Reading::refused) throw MustRead{};
  now.candidates = std::make_shared<const std::vector<RouteCandidate>>(read_candidates(now.installed.get()));
  const std::lock_guard lock(mutex_);
  collected_ = now;
  return now.candidates;
}

std::vector<RouteCandidate> ExpertRegistry::read_candidates(const Registry* installed) const {
  std::vector<RouteCandidate> result;
  std::set<std::string> names;
  const auto add = [&](const Manifest& manifest) {
    if (names.insert(manifest.name).second) result.push_back(RouteCandidate::from(manifest));
  };
  {
    const std::lock_guard lock(mutex_);
    for (auto handle = loaded_.rbegin(); handle != loaded_.rend(); ++handle) {
      if (const auto& manifest = (*handle)->data()->card->manifest) add(*manifest);
    }
  }
  for (const InstalledExpert& expert : installed != nullptr ? installed->experts : std::vector<InstalledExpert>{}) {
    try {
      const std::string path = join_path(expert.path, "manifest.json");
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
