// What the CUDA backend asks of a device: memory, copies and launches on one stream. There are two: one over the CUDA
// runtime (runtime_device.cpp) and, in the tests, an emulated one that runs the same kernels on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace expert::cuda {

// Blocks of threads in three directions, threads per block and the memory a block's threads share.
struct Grid {
  int64_t x = 1;
  int64_t y = 1;
  int64_t z = 1;
  int threads = 32;
  size_t shared_bytes = 0;
};

struct Launch {
  void (*kernel)();                                       // its true type takes one struct by value
  void (*call)(void (*kernel)(), const void* arguments);  // one thread of it: for an emulator
  Grid grid;
  const void* arguments;
};

struct DeviceTraits {
  std::string name;   // "NVIDIA H200"
  std::string isa;    // "sm_90"
  int index = 0;
};

struct DeviceMemory {
  uint64_t free = 0;
  uint64_t total = 0;
};

// allocate(), free(), write(), read(), memory() and wait() may be called from any thread, the others from one at a time.
// Everything throws Error(out_of_memory) or Error(inference), which names what the device said.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceTraits& traits() const noexcept = 0;
  virtual DeviceMemory memory() const = 0;

  // At least 256-byte aligned. free() waits for work that may still use it.
  virtual void* allocate(size_t bytes) = 0;
  virtual void free(void* memory) noexcept = 0;
  // Host memory that enqueue_write() may read while the caller goes on.
  virtual void* allocate_staging(size_t bytes) = 0;
  virtual void free_staging(void* memory) noexcept = 0;

  // Done when they return; not in order with what is enqueued.
  virtual void write(void* to, const void* from, size_t bytes) = 0;
  virtual void read(void* to, const void* from, size_t bytes) = 0;

  // In order, on the one stream. Arguments are copied.
  virtual void enqueue_write(void* to, const void* staging, size_t bytes) = 0;
  virtual void enqueue_clear(void* memory, size_t bytes) = 0;
  virtual void enqueue(const Launch& launch) = 0;
  // Marks 0 and 1 of the stream: await_mark() returns when what was enqueued before the last mark() is done.
  virtual void mark(int which) = 0;
  virtual void await_mark(int which) = 0;
  virtual void wait() = 0;
};

template <typename Arguments>
void launch(Device& device, void (*kernel)(Arguments), const Grid& grid, const Arguments& arguments) {
  const auto call = [](void (*any)(), const void* values) {
    reinterpret_cast<void (*)(Arguments)>(any)(*static_cast<const Arguments*>(values));
  };
  device.enqueue({reinterpret_cast<void (*)()>(kernel), call, grid, &arguments});
}

}  // namespace expert::cuda
