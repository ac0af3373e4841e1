// What libexpert and its CUDA plug-in (libexpert_cuda.so) agree on. The plug-in is loaded by cuda_loader.cpp and never
// unloaded; it holds its own copy of the rooms it needs, and C++ objects pass between both, so both must be of one
// build: the stamp says which.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "backend/backend.h"
#include "core/error.h"

namespace expert::cuda {

struct PluginOptions {
  int index = -1;   // of the device; -1: the first that can be used
  int threads = 0;  // of the host
};

struct PluginError {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  std::string hint;
};

struct Plugin {
  const char* stamp;  // stays the first field: read before anything else is trusted
  // Null, and `error` filled.
  Backend* (*open)(const PluginOptions& options, PluginError& error);
};

using PluginEntry = const Plugin* (*)();
inline constexpr const char* kPluginEntry = "expert_cuda_plugin";
inline constexpr const char* kPluginFile = "libexpert_cuda.so";

// For the plug-in's open(): nothing is thrown into libexpert before the backend is there. What its operations throw later
// is caught by type in libexpert; tests/cuda/loader_test.cpp proves that for modules with hidden symbols.
template <typename Make>
Backend* open_guarded(PluginError& error, const Make& make) noexcept {
  try {
    return std::unique_ptr<Backend>(make()).release();
  } catch (const Error& caught) {
    error = {caught.code(), caught.what(), caught.hint()};
  } catch (const std::bad_alloc&) {
    error = {ErrorCode::out_of_memory, "the CUDA backend got no host memory", ""};
  } catch (const std::exception& caught) {
    error = {ErrorCode::internal, caught.what(), ""};
  }
  return nullptr;
}

}  // namespace expert::cuda
