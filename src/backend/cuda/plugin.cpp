// The one entry of libexpert_cuda.so.
#include "backend/cuda/plugin.h"

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/runtime_device.h"

namespace expert::cuda {

namespace {

Backend* open(const PluginOptions& options, PluginError& error) {
  return open_guarded(error, [&] {
    return std::make_unique<CudaBackend>(open_runtime_device(options.index), kernels::cuda::table(), options.threads);
  });
}

constexpr Plugin kPlugin{EXPERT_BACKEND_STAMP, open};

}  // namespace

}  // namespace expert::cuda

extern "C" __attribute__((visibility("default"))) const expert::cuda::Plugin* expert_cuda_plugin() {
  return &expert::cuda::kPlugin;
}
