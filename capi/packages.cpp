// Installed experts and registered base models: the store, in JSON.
#include <filesystem>

#include "convert.h"
#include "packages/store.h"

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
          {"path", std::filesystem::absolute(package.path()).string()},
          {"verified", false},
          {"publisher", ""}};
}

Json to_json(const InstalledModel& model, const std::optional<InstalledModel>& chosen) {
  return {{"name", model.name},
          {"path", model.path},
          {"size_bytes", model.size_bytes},
          {"default", chosen && chosen->name == model.name}};
}

// The manifest first, then what the list says; the list wins where both have a field.
Json info_of(const Package& package, const Json& fields) {
  Json info = package.has_manifest() ? Json(package.manifest().raw) : Json::object();
  info.update(fields);
  Json warnings = Json::array();
  if (package.has_manifest()) warnings = package.manifest().warnings;
  info["warnings"] = std::move(warnings);
  return info;
}

Json info_of(const Store& store, const std::string& name_or_path) {
  if (std::filesystem::exists(name_or_path)) {
    const Package package = Package::open(name_or_path);
    return info_of(package, to_json(package));
  }
  const std::optional<InstalledExpert> installed = store.find(name_or_path);
  if (!installed) {
    throw Error(ErrorCode::invalid_request,
                fmt::format("\"{}\" is neither an installed expert nor a file", name_or_path),
                "expert-cli list shows the installed experts");
  }
  return info_of(Package::open(installed->path), to_json(*installed));
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

expert_status expert_package_list(const char* home, char** out_json) {
  return guard([&] {
    clear(out_json);
    Json list = Json::array();
    for (const InstalledExpert& expert : store_of(home).list()) list.push_back(to_json(expert));
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
