#include "packages/package.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "core/strings.h"
#include "io/sha256.h"

namespace expert {
namespace {

constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kManifest = "manifest.json";

bool is_pickle(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kExtensions = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"};
  return std::any_of(kExtensions.begin(), kExtensions.end(), [&](std::string_view e) { return name.ends_with(e); });
}

// What belongs to an expert among the files of a training folder: its optimizer, logs and checkpoints do not.
bool belongs_to_expert(const std::string& name) {
  const std::string base = last_segment(name);
  if (base.starts_with('.') || base == "trainer_state.json") return false;
  if (base.ends_with(".safetensors"))
    return base == kWeights || base == "weights.safetensors" || base == "adapter.safetensors";
  static constexpr std::array<std::string_view, 8> kExtensions = {".json", ".md",   ".txt", ".gbnf",
                                                                  ".ebnf", ".lark", ".sig", ".jinja"};
  if (std::any_of(kExtensions.begin(), kExtensions.end(), [&](std::string_view e) { return base.ends_with(e); }))
    return true;
  return base.starts_with("LICENSE") || base.starts_with("NOTICE");
}

struct DirectoryListing {
  std::vector<std::string> wanted;   // relative names
  std::vector<std::string> skipped;  // the rest, never opened
};

enum class Reading { what_belongs, everything };

// Of a folder that was not installed by us, only the subfolders that the package layouts know are entered.
void list_folder(const std::string& root, const std::string& prefix, int depth, Reading reading,
                 DirectoryListing& listing) {
  for (const std::string& item : list_directory(join_path(root, prefix))) {
    const std::string name = prefix + item;
    if (directory_exists(join_path(root, name))) {
      const bool known = prefix.empty() ? name == "tests" || name == "weights" : prefix.starts_with("weights/");
      if (depth > 0 && (known || reading == Reading::everything))
        list_folder(root, name + "/", depth - 1, reading, listing);
    } else {
      const bool wanted = reading == Reading::everything || belongs_to_expert(name);
      (wanted ? listing.wanted : listing.skipped).push_back(name);
    }
  }
}

std::vector<ArchiveEntry> read_directory(const std::string& path, const ArchiveLimits& limits, Reading reading,
                                         std::vector<std::string>& skipped,
                                         std::map<std::string, FileIdentity, std::less<>>& identities) {
  DirectoryListing listing;
  list_folder(path, "", reading == Reading::everything ? 64 : 3, reading, listing);
  std::sort(listing.wanted.begin(), listing.wanted.end());
  skipped = std::move(listing.skipped);
  std::vector<ArchiveEntry> entries;
  uint64_t total = 0;
  for (const std::string& name : listing.wanted) {
    if (entries.size() == limits.max_entries) fail(ErrorCode::load, "{}: more than {} files", path, limits.max_entries);
    const File file = File::open(join_path(path, name));
    entries.push_back({name, file.read_all(limits.max_entry_bytes)});
    identities.emplace(name, file.identity());
    total += entries.back().bytes.size();
    if (total > limits.max_total_bytes) fail(ErrorCode::load, "{}: more than {} bytes", path, limits.max_total_bytes);
  }
  return entries;
}

[[noreturn]] void fail_pickle(const std::string& path, const std::string& name) {
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: weights in {} are a pickle, which can run code and is never opened", path, name),
              "convert them where you trust them: PeftModel.from_pretrained(BASE, DIR).save_pretrained(OUT) writes "
              "adapter_model.safetensors");
}

std::string name_of_directory(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error).lexically_normal().string();
  return last_segment(error ? path : absolute);
}

// Package names without folder and ending: "dir/sql.expert" → "sql".
std::string name_of_file(const std::string& path) {
  std::string name = last_segment(path);
  if (name.ends_with(".expert")) name.erase(name.size() - 7);
  return name;
}

}  // namespace

Package Package::open(const std::string& path, const ArchiveLimits& limits, const HashMemo* memo) {
  Package package;
  package.path_ = path;
  std::vector<ArchiveEntry> entries;
  Identities files;
  std::string default_name;
  if (directory_exists(path)) {
    entries = read_directory(path, limits, Reading::what_belongs, package.skipped_, files);
    default_name = name_of_directory(path);
  } else if (is_pickle(path)) {
    fail_pickle(path, last_segment(path));
  } else if (path.ends_with(".safetensors")) {
    throw Error(ErrorCode::load, fmt::format("{}: is a weight file, not an expert", path),
                "name the folder that holds it together with adapter_config.json");
  } else {
    const FileIdentity before = File::open(path).identity();
    entries = read_archive(path, limits);
    if (File::open(path).identity() == before) files.emplace("", before);
    default_name = name_of_file(path);
  }
  package.take(std::move(entries), std::move(default_name), files, memo);
  return package;
}

Package Package::open_installed(const std::string& folder, std::string name, std::string version,
                                const HashMemo* memo) {
  Package package;
  package.path_ = folder;
  package.version_ = std::move(version);
  Identities files;
  std::vector<ArchiveEntry> entries = read_directory(folder, {}, Reading::everything, package.skipped_, files);
  package.take(std::move(entries), std::move(name), files, memo);
  return package;
}

Package Package::from_entries(std::vector<ArchiveEntry> entries, std::string source, std::string default_name) {
  Package package;
  package.path_ = std::move(source);
  package.take(std::move(entries), std::move(default_name), {}, nullptr);
  return package;
}

void Package::take(std::vector<ArchiveEntry> entries, std::string default_name, const Identities& files,
                   const HashMemo* memo) {
  for (ArchiveEntry& entry : entries) {
    contents_[entry.name] = std::make_shared<const Bytes>(std::move(entry.bytes));
  }
  read_contents(std::move(default_name));
  find_content_hash(files, memo);
}

void Package::read_contents(std::string default_name) {
  for (const auto& [name, bytes] : contents_) files_.push_back({name, bytes->size()});
  name_ = std::move(default_name);
  if (const Bytes* text = file(kManifest)) {
    manifest_ = parse_manifest(as_text(*text), fmt::format("{}: {}", path_, kManifest));
    name_ = manifest_->name;
    version_ = manifest_->version;
  }
  refuse_what_is_not_read();
  locate_adapter();
  read_adapter();
}

// What the hash covers: all that decides what the expert computes.
void Package::find_content_hash(const Identities& files, const HashMemo* memo) {
  constexpr size_t kWorthAThread = size_t{1} << 20;
  std::vector<std::pair<std::string, std::shared_ptr<const Bytes>>> covered;
  std::vector<std::pair<std::string, FileIdentity>> identities;
  for (const auto& [label, name] : {std::pair<std::string, std::string>{"manifest", kManifest},
                                    {"adapter_config", adapter_folder_ + kConfig},
                                    {"adapter_model", adapter_folder_ + kWeights}}) {
    const auto* bytes = find_file(name);
    if (bytes == nullptr) continue;
    covered.emplace_back(label, *bytes);
    const auto identity = files.find(name);
    if (identity != files.end()) identities.emplace_back(label, identity->second);
  }
  if (const auto archive = files.find(""); archive != files.end()) identities.emplace_back("archive", archive->second);
  const bool whole_archive = files.size() == 1 && files.begin()->first.empty();
  if (whole_archive || identities.size() == covered.size()) memo_key_ = memo_key(identities);
  std::promise<std::string> known;
  if (std::string hash = memo == nullptr ? std::string() : memo->find(memo_key_); !hash.empty()) {
    known.set_value(std::move(hash));
    content_hash_ = known.get_future().share();
    return;
  }
  const bool large = covered.back().second->size() >= kWorthAThread;
  const auto compute = [covered = std::move(covered)] {
    Sha256 hash;
    for (const auto& [label, bytes] : covered) hash.update_framed(label).update_framed(*bytes);
    return hash.finish_hex();
  };
  if (large && memo != nullptr) {
    try {
      content_hash_ = std::async(std::launch::async, compute).share();
      return;
    } catch (const std::system_error&) {
      // No thread to be had: it is computed here.
    }
  }
  known.set_value(compute());
  content_hash_ = known.get_future().share();
}

bool Package::content_hash_is_known() const {
  return content_hash_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

// Parts of an expert that would change its answers, known by name and not built: never loaded and ignored.
void Package::refuse_what_is_not_read() const {
  for (const char* name : {"tokenizer_delta.json", "calibration.json"}) {
    if (file(name) != nullptr) fail(ErrorCode::unsupported, "{}: {} is not supported", path_, name);
  }
  if (manifest_ && !manifest_->soft_prompts.empty()) {
    fail(ErrorCode::unsupported, "{}: soft prompts ({}) are not supported", path_,
         manifest_->soft_prompts.front().substr(0, 200));
  }
}

void Package::locate_adapter() {
  std::vector<std::string> folders;
  for (const auto& [name, bytes] : contents_) {
    if (last_segment(name) == kConfig || last_segment(name) == kWeights) {
      folders.push_back(name.substr(0, name.size() - last_segment(name).size()));
    }
  }
  std::sort(folders.begin(), folders.end());
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  if (!folders.empty() && folders.front().empty())
    return;  // the root layout wins over what a training run left below it
  if (folders.size() == 1) {
    adapter_folder_ = folders.front();
    if (adapter_folder_.starts_with("weights/")) return;
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: the adapter lies in {}, not at the root", path_, adapter_folder_),
                "pack the files themselves, not the folder that holds them");
  }
  if (folders.size() > 1) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: holds {} adapters ({}, …)", path_, folders.size(), folders.front()),
                "make one package for each base model");
  }
  for (const auto& [name, bytes] : contents_) {
    if (name.ends_with("weights.safetensors") || name.ends_with("adapter.safetensors")) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: the layout with {} and no {} is not read", path_, name, kConfig),
                  "save the adapter with PEFT: adapter_model.safetensors and adapter_config.json at the root");
    }
  }
}

void Package::read_adapter() {
  const auto* weights = find_file(adapter_folder_ + kWeights);
  if (weights == nullptr) {
    std::vector<std::string> names = skipped_;
    for (const PackageFile& item : files_) names.push_back(item.name);
    for (const std::string& name : names) {
      if (is_pickle(name) && last_segment(name).starts_with("adapter_model")) fail_pickle(path_, name);
    }
    throw Error(ErrorCode::load, fmt::format("{}: {} is missing", path_, kWeights),
                "name a .expert file or a directory that PEFT saved");
  }
  const Bytes* config = file(adapter_folder_ + kConfig);
  if (config == nullptr) fail(ErrorCode::load, "{}: {} is missing", path_, kConfig);
  const std::string source = fmt::format("{}: {}", path_, kConfig);
  adapter_config_ = parse_json(as_text(*config), source);
  const JsonFields fields(adapter_config_, source);
  const std::string type = lower_ascii(fields.string("peft_type"));
  kinds_ = {type == "lora" && fields.boolean_or("use_dora", false) ? "dora" : type};
  tensors_ =
      std::make_shared<const SafeTensors>(SafeTensors::from_memory(*weights, fmt::format("{}: {}", path_, kWeights)));
}

const Manifest& Package::manifest() const {
  if (!manifest_) fail(ErrorCode::internal, "{}: has no manifest", path_);
  return *manifest_;
}

std::string Package::adapter_base_name() const {
  return JsonFields(adapter_config_, kConfig).string_or("base_model_name_or_path", "");
}

const std::shared_ptr<const Bytes>* Package::find_file(std::string_view name) const {
  const auto found = contents_.find(name);
  return found == contents_.end() ? nullptr : &found->second;
}

const Bytes* Package::file(std::string_view name) const {
  const auto* found = find_file(name);
  return found == nullptr ? nullptr : found->get();
}

std::optional<std::string> Package::text(std::string_view name) const {
  const Bytes* bytes = file(name);
  return bytes == nullptr ? std::nullopt : std::optional(std::string(as_text(*bytes)));
}

std::optional<std::string> Package::grammar() const {
  if (!manifest_ || !manifest_->decoding.grammar_file) return text("grammar.gbnf");
  std::optional<std::string> grammar = text(*manifest_->decoding.grammar_file);
  if (!grammar) {
    fail(ErrorCode::load, "{}: grammar_file {} is missing", path_, manifest_->decoding.grammar_file->substr(0, 200));
  }
  return grammar;
}

uint64_t Package::size_bytes() const {
  uint64_t total = 0;
  for (const PackageFile& item : files_) total += item.size;
  return total;
}

std::string Package::files_hash() const {
  Sha256 hash;
  for (const auto& [name, bytes] : contents_) hash.update_framed(name).update_framed(*bytes);
  return hash.finish_hex();
}

BaseMatch Package::match_base(const BaseIdentity& base) const {
  if (!manifest_) {
    BaseMatch match;
    const std::string wanted = adapter_base_name();
    if (!wanted.empty() && !base_name_matches(wanted, base.name)) {
      match.warnings.push_back(fmt::format("{} was made for \"{}\", the base is \"{}\"; only shapes were checked",
                                           name_, last_segment(wanted), base.name));
    } else {
      match.warnings.push_back(
          fmt::format("{} carries no fingerprint of its base; only shapes and name were checked", name_));
    }
    return match;
  }
  const std::vector<ManifestBaseModel>& models = manifest_->base_models;
  const bool any_hash =
      std::any_of(models.begin(), models.end(), [](const auto& model) { return model.sha256.has_value(); });
  const std::string fingerprint = any_hash && base.fingerprint ? base.fingerprint() : std::string();
  for (size_t i = 0; i < models.size(); ++i) {
    if (!fingerprint.empty() && models[i].sha256 == fingerprint)
      return {.base_model = i, .proven = true, .warnings = {}};
  }
  for (size_t i = 0; i < models.size(); ++i) {
    const bool disproven = models[i].sha256 && !fingerprint.empty();
    if (disproven || !base_name_matches(models[i].name, base.name)) continue;
    return {.base_model = i,
            .proven = false,
            .warnings = {fmt::format("{} names its base \"{}\" without a fingerprint that could be compared", name_,
                                     last_segment(models[i].name))}};
  }
  std::vector<std::string> names;
  for (const ManifestBaseModel& model : models) names.push_back(last_segment(model.name));
  const bool other_weights = std::any_of(models.begin(), models.end(), [&](const auto& model) {
    return model.sha256 && base_name_matches(model.name, base.name);
  });
  throw Error(ErrorCode::incompatible,
              fmt::format("{}@{} was made for {}{}, the base is \"{}\"", name_, version_, fmt::join(names, ", "),
                          other_weights ? " with other weights" : "", base.name),
              "use the base model the expert was made for");
}

std::string base_name_of(std::string_view directory) {
  const std::filesystem::path path = std::filesystem::path(directory).lexically_normal();
  std::vector<std::string> segments;
  for (const auto& segment : path) {
    if (!segment.empty() && segment != "/") segments.push_back(segment.string());
  }
  if (segments.size() >= 3 && segments[segments.size() - 2] == "snapshots") {
    const std::string& cache = segments[segments.size() - 3];
    const size_t dashes = cache.rfind("--");
    if (cache.starts_with("models--") && dashes != std::string::npos) return cache.substr(dashes + 2);
  }
  return name_of_directory(std::string(directory));
}

}  // namespace expert
