// Finds and loads the CUDA plug-in: $EXPERT_CUDA_PLUGIN, else libexpert_cuda.so beside this library.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "backend/backend.h"

namespace expert {

// Where the plug-in is looked for, whether it is there or not.
std::filesystem::path cuda_plugin_path();

// `index` -1: the first device that can be used. Throws Error(unsupported) that says what is missing.
std::unique_ptr<Backend> open_cuda(const std::filesystem::path& plugin, int index, int threads);

}  // namespace expert
