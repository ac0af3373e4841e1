// Installed experts and registered base models: the store, in JSON.
#include <algorithm>
#include <filesystem>

#include "convert.h"
#include "core/log.h"
#include "engine/base_model.h"
#include "packages/store.h"

namespace fs = std::filesystem;
using namespace expert;
using namespace expert::capi;

namespace {

Store store_of(const char* home) { return Store(home != nullptr ? home : default_home()); }

Json base_models_of(const Package& package) {
  Json names = Json::array();
  if (!package.has_manifest()) return names;
  for (const ManifestBaseModel& base : package.manifest().base_models) names.push_back(base.name);
  return names;
}

Json to_json(const InstalledExpert& expert) {
  return {{"name", expert.name},         {"version", expert.version},       {"base_model", expert.base_model},
          {"kinds", expert.kinds},       {"size_bytes", expert.size_bytes}, {"path", expert.path},
          {"verified", expert.verified}, {"publisher", expert.publisher}};
}

// The same fields for a package that is not installed.
Json to_json(const Package& package) {
  const Json bases = base_models_of(package);
  return {{"name", package.name()},
          {"version", package.version()},
          {"base_model", bases.empty() ? Json(package.adapter_base_name()) : bases.front()},
          {"kinds", package.kinds()},
          {"size_bytes", package.size_bytes()},
          {"path", fs::absolute(package.path()).string()},
          {"verified", false},
          {"publisher", ""}};
}

Json to_json(const InstalledModel& model, const std::optional<InstalledModel>& chosen) {
  return {{"name", model.name},
          {"path", model.path},
          {"size_bytes", model.size_bytes},
          {"default", chosen && chosen->name == model.name}};
}

// The experts that come with the library, by path. One that cannot be read is left out, as the engine does.
std::vector<Package> bundled_packages() {
  std::vector<Package> packages;
  for (const fs::path& folder : model_folders()) {
    std::error_code error;
    if (!fs::exists(folder / "base" / "config.json", error)) continue;
    for (const auto& entry : fs::directory_iterator(folder / "experts", error)) {
      try {
        packages.push_back(Package::open(entry.path().string()));
      } catch (const Error& failure) {
        log(LogLevel::warning, fmt::format("bundled expert left out: {}", failure.what()));
      }
    }
    break;  // the first folder with a base is the one the engine uses
  }
  std::sort(packages.begin(), packages.end(), [](const Package& a, const Package& b) { return a.path() < b.path(); });
  return packages;
}

// The manifest first, then what the list says; the list wins where both have a field.
Json info_of(const Package& package, const Json& fields) {
  Json info = package.has_manifest() ? Json(package.manifest().raw) : Json::object();
  info.update(fields);
  Json warnings = Json::array();
  if (package.has_manifest()) warnings = package.manifest().warnings;
  info["warnings"] = std::move(warnings);
  info["adapter_config"] = package.adapter_config();  // method, rank, modules
  return info;
}

// Nothing, also for what cannot be the name of an installed expert.
std::optional<InstalledExpert> find_installed(const Store& store, const std::string& name) try {
  return store.find(name);
} catch (const Error& error) {
  if (error.code() != ErrorCode::invalid_request) throw;
  return std::nullopt;
}

std::optional<Json> info_by_name(const Store& store, const std::string& name) {
  if (const std::optional<InstalledExpert> installed = find_installed(store, name)) {
    return info_of(store.open(*installed), to_json(*installed));
  }
  for (const Package& package : bundled_packages()) {
    const bool called = package.name() == name || package.name() == "expert-" + name;
    if (called) return info_of(package, to_json(package));
  }
  return std::nullopt;
}

// A name means the expert of that name, also where a file of that name lies about.
Json info_of(const Store& store, const std::string& name_or_path) {
  const bool path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".expert");
  if (const std::optional<Json> info = path ? std::nullopt : info_by_name(store, name_or_path)) return *info;
  if (path || fs::exists(name_or_path)) {
    const Package package = Package::open(name_or_path);
    return info_of(package, to_json(package));
  }
  throw Error(ErrorCode::invalid_request, fmt::format("\"{}\" is neither a known expert nor a file", name_or_path),
              "`expert-cli list --bundled` shows the known ones");
}

void clear(char** out_json) { require(out_json, "out_json") = nullptr; }

}  // namespace

expert_status expert_package_install(const char* home, const char* source, uint32_t flags, char** out_json) {
  return guard([&] {
    clear(out_json);
    require_flags(flags, EXPERT_INSTALL_SKIP_VERIFY | EXPERT_INSTALL_FORCE, "expert_package_install");
    InstallOptions options;
    options.skip_verify = (flags & EXPERT_INSTALL_SKIP_VERIFY) != 0;
    options.force = (flags & EXPERT_INSTALL_FORCE) != 0;
    *out_json = give_text(dump(to_json(store_of(home).install(&require(source, "source"), options))));
  });
}

expert_status expert_package_uninstall(const char* home, const char* name) {
  return guard([&] { store_of(home).uninstall(&require(name, "name")); });
}

expert_status expert_package_list(const char* home, uint32_t flags, char** out_json) {
  return guard([&] {
    clear(out_json);
    require_flags(flags, EXPERT_LIST_BUNDLED, "expert_package_list");
    Json list = Json::array();
    for (const InstalledExpert& expert : store_of(home).list()) list.push_back(to_json(expert));
    if ((flags & EXPERT_LIST_BUNDLED) != 0) {
      for (const Package& package : bundled_packages()) list.push_back(to_json(package));
    }
    *out_json = give_text(dump(list));
  });
}

expert_status expert_package_info(const char* home, const char* name_or_path, char** out_json) {
  return guard([&] {
    clear(out_json);
    *out_json = give_text(dump(info_of(store_of(home), &require(name_or_path, "name_or_path"))));
  });
}

expert_status expert_model_add(const char* home, const char* directory, const char* name, char** out_json) {
  return guard([&] {
    clear(out_json);
    Store store = store_of(home);
    const InstalledModel added = store.add_model(&require(directory, "directory"), text_of(name));
    *out_json = give_text(dump(to_json(added, store.default_model())));
  });
}

expert_status expert_model_remove(const char* home, const char* name) {
  return guard([&] { store_of(home).remove_model(&require(name, "name")); });
}

expert_status expert_model_set_default(const char* home, const char* name) {
  return guard([&] { store_of(home).set_default_model(&require(name, "name")); });
}

expert_status expert_model_list(const char* home, char** out_json) {
  return guard([&] {
    clear(out_json);
    const Store store = store_of(home);
    const std::optional<InstalledModel> chosen = store.default_model();
    Json list = Json::array();
    for (const InstalledModel& model : store.models()) list.push_back(to_json(model, chosen));
    *out_json = give_text(dump(list));
  });
}
