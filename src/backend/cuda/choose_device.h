// Which device a request for "cuda" or "cuda:N" gets, or in plain words why none: over what was found, so that every
// answer can be tested where there is no GPU.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace expert::cuda {

struct FoundDevice {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
};

// Versions as CUDA writes them: 13000 is 13.0.
struct Survey {
  int toolkit = 0;  // what the plug-in was built with
  int driver = 0;   // the newest the driver knows; 0: no driver
  std::optional<std::string> visible;  // CUDA_VISIBLE_DEVICES
  std::string failure;  // what asking for the devices said, where it failed otherwise
  std::vector<FoundDevice> devices;
};

// `wanted`: an index, or -1: the first one that can be used. Throws Error(unsupported).
int choose_device(const Survey& survey, int wanted);

}  // namespace expert::cuda
