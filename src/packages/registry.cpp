#include "packages/registry.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "packages/semver.h"

namespace expert {
namespace {

constexpr const char* kRegistryVersion = "1.0";

InstalledExpert parse_version(const std::string& name, const JsonFields& fields) {
  InstalledExpert expert;
  expert.name = name;
  expert.version = fields.string("version");
  if (!Version::valid(expert.version)) {
    fail(ErrorCode::load, "{}: \"{}\" is no version", fields.source(), expert.version.substr(0, 64));
  }
  expert.base_model = fields.string_or("base_model", "");
  expert.kinds = fields.strings_or_empty("kinds");
  expert.capabilities = fields.strings_or_empty("capabilities");
  expert.size_bytes = static_cast<uint64_t>(std::max<int64_t>(fields.integer_or("size_bytes", 0), 0));
  expert.path = fields.string("path");
  expert.source = fields.string_or("source", "");
  expert.installed_at = fields.string_or("installed_at", "");
  expert.content_hash = fields.string_or("content_hash", "");
  expert.files_hash = fields.string_or("files_hash", "");
  expert.verified = fields.boolean_or("verified", false);
  expert.publisher = fields.string_or("publisher", "");
  return expert;
}

InstalledModel parse_model(const JsonFields& fields) {
  InstalledModel model;
  model.name = fields.string("name");
  model.path = fields.string("path");
  model.sha256 = fields.string_or("sha256", "");
  model.size_bytes = static_cast<uint64_t>(std::max<int64_t>(fields.integer_or("size_bytes", 0), 0));
  model.source = fields.string_or("source", "");
  model.installed_at = fields.string_or("installed_at", "");
  return model;
}

const Json& list_in(const JsonFields& fields, std::string_view key) {
  static const Json kNone = Json::array();
  const Json* list = fields.find(key);
  if (list == nullptr) return kNone;
  if (!list->is_array()) fail(ErrorCode::load, "{}: \"{}\" must be a list", fields.source(), key);
  return *list;
}

Registry parse_registry(const Json& document, const std::string& path) {
  const JsonFields root(document, path);
  if (const std::string version = root.string("version"); version != kRegistryVersion) {
    fail(ErrorCode::load, "{}: registry version \"{}\" is not known", path, version.substr(0, 20));
  }
  Registry registry;
  for (const Json& item : list_in(root, "base_models")) registry.models.push_back(parse_model(JsonFields(item, path)));
  for (const Json& item : list_in(root, "experts")) {
    const JsonFields fields(item, path);
    const std::string name = fields.string("name");
    if (!is_canonical_name(name)) fail(ErrorCode::load, "{}: \"{}\" is no expert name", path, name.substr(0, 64));
    for (const Json& version : list_in(fields, "versions")) {
      registry.put(parse_version(name, JsonFields(version, fmt::format("{}: {}", path, name))));
    }
  }
  registry.default_model = root.string_or("default_model", "");
  return registry;
}

Json to_json(const InstalledExpert& expert) {
  return {{"version", expert.version},
          {"base_model", expert.base_model},
          {"path", expert.path},
          {"source", expert.source},
          {"installed_at", expert.installed_at},
          {"kinds", expert.kinds},
          {"capabilities", expert.capabilities},
          {"size_bytes", expert.size_bytes},
          {"content_hash", expert.content_hash},
          {"files_hash", expert.files_hash},
          {"verified", expert.verified},
          {"publisher", expert.publisher}};
}

Json to_json(const InstalledModel& model) {
  return {{"name", model.name},     {"path", model.path},
          {"sha256", model.sha256}, {"size_bytes", model.size_bytes},
          {"source", model.source}, {"installed_at", model.installed_at}};
}

bool before(const InstalledExpert& a, const InstalledExpert& b) {
  if (a.name != b.name) return a.name < b.name;
  return Version::parse(b.version) < Version::parse(a.version);
}

bool absent(const std::string& path) {
  std::error_code error;
  return std::filesystem::symlink_status(path, error).type() == std::filesystem::file_type::not_found;
}

// None where there is no file, or none that can be read: Registry::load() says which.
std::optional<FileIdentity> identity_of(const std::string& path) {
  if (!file_exists(path)) return std::nullopt;
  try {
    return File::open(path).identity();
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Registry Registry::load(const std::string& path) {
  if (absent(path)) return {};
  try {
    return parse_registry(read_json_file(path), path);
  } catch (const Error& cause) {
    throw Error(ErrorCode::load, fmt::format("the registry cannot be used: {}", cause.what()),
                "rebuild it from the installed folders (registry rebuild)");
  }
}

std::shared_ptr<const Registry> RegistryFile::read() {
  const std::lock_guard lock(mutex_);
  // Taken before its content: what a newer file says is then read again, not taken for this one's.
  const std::optional<FileIdentity> identity = identity_of(path_);
  const bool same = last_ && identity == identity_ && (identity || absent(path_));
  if (!same) {
    last_ = std::make_shared<const Registry>(Registry::load(path_));
    identity_ = identity;
  }
  return last_;
}

void Registry::save(const std::string& path, const std::string& home) const {
  Json by_name = Json::array();
  for (const InstalledExpert& expert : experts) {
    if (by_name.empty() || by_name.back()["name"] != expert.name) {
      by_name.push_back({{"name", expert.name}, {"versions", Json::array()}});
    }
    by_name.back()["versions"].push_back(to_json(expert));
  }
  Json base_models = Json::array();
  for (const InstalledModel& model : models) base_models.push_back(to_json(model));
  const Json document = {{"version", kRegistryVersion},
                         {"last_updated", utc_now()},
                         {"install_dir", join_path(home, "experts")},
                         {"models_dir", join_path(home, "models")},
                         {"default_model", default_model},
                         {"base_models", base_models},
                         {"experts", by_name}};
  // Paths need not be UTF-8; a registry that cannot be written would be worse than a replaced character.
  write_file_atomically(path, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

const InstalledExpert* Registry::find(const ExpertSpec& spec) const {
  const InstalledExpert* newest = nullptr;
  for (const InstalledExpert& expert : experts) {
    if (expert.name != spec.name) continue;
    if (!spec.version.empty()) {
      if (expert.version == spec.version) return &expert;
      continue;
    }
    if (Version::parse(expert.version).prerelease.empty()) return &expert;  // newest first
    if (newest == nullptr) newest = &expert;
  }
  return newest;
}

void Registry::put(InstalledExpert expert) {
  remove({expert.name, expert.version});
  experts.insert(std::upper_bound(experts.begin(), experts.end(), expert, before), std::move(expert));
}

std::vector<InstalledExpert> Registry::remove(const ExpertSpec& spec) {
  std::vector<InstalledExpert> removed;
  std::erase_if(experts, [&](const InstalledExpert& expert) {
    const bool match = expert.name == spec.name && (spec.version.empty() || expert.version == spec.version);
    if (match) removed.push_back(expert);
    return match;
  });
  return removed;
}

InstalledModel* Registry::find_model(std::string_view name) {
  const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.name == name; });
  return found == models.end() ? nullptr : &*found;
}

}  // namespace expert
