// Device memory of the CUDA backend, weights in it, and the lists that kernels read.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/device.h"
#include "kernels/formats.h"
#include "kernels/kv_format.h"

namespace expert::cuda {

// One allocation.
class DeviceBlock {
 public:
  DeviceBlock(std::shared_ptr<Device> device, size_t bytes);
  ~DeviceBlock() { device_->free(memory_); }
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;
  unsigned char* data() const noexcept { return static_cast<unsigned char*>(memory_); }
  size_t size_bytes() const noexcept { return size_; }
  Device& device() const noexcept { return *device_; }

 private:
  std::shared_ptr<Device> device_;
  size_t size_;
  void* memory_;
};

class CudaBuffer final : public Buffer {
 public:
  CudaBuffer(std::shared_ptr<Device> device, size_t bytes) : block_(std::move(device), bytes) {}
  size_t size_bytes() const noexcept override { return block_.size_bytes(); }
  unsigned char* data() const noexcept { return block_.data(); }

 private:
  DeviceBlock block_;
};

unsigned char* device_bytes(const Tensor& tensor);
// Error(internal) for another type than F32.
float* device_floats(const Tensor& tensor);
inline const float* floats_or_null(const Tensor& tensor) { return tensor ? device_floats(tensor) : nullptr; }

// Panels of kernels/formats.h: what the CPU packs, byte for byte, so that both share a weight cache.
class CudaMatrix final : public Matrix {
 public:
  CudaMatrix(int64_t rows, int64_t cols, WeightFormat format, std::shared_ptr<const DeviceBlock> block);
  const unsigned char* panels() const noexcept { return block_->data(); }
  kernels::Storage storage() const noexcept;
  // Read from the device when asked for the first time and kept; thread-safe.
  std::span<const std::byte> host_bytes() const;
  // Whole panels that hold rows [first_row, first_row + count).
  std::vector<std::byte> read_panels(int64_t first_row, int64_t count) const;

 private:
  std::shared_ptr<const DeviceBlock> block_;
  mutable std::mutex mutex_;
  mutable std::vector<std::byte> host_;
};

// Factors of kernels/factors.h.
class CudaFactor final : public Matrix {
 public:
  using Role = FactorSource::Role;
  CudaFactor(Role role, int64_t rows, int64_t cols, WeightFormat format, size_t bytes, size_t offset,
             std::shared_ptr<const DeviceBlock> block)
      : Matrix(rows, cols, format, 0, bytes), role_(role), offset_(offset), block_(std::move(block)) {}
  Role role() const noexcept { return role_; }
  const unsigned char* bytes() const noexcept { return block_->data() + offset_; }
  bool is_bf16() const noexcept { return format_ == WeightFormat::bf16; }

 private:
  Role role_;
  size_t offset_;
  std::shared_ptr<const DeviceBlock> block_;
};

// KV blocks in the layout of kernels/kv_format.h: [layer][block][kv head].
class CudaKv final : public KvStorage {
 public:
  CudaKv(std::shared_ptr<Device> device, const KvShape& shape);
  size_t size_bytes() const noexcept override { return block_->size_bytes(); }
  const KvShape& shape() const noexcept { return shape_; }
  kernels::KvFormat format() const noexcept { return format_; }
  unsigned char* layer(int64_t index) const noexcept { return block_->data() + index * shape_.blocks * block_bytes(); }
  int64_t head_bytes() const noexcept { return head_bytes_; }
  int64_t block_bytes() const noexcept { return shape_.kv_heads * head_bytes_; }
  int64_t value_offset() const noexcept { return kernels::kv_k_bytes(format_, shape_.head_dim); }

 private:
  KvShape shape_;
  kernels::KvFormat format_;
  int64_t head_bytes_;
  std::unique_ptr<DeviceBlock> block_;
};

// Memory that grows and keeps no contents.
class Scratch {
 public:
  explicit Scratch(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  unsigned char* of(size_t bytes);

 private:
  std::shared_ptr<Device> device_;
  std::unique_ptr<DeviceBlock> block_;
};

// Host memory from which lists go to the device while the caller writes the next ones: two halves, taken in turn.
class Staging {
 public:
  explicit Staging(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  void enqueue(void* to, std::span<const std::byte> bytes);

 private:
  void grow(size_t half_bytes);
  std::shared_ptr<Device> device_;
  std::byte* memory_ = nullptr;
  size_t half_bytes_ = 0;
  size_t used_ = 0;
  int half_ = 0;
  bool marked_[2] = {false, false};
};

// Several lists that are made on the host and go to the device as one piece.
class Lists {
 public:
  explicit Lists(std::shared_ptr<Device> device) : memory_(std::move(device)) {}

  void clear() { bytes_.clear(); }
  // The list's place, for at() once the lists are sent.
  template <typename T>
  size_t add(std::span<const T> items) {
    const size_t place = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    const std::span<const std::byte> raw = std::as_bytes(items);
    bytes_.resize(place + raw.size());
    std::copy(raw.begin(), raw.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(place));
    return place;
  }
  void send(Staging& staging);
  template <typename T>
  const T* at(size_t place) const {
    return reinterpret_cast<const T*>(start_ + place);
  }

 private:
  static constexpr size_t kAlignment = 16;
  Scratch memory_;
  std::vector<std::byte> bytes_;
  const unsigned char* start_ = nullptr;
};

}  // namespace expert::cuda
