// Which backends there are.
#include <cstdlib>
#include <string>

#include "backend/backend.h"
#include "backend/cpu_backend.h"
#include "backend/reference_backend.h"
#include "core/cores.h"
#include "core/error.h"
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
  if (kernels::find_kernels("amx") != nullptr) available += ", amx";
  throw Error(
      ErrorCode::unsupported, fmt::format("instruction set '{}' is not available", isa),
      fmt::format("this machine and build have: {} (EXPERT_ISA chooses one; unset takes the first)", available));
}

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    fail(ErrorCode::invalid_request, "{} threads; allowed are 1 to {}, or 0 for one per core", options.threads,
         kMostThreads);
  }
  if (options.device == "reference") return make_reference_backend();
  if (options.device == "auto" || options.device == "cpu") {
    return std::make_unique<CpuBackend>(choose_kernels(options.isa),
                                        options.threads > 0 ? options.threads : usable_cores());
  }
  if (options.device == "cuda" || options.device.starts_with("cuda:")) {
    throw Error(ErrorCode::unsupported, fmt::format("device '{}': this build has no CUDA backend", options.device),
                "use device 'cpu'");
  }
  throw Error(ErrorCode::unsupported, fmt::format("unknown device '{}'", options.device), "use auto, cpu or reference");
}

}  // namespace expert
