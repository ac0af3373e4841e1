#include "backend/cuda/runtime_device.h"

#include <cuda_runtime_api.h>

#include <cstdlib>

#include "backend/cuda/choose_device.h"
#include "core/error.h"

namespace expert::cuda {

namespace {

Survey survey_devices() {
  Survey survey;
  survey.toolkit = CUDART_VERSION;
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) survey.visible = visible;
  if (cudaDriverGetVersion(&survey.driver) != cudaSuccess) survey.driver = 0;
  int count = 0;
  const cudaError_t asked = cudaGetDeviceCount(&count);
  if (asked != cudaSuccess && asked != cudaErrorNoDevice && asked != cudaErrorInsufficientDriver) {
    survey.failure = cudaGetErrorString(asked);
  }
  static_cast<void>(cudaGetLastError());
  for (int i = 0; asked == cudaSuccess && i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) properties = {};
    survey.devices.push_back({properties.name, properties.major, properties.minor});
  }
  return survey;
}

class RuntimeDevice final : public Device {
 public:
  RuntimeDevice(int index, const FoundDevice& found)
      : traits_{found.name, fmt::format("sm_{}{}", found.major, found.minor), index} {
    enter();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "creating a stream");
    for (cudaEvent_t& mark : marks_) {
      check(cudaEventCreateWithFlags(&mark, cudaEventDisableTiming), "creating an event");
    }
  }
  ~RuntimeDevice() override {
    static_cast<void>(cudaSetDevice(traits_.index));
    for (cudaEvent_t mark : marks_) static_cast<void>(cudaEventDestroy(mark));
    static_cast<void>(cudaStreamDestroy(copies_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }

  const DeviceTraits& traits() const noexcept override { return traits_; }
  DeviceMemory memory() const override {
    enter();
    size_t free_bytes = 0;
    size_t total = 0;
    check(cudaMemGetInfo(&free_bytes, &total), "asking for its memory");
    return {free_bytes, total};
  }

  void* allocate(size_t bytes) override {
    enter();
    void* memory = nullptr;
    check_allocation(cudaMalloc(&memory, bytes), bytes, "on the device");
    return memory;
  }
  void free(void* memory) noexcept override {
    static_cast<void>(cudaSetDevice(traits_.index));
    static_cast<void>(cudaFree(memory));
  }
  void* allocate_staging(size_t bytes) override {
    enter();
    void* memory = nullptr;
    check_allocation(cudaMallocHost(&memory, bytes), bytes, "of pinned host memory");
    return memory;
  }
  void free_staging(void* memory) noexcept override {
    static_cast<void>(cudaSetDevice(traits_.index));
    static_cast<void>(cudaFreeHost(memory));
  }

  void write(void* to, const void* from, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, copies_), "copying to it");
    check(cudaStreamSynchronize(copies_), "copying to it");
  }
  void read(void* to, const void* from, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, copies_), "copying from it");
    check(cudaStreamSynchronize(copies_), "copying from it");
  }

  void enqueue_write(void* to, const void* staging, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, staging, bytes, cudaMemcpyHostToDevice, stream_), "copying lists to it");
  }
  void enqueue_clear(void* memory, size_t bytes) override {
    enter();
    check(cudaMemsetAsync(memory, 0, bytes, stream_), "clearing memory");
  }
  void enqueue(const Launch& launch) override {
    enter();
    const Grid& grid = launch.grid;
    void* arguments[] = {const_cast<void*>(launch.arguments)};
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
    const dim3 threads(static_cast<unsigned>(grid.threads));
    check(cudaLaunchKernel(reinterpret_cast<const void*>(launch.kernel), blocks, threads, arguments, grid.shared_bytes,
                           stream_),
          "starting a kernel");
  }
  void mark(int which) override {
    enter();
    check(cudaEventRecord(marks_[which], stream_), "recording an event");
  }
  void await_mark(int which) override {
    enter();
    check(cudaEventSynchronize(marks_[which]), "waiting for an event");
  }
  void wait() override {
    enter();
    check(cudaStreamSynchronize(stream_), "waiting for its work");
  }

 private:
  // The current device belongs to the calling thread, whichever that is.
  void enter() const { check(cudaSetDevice(traits_.index), "choosing it"); }

  void check(cudaError_t result, const char* doing) const {
    if (result == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());
    const bool memory = result == cudaErrorMemoryAllocation;
    throw Error(memory ? ErrorCode::out_of_memory : ErrorCode::inference,
                fmt::format("CUDA device {} ({}), {}: {}", traits_.index, traits_.name, doing,
                            cudaGetErrorString(result)),
                memory ? "free memory on it, or use a smaller model, context or weight format"
                       : "after an error a device stays unusable for this process; open the engine in a new one");
  }
  void check_allocation(cudaError_t result, size_t bytes, const char* where) const {
    if (result != cudaErrorMemoryAllocation) return check(result, "allocating memory");
    static_cast<void>(cudaGetLastError());
    throw Error(ErrorCode::out_of_memory,
                fmt::format("cannot allocate {} bytes {} (CUDA device {}, {})", bytes, where, traits_.index,
                            traits_.name),
                "free memory on it, or use a smaller model, context or weight format");
  }

  const DeviceTraits traits_;
  cudaStream_t stream_ = nullptr;
  cudaStream_t copies_ = nullptr;
  cudaEvent_t marks_[2] = {nullptr, nullptr};
};

}  // namespace

std::shared_ptr<Device> open_runtime_device(int wanted) {
  const Survey survey = survey_devices();
  const int index = choose_device(survey, wanted);
  return std::make_shared<RuntimeDevice>(index, survey.devices[static_cast<size_t>(index)]);
}

}  // namespace expert::cuda
