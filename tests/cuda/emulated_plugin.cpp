// A plug-in as libexpert_cuda.so is one, but on the emulated device: everything above the device is the same code, so
// the tests see what libexpert, the command line and the bindings do with a CUDA device where there is none.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/plugin.h"
#include "cuda/emulator/emulated_device.h"

namespace {

expert::Backend* open(const expert::cuda::PluginOptions& options, expert::cuda::PluginError& error) {
  using namespace expert;
  return cuda::open_guarded(error, [&] {
    if (options.index > 0) fail(ErrorCode::unsupported, "device 'cuda:{}': there is 1 CUDA device", options.index);
    return std::make_unique<cuda::CudaBackend>(cuda_emulator::make_device(), kernels::cuda::table(), options.threads);
  });
}

constexpr expert::cuda::Plugin kPlugin{EXPERT_PLUGIN_STAMP, open};

}  // namespace

extern "C" __attribute__((visibility("default"))) const expert::cuda::Plugin* expert_cuda_plugin() { return &kPlugin; }
