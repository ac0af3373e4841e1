// A Device of the CUDA backend that lives in the host's memory and runs the kernels one thread at a time.
#pragma once

#include <memory>

#include "backend/cuda/device.h"

namespace expert::cuda_emulator {

// Memory is given out poisoned with NaN, and refused beyond `bytes` in all.
std::shared_ptr<cuda::Device> make_device(uint64_t bytes = uint64_t{2} << 30);

}  // namespace expert::cuda_emulator
