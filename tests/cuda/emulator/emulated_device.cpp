#include "cuda/emulator/emulated_device.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "core/error.h"
#include "cuda/emulator/fibers.h"

namespace expert::cuda_emulator {

namespace {

constexpr size_t kAlignment = 256;
constexpr int64_t kMostSide = 65535;           // of a grid in y and z
constexpr size_t kSharedBytes = size_t{48} << 10;

class EmulatedDevice final : public cuda::Device {
 public:
  explicit EmulatedDevice(uint64_t bytes) : total_(bytes) {}
  ~EmulatedDevice() override {
    for (const auto& [memory, bytes] : sizes_) std::free(memory);
  }

  const cuda::DeviceTraits& traits() const noexcept override { return traits_; }
  cuda::DeviceMemory memory() const override {
    const std::lock_guard lock(mutex_);
    return {total_ - used_, total_};
  }

  void* allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    void* memory = nullptr;
    // Of its exact size, so that a sanitizer sees what goes beyond it.
    if (bytes > total_ - used_ || posix_memalign(&memory, kAlignment, bytes) != 0) {
      throw Error(ErrorCode::out_of_memory, fmt::format("cannot allocate {} bytes on the emulated device", bytes));
    }
    std::memset(memory, 0xFF, bytes);
    sizes_[memory] = bytes;
    used_ += bytes;
    return memory;
  }
  void free(void* memory) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(memory);
    used_ -= found->second;
    sizes_.erase(found);
    std::free(memory);
  }
  void* allocate_staging(size_t bytes) override { return std::malloc(bytes); }
  void free_staging(void* memory) noexcept override { std::free(memory); }

  void write(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void read(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void enqueue_write(void* to, const void* staging, size_t bytes) override { std::memcpy(to, staging, bytes); }
  void enqueue_clear(void* memory, size_t bytes) override { std::memset(memory, 0, bytes); }
  void mark(int) override {}
  void await_mark(int) override {}
  void wait() override {}

  void enqueue(const cuda::Launch& launch) override {
    const cuda::Grid& grid = launch.grid;
    if (grid.x < 1 || grid.x > INT32_MAX || grid.y < 1 || grid.y > kMostSide || grid.z < 1 || grid.z > kMostSide ||
        grid.threads < 1 || grid.threads > 1024 || grid.shared_bytes > kSharedBytes) {
      fail(ErrorCode::internal, "a launch of {} x {} x {} blocks of {} threads with {} bytes", grid.x, grid.y, grid.z,
           grid.threads, grid.shared_bytes);
    }
    for (int64_t z = 0; z < grid.z; ++z) {
      for (int64_t y = 0; y < grid.y; ++y) {
        for (int64_t x = 0; x < grid.x; ++x) {
          run_block({static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)}, grid.threads,
                    grid.shared_bytes, [&] { launch.call(launch.kernel, launch.arguments); });
        }
      }
    }
  }

 private:
  const cuda::DeviceTraits traits_{"emulated on the host", "emulated", 0};
  const uint64_t total_;
  mutable std::mutex mutex_;
  uint64_t used_ = 0;
  std::map<void*, size_t> sizes_;
};

}  // namespace

std::shared_ptr<cuda::Device> make_device(uint64_t bytes) { return std::make_shared<EmulatedDevice>(bytes); }

}  // namespace expert::cuda_emulator
