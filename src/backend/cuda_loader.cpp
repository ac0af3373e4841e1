#include "backend/cuda_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "backend/cuda/plugin.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr const char* kUseCpu = "use device 'cpu'";

// Code is taken from a path in the environment only where the process has no more rights than its user.
const char* environment(const char* name) {
#if defined(__GLIBC__)
  return ::secure_getenv(name);
#else
  return std::getenv(name);
#endif
}

std::string load_error() {
  const char* text = ::dlerror();
  return text != nullptr ? text : "unknown error";
}

[[noreturn]] void refuse_missing(const std::filesystem::path& path) {
#if defined(EXPERT_CUDA_BUILT)
  throw Error(ErrorCode::unsupported, fmt::format("the CUDA plug-in is not installed: there is no {}", path.string()),
              fmt::format("install it beside the library or name it in EXPERT_CUDA_PLUGIN, or {}", kUseCpu));
#else
  throw Error(ErrorCode::unsupported,
              fmt::format("this build has no CUDA backend, and there is no plug-in {}", path.string()),
              fmt::format("build with -DEXPERT_CUDA=ON, or {}", kUseCpu));
#endif
}

const cuda::Plugin& load(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) refuse_missing(path);
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (module == nullptr) {
    throw Error(ErrorCode::unsupported, fmt::format("the CUDA plug-in cannot be loaded: {}", load_error()), kUseCpu);
  }
  const auto entry = reinterpret_cast<cuda::PluginEntry>(::dlsym(module, cuda::kPluginEntry));
  if (entry == nullptr) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{} is no CUDA plug-in: it has no {}", path.string(), cuda::kPluginEntry), kUseCpu);
  }
  const cuda::Plugin& plugin = *entry();
  if (std::strcmp(plugin.stamp, EXPERT_BACKEND_STAMP) != 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the CUDA plug-in {} is of another build: it is '{}', this library is '{}'", path.string(),
                            plugin.stamp, EXPERT_BACKEND_STAMP),
                fmt::format("install both from one build, or {}", kUseCpu));
  }
  return plugin;
}

}  // namespace

std::filesystem::path cuda_plugin_path() {
  const char* named = environment("EXPERT_CUDA_PLUGIN");
  if (named != nullptr && *named != '\0') return named;
  Dl_info here{};
  if (::dladdr(reinterpret_cast<void*>(&cuda_plugin_path), &here) == 0 || here.dli_fname == nullptr) {
    return cuda::kPluginFile;
  }
  std::error_code ignored;  // a program's own name may be a relative one
  const std::filesystem::path folder = std::filesystem::path(here.dli_fname).parent_path();
  return std::filesystem::absolute(folder / cuda::kPluginFile, ignored);
}

std::unique_ptr<Backend> open_cuda(const std::filesystem::path& path, int index, int threads) {
  cuda::PluginError error;
  Backend* backend = load(path).open({index, threads}, error);
  if (backend == nullptr) throw Error(error.code, error.message, error.hint);
  return std::unique_ptr<Backend>(backend);
}

}  // namespace expert
