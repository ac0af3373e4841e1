#include "engine/base_model.h"

#include <dlfcn.h>

#include <cstdlib>

#include "core/error.h"
#include "io/file.h"
#include "io/json.h"
#include "packages/package.h"

namespace expert {
namespace {

namespace fs = std::filesystem;

bool is_model(const fs::path& directory) { return file_exists((directory / "config.json").string()); }

std::optional<fs::path> folder_beside_library() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&model_folders), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  const fs::path library = fs::canonical(info.dli_fname, error);
  if (error) return {};
  return library.parent_path().parent_path() / "share" / "expert" / "models";
}

std::optional<fs::path> bundled_folder() {
  for (const fs::path& folder : model_folders()) {
    if (is_model(folder / "base")) return folder;
  }
  return std::nullopt;
}

// Transformers keeps the name a configuration was saved under.
void add_configured_name(BaseLocation& base) {
  try {
    const Json config = read_json_file((base.directory / "config.json").string());
    const auto name = config.find("_name_or_path");
    if (name != config.end() && name->is_string() && !name->get_ref<const std::string&>().empty()) {
      base.names.push_back(base_name_of(name->get<std::string>()));
    }
  } catch (const Error&) {
    // Loading the model says what is wrong with it.
  }
}

BaseLocation at(const fs::path& directory, const std::string& registered_name) {
  BaseLocation base;
  base.directory = directory;
  if (!registered_name.empty()) base.names.push_back(registered_name);
  base.names.push_back(base_name_of(fs::absolute(directory).lexically_normal().string()));
  add_configured_name(base);
  std::error_code error;
  const auto bundled = bundled_folder();
  if (bundled && fs::equivalent(*bundled / "base", directory, error)) base.experts = *bundled / "experts";
  return base;
}

}  // namespace

std::vector<fs::path> model_folders() {
  std::vector<fs::path> folders;
  if (const char* listed = std::getenv("EXPERT_MODELS_PATH")) {
    const std::string paths = listed;
    for (size_t start = 0; start <= paths.size();) {
      const size_t end = std::min(paths.find(':', start), paths.size());
      if (end > start) folders.emplace_back(paths.substr(start, end - start));
      start = end + 1;
    }
  }
  if (const auto beside = folder_beside_library()) folders.push_back(*beside);
#ifdef EXPERT_SOURCE_MODELS_DIR
  folders.emplace_back(EXPERT_SOURCE_MODELS_DIR);
#endif
  return folders;
}

BaseLocation locate_base(const std::string& wanted, const Store* store) {
  if (wanted.empty()) {
    if (const auto model = store ? store->default_model() : std::nullopt) return at(model->path, model->name);
    if (const auto bundled = bundled_folder()) return at(*bundled / "base", {});
    throw Error(ErrorCode::load, "no base model was named, none is configured, and the bundled one was not found",
                "name a directory, or set EXPERT_MODELS_PATH to the folder that holds base/config.json");
  }
  if (directory_exists(wanted)) return at(wanted, {});
  if (const auto model = store ? store->find_model(wanted) : std::nullopt) return at(model->path, model->name);
  if (wanted.find('/') == std::string::npos) {
    for (const fs::path& folder : model_folders()) {
      if (is_model(folder / wanted)) return at(folder / wanted, {});
    }
  }
  throw Error(ErrorCode::load, fmt::format("no base model \"{}\": neither a directory nor a registered name", wanted),
              "name a Hugging Face directory, or register one with `expert-cli model add DIR`");
}

}  // namespace expert
