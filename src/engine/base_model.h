// Where base models and the experts that come with the library lie.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "packages/store.h"

namespace expert {

struct BaseLocation {
  std::filesystem::path directory;
  std::vector<std::string> names;  // what an expert may call it: as registered, by its folder, by its configuration
  std::filesystem::path experts;   // experts that come with it; empty: none
};

// Folders that may hold base models, in order: the entries of $EXPERT_MODELS_PATH, ../share/expert/models beside this
// library, the source tree it was built from. The first with base/config.json is the bundled model's: its experts are
// in experts/ beside.
std::vector<std::filesystem::path> model_folders();

// `wanted`: a directory, a name in the store or in a model folder, or empty: the store's default, else the bundled
// model. `store` may be null. Throws load when there is none.
BaseLocation locate_base(const std::string& wanted, const Store* store);

}  // namespace expert
