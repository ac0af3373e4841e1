// A Device over the CUDA runtime, which is linked statically and finds the driver by name.
#pragma once

#include <memory>

#include "backend/cuda/device.h"

namespace expert::cuda {

// -1: the first device that can be used. Throws Error(unsupported) as choose_device() does.
std::shared_ptr<Device> open_runtime_device(int wanted);

}  // namespace expert::cuda
