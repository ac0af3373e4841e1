#include "backend/cuda/choose_device.h"

#include "core/error.h"

namespace expert::cuda {

namespace {

constexpr int kLeastMajor = 8;  // the first with BF16
constexpr const char* kUseCpu = "use device 'cpu'";

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

bool usable(const FoundDevice& device) { return device.major >= kLeastMajor; }

[[noreturn]] void refuse(std::string message, std::string hint) {
  throw Error(ErrorCode::unsupported, std::move(message), std::move(hint));
}

void check_driver(const Survey& survey) {
  if (survey.visible && survey.visible->empty()) {
    refuse("CUDA_VISIBLE_DEVICES is set to nothing, which hides every CUDA device",
           fmt::format("unset it or name a device in it, or {}", kUseCpu));
  }
  if (survey.driver == 0) {
    refuse("this machine has no NVIDIA driver (libcuda.so.1)",
           fmt::format("install one that knows CUDA {}, or {}", version(survey.toolkit), kUseCpu));
  }
  if (survey.driver < survey.toolkit) {
    refuse(fmt::format("the NVIDIA driver knows CUDA up to {}, the CUDA plug-in needs {}", version(survey.driver),
                       version(survey.toolkit)),
           fmt::format("install a newer driver (580.65.06 is the first that knows CUDA 13.0), or {}", kUseCpu));
  }
}

void check_devices(const Survey& survey) {
  if (!survey.failure.empty()) refuse(fmt::format("the CUDA devices cannot be used: {}", survey.failure), kUseCpu);
  if (!survey.devices.empty()) return;
  if (survey.visible) {
    refuse(fmt::format("no CUDA device is visible: CUDA_VISIBLE_DEVICES is '{}'", *survey.visible),
           fmt::format("name a device in it that nvidia-smi lists, or {}", kUseCpu));
  }
  refuse("the NVIDIA driver finds no CUDA device", kUseCpu);
}

[[noreturn]] void refuse_old(const FoundDevice& device, int index) {
  refuse(fmt::format("CUDA device {} ({}) has compute capability {}.{}; 8.0 is the least, the first with BF16",
                     index, device.name, device.major, device.minor),
         kUseCpu);
}

}  // namespace

int choose_device(const Survey& survey, int wanted) {
  check_driver(survey);
  check_devices(survey);
  const auto count = static_cast<int>(survey.devices.size());
  if (wanted >= count) {
    refuse(fmt::format("device 'cuda:{}': there {} {} CUDA device{}", wanted, count == 1 ? "is" : "are", count,
                       count == 1 ? "" : "s"),
           fmt::format("the last one is cuda:{}", count - 1));
  }
  if (wanted >= 0) {
    const FoundDevice& device = survey.devices[static_cast<size_t>(wanted)];
    if (!usable(device)) refuse_old(device, wanted);
    return wanted;
  }
  for (int i = 0; i < count; ++i) {
    if (usable(survey.devices[static_cast<size_t>(i)])) return i;
  }
  refuse_old(survey.devices.front(), 0);
}

}  // namespace expert::cuda
