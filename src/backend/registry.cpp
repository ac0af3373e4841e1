// Which backends there are.
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>

#include "backend/backend.h"
#include "backend/cpu_backend.h"
#include "backend/cuda_loader.h"
#include "backend/reference_backend.h"
#include "core/cores.h"
#include "core/error.h"
#include "core/log.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

namespace {

constexpr int kMostThreads = 1024;

const kernels::CpuKernels& choose_kernels(std::string isa) {
  if (isa.empty()) {
    if (const char* forced = std::getenv("EXPERT_ISA")) isa = forced;
  }
  if (isa.empty()) return *kernels::best_kernels();
  if (const kernels::CpuKernels* found = kernels::find_kernels(isa.c_str())) return *found;
  std::string available;
  for (const kernels::CpuKernels* const* table = kernels::available_kernels(); *table != nullptr; ++table) {
    available += available.empty() ? (*table)->isa : std::string(", ") + (*table)->isa;
  }
  throw Error(
      ErrorCode::unsupported, fmt::format("instruction set '{}' is not available", isa),
      fmt::format("this machine and build have: {} (EXPERT_ISA chooses one; unset takes the first)", available));
}

// "cuda": -1, the first that can be used. "cuda:N": N, written as plainly as that.
int cuda_index(const std::string& device) {
  if (device == "cuda") return -1;
  const std::string number = device.substr(std::string("cuda:").size());
  int index = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
  if (error != std::errc{} || end != number.data() + number.size() || index < 0 || std::to_string(index) != number) {
    throw Error(ErrorCode::invalid_request, fmt::format("device '{}': '{}' is no number of a device", device, number),
                "use cuda, cuda:0, cuda:1, …");
  }
  return index;
}

// Why a plug-in that is there is not used; the same reason is given once.
void say_once(const std::string& reason) {
  static std::mutex mutex;
  static std::string said;
  {
    const std::lock_guard lock(mutex);
    if (said == reason) return;
    said = reason;
  }
  log(LogLevel::info, fmt::format("computing on the CPU: {}", reason));
}

// A CUDA device where a plug-in is installed and finds one.
std::unique_ptr<Backend> try_cuda(const BackendOptions& options) {
  const std::filesystem::path plugin = cuda_plugin_path();
  std::error_code ignored;
  if (!options.isa.empty() || !std::filesystem::exists(plugin, ignored)) return nullptr;
  try {
    return open_cuda(plugin, -1, options.threads);
  } catch (const Error& error) {
    say_once(error.what());
    return nullptr;
  }
}

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    fail(ErrorCode::invalid_request, "{} threads; allowed are 1 to {}, or 0 for one per core", options.threads,
         kMostThreads);
  }
  if (options.device == "reference") return make_reference_backend();
  if (options.device == "cuda" || options.device.starts_with("cuda:")) {
    const int index = cuda_index(options.device);
    return open_cuda(cuda_plugin_path(), index, options.threads);
  }
  if (options.device == "auto") {
    if (std::unique_ptr<Backend> cuda = try_cuda(options)) return cuda;
  }
  if (options.device == "auto" || options.device == "cpu") {
    return std::make_unique<CpuBackend>(choose_kernels(options.isa),
                                        options.threads > 0 ? options.threads : usable_cores());
  }
  throw Error(ErrorCode::unsupported, fmt::format("unknown device '{}'", options.device),
              "use auto, cpu, reference or cuda[:N]");
}

}  // namespace expert
