#include "packages/package.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
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

// Of a folder that was not installed by us, only the subfolders that the package layouts know are entered.
void list_folder(const std::string& root, const std::string& prefix, int depth, bool everything,
                 DirectoryListing& listing) {
  for (const std::string& item : list_directory(join_path(root, prefix))) {
    const std::string name = prefix + item;
    if (directory_exists(join_path(root, name))) {
      const bool known = prefix.empty() ? name == "tests" || name == "weights" : prefix.starts_with("weights/");
      if (depth > 0 && (known || everything))
        list_folder(root, name + "/", depth - 1, everything, listing);
    } else {
      const bool wanted = everything || belongs_to_expert(name);
      (wanted ? listing.wanted : listing.skipped).push_back(name);
    }
  }
}

[[noreturn]] void fail_pickle(const std::string& path, const std::string& name) {
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: weights in {} are a pickle, which can run code and is never opened", path, name),
              "convert them where you trust them: PeftModel.from_pretrained(BASE, DIR).save_pretrained(OUT) writes "
              "adapter_model.safetensors");
}

// How much of a file is in memory, told by the thread that reads it to the thread that hashes it.
class Progress {
 public:
  static constexpr size_t kFailed = SIZE_MAX;

  void set(size_t bytes) {
    bytes_.store(bytes, std::memory_order_release);
    bytes_.notify_all();
  }
  // What is there once it is more than `bytes`.
  size_t wait_beyond(size_t bytes) const {
    size_t there = bytes_.load(std::memory_order_acquire);
    for (; there <= bytes; there = bytes_.load(std::memory_order_acquire)) bytes_.wait(there);
    return there;
  }

 private:
  std::atomic<size_t> bytes_{0};
};

using Labelled = std::vector<std::pair<std::string, std::shared_ptr<const Bytes>>>;

// Of parts of which the last is still being read; empty where that fails.
std::string hash_of(const Labelled& parts, const Progress& last) {
  Sha256 hash;
  for (const auto& [label, bytes] : parts) {
    hash.update_framed(label).update_number(bytes->size());
    const bool awaited = label == parts.back().first;
    for (size_t at = 0; at < bytes->size();) {
      const size_t end = awaited ? last.wait_beyond(at) : bytes->size();
      if (end == Progress::kFailed) return {};
      hash.update(ByteView(*bytes).subspan(at, end - at));
      at = end;
    }
  }
  return hash.finish_hex();
}

std::shared_future<std::string> ready(std::string hash) {
  std::promise<std::string> promise;
  promise.set_value(std::move(hash));
  return promise.get_future().share();
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
  if (directory_exists(path)) {
    Contents contents = package.contents_of(path, limits, false, memo == nullptr);
    package.take(std::move(contents), name_of_directory(path), memo);
  } else if (is_pickle(path)) {
    fail_pickle(path, last_segment(path));
  } else if (path.ends_with(".safetensors")) {
    throw Error(ErrorCode::load, fmt::format("{}: is a weight file, not an expert", path),
                "name the folder that holds it together with adapter_config.json");
  } else {
    const FileIdentity before = File::open(path).identity();
    Contents contents = contents_of(read_archive(path, limits));
    const bool same = File::open(path).identity() == before;
    package.take(std::move(contents), name_of_file(path), memo, same ? std::optional(before) : std::nullopt);
  }
  return package;
}

Package Package::open_installed(const std::string& folder, std::string name, std::string version,
                                const HashMemo* memo) {
  Package package;
  package.path_ = folder;
  package.version_ = std::move(version);
  Contents contents = package.contents_of(folder, {}, true, memo == nullptr);
  package.take(std::move(contents), std::move(name), memo);
  return package;
}

Package Package::from_entries(std::vector<ArchiveEntry> entries, std::string source, std::string default_name) {
  Package package;
  package.path_ = std::move(source);
  package.take(contents_of(std::move(entries)), std::move(default_name), nullptr);
  return package;
}

Package::Contents Package::contents_of(std::vector<ArchiveEntry> entries) {
  Contents contents;
  for (ArchiveEntry& entry : entries) {
    contents[entry.name] = {std::make_shared<const Bytes>(std::move(entry.bytes)), nullptr, {}};
  }
  return contents;
}

// Tensors stay in their file where they need not be in memory: whether they do is known when their hash is looked up.
Package::Contents Package::contents_of(const std::string& folder, const ArchiveLimits& limits, bool everything,
                                       bool all_in_memory) {
  DirectoryListing listing;
  list_folder(folder, "", everything ? 64 : 3, everything, listing);
  std::sort(listing.wanted.begin(), listing.wanted.end());
  skipped_ = std::move(listing.skipped);
  Contents contents;
  uint64_t total = 0;
  for (const std::string& name : listing.wanted) {
    if (contents.size() == limits.max_entries) {
      fail(ErrorCode::load, "{}: more than {} files", folder, limits.max_entries);
    }
    auto file = std::make_shared<const File>(File::open(join_path(folder, name)));
    Content content{nullptr, nullptr, file->identity()};
    if (all_in_memory || last_segment(name) != kWeights) {
      content.bytes = std::make_shared<const Bytes>(file->read_all(limits.max_entry_bytes));
    } else if (file->size() > limits.max_entry_bytes) {
      fail(ErrorCode::load, "{}: {} bytes, more than the limit of {}", file->path(), file->size(),
           limits.max_entry_bytes);
    } else {
      content.file = std::move(file);
    }
    total += content.size();
    if (total > limits.max_total_bytes) fail(ErrorCode::load, "{}: more than {} bytes", folder, limits.max_total_bytes);
    contents.emplace(name, std::move(content));
  }
  return contents;
}

void Package::take(Contents contents, std::string default_name, const HashMemo* memo,
                   const std::optional<FileIdentity>& archive) {
  contents_ = std::move(contents);
  for (const auto& [name, content] : contents_) files_.push_back({name, content.size()});
  read_manifest(std::move(default_name));
  refuse_what_is_not_read();
  locate_adapter();
  if (std::string hash = find_known_hash(memo, archive); !hash.empty()) {
    content_hash_ = ready(std::move(hash));
  } else {
    read_and_hash(memo != nullptr);
  }
  read_adapter();
}

void Package::read_manifest(std::string default_name) {
  name_ = std::move(default_name);
  if (const Bytes* text = file(kManifest)) {
    manifest_ = parse_manifest(as_text(*text), fmt::format("{}: {}", path_, kManifest));
    name_ = manifest_->name;
    version_ = manifest_->version;
  }
}

// What the hash covers: all that decides what the expert computes.
std::vector<std::pair<std::string, const Package::Content*>> Package::hashed_contents() const {
  std::vector<std::pair<std::string, const Content*>> covered;
  for (const auto& [label, name] : {std::pair<std::string, std::string>{"manifest", kManifest},
                                    {"adapter_config", adapter_folder_ + kConfig},
                                    {"adapter_model", adapter_folder_ + kWeights}}) {
    if (const Content* content = find(name)) covered.emplace_back(label, content);
  }
  return covered;
}

// By the identity of the files; empty where it is not known.
std::string Package::find_known_hash(const HashMemo* memo, const std::optional<FileIdentity>& archive) {
  if (memo == nullptr) return {};
  std::vector<std::pair<std::string, FileIdentity>> identities;
  if (archive) {
    identities.emplace_back("archive", *archive);
  } else {
    for (const auto& [label, content] : hashed_contents()) {
      if (!content->identity) return {};
      identities.emplace_back(label, *content->identity);
    }
  }
  memo_key_ = memo_key("package content 1", identities);
  return memo->find(memo_key_);
}

// Brings the tensors into memory, and meanwhile hashes what is there of them.
void Package::read_and_hash(bool on_a_thread) {
  constexpr size_t kWorthAThread = size_t{1} << 20;
  const auto weights = contents_.find(adapter_folder_ + kWeights);
  if (weights == contents_.end()) return;  // read_adapter() says so
  Content& content = weights->second;
  std::shared_ptr<Bytes> bytes;
  if (!content.bytes) {
    bytes = std::make_shared<Bytes>(Bytes::unfilled(content.size()));
    content.bytes = bytes;
  }
  const auto there = std::make_shared<Progress>();
  Labelled covered;
  for (const auto& [label, part] : hashed_contents()) covered.emplace_back(label, part->bytes);
  const auto compute = [there, covered = std::move(covered)] { return hash_of(covered, *there); };
  if (on_a_thread && content.size() >= kWorthAThread) {
    try {
      content_hash_ = std::async(std::launch::async, compute).share();
    } catch (const std::system_error&) {
      // No thread to be had: it is computed here.
    }
  }
  try {
    if (bytes) content.file->read_all({bytes->data(), bytes->size()}, [&](size_t n) { there->set(n); });
  } catch (...) {
    there->set(Progress::kFailed);
    throw;
  }
  content.file.reset();
  there->set(content.size());
  if (!content_hash_.valid()) content_hash_ = ready(compute());
}

bool Package::content_hash_is_known() const {
  return content_hash_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void Package::require_unchanged() const {
  if (const File* file = tensors_->file()) file->require_unchanged();
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
  for (const auto& [name, content] : contents_) {
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
  for (const auto& [name, content] : contents_) {
    if (name.ends_with("weights.safetensors") || name.ends_with("adapter.safetensors")) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: the layout with {} and no {} is not read", path_, name, kConfig),
                  "save the adapter with PEFT: adapter_model.safetensors and adapter_config.json at the root");
    }
  }
}

void Package::read_adapter() {
  const Content* weights = find(adapter_folder_ + kWeights);
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
  const std::string origin = fmt::format("{}: {}", path_, kWeights);
  tensors_ = std::make_shared<const SafeTensors>(weights->bytes ? SafeTensors::from_memory(weights->bytes, origin)
                                                                : SafeTensors::from_file(weights->file, origin));
}

const Manifest& Package::manifest() const {
  if (!manifest_) fail(ErrorCode::internal, "{}: has no manifest", path_);
  return *manifest_;
}

std::string Package::adapter_base_name() const {
  return JsonFields(adapter_config_, kConfig).string_or("base_model_name_or_path", "");
}

const Package::Content* Package::find(std::string_view name) const {
  const auto found = contents_.find(name);
  return found == contents_.end() ? nullptr : &found->second;
}

const Bytes* Package::file(std::string_view name) const {
  const Content* content = find(name);
  return content == nullptr ? nullptr : content->bytes.get();
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
  for (const auto& [name, content] : contents_) {
    if (!content.bytes) fail(ErrorCode::internal, "{}: {} is not in memory", path_, name);
    hash.update_framed(name).update_framed(*content.bytes);
  }
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
