#include "backend/cuda/cuda_memory.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "backend/cpu_matrix.h"
#include "backend/op_checks.h"
#include "backend/storage.h"
#include "core/error.h"
#include "kernels/cuda/args.h"

namespace expert::cuda {

namespace {

constexpr size_t kLeastScratch = size_t{1} << 16;
constexpr size_t kLeastHalf = size_t{1} << 18;

void check(const KvShape& shape) {
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1 || shape.blocks < 1) {
    fail(ErrorCode::invalid_request, "a KV cache of {} layers, {} heads of {}, {} blocks", shape.layers, shape.kv_heads,
         shape.head_dim, shape.blocks);
  }
  if (shape.head_dim > kernels::cuda::kMostHeadDim) {
    fail(ErrorCode::unsupported, "heads of {} values on a CUDA device, at most {}", shape.head_dim,
         kernels::cuda::kMostHeadDim);
  }
}

}  // namespace

DeviceBlock::DeviceBlock(std::shared_ptr<Device> device, size_t bytes)
    : device_(std::move(device)), size_(bytes), memory_(device_->allocate(std::max<size_t>(bytes, 1))) {}

unsigned char* device_bytes(const Tensor& tensor) {
  return static_cast<const CudaBuffer&>(*tensor.buffer).data() + tensor.offset;
}

float* device_floats(const Tensor& tensor) {
  if (tensor.dtype != DType::f32) fail(ErrorCode::internal, "tensor is {}, expected F32", name_of(tensor.dtype));
  return reinterpret_cast<float*>(device_bytes(tensor));
}

CudaMatrix::CudaMatrix(int64_t rows, int64_t cols, WeightFormat format, std::shared_ptr<const DeviceBlock> block)
    : Matrix(rows, cols, format, is_quantised(format) ? static_cast<int>(kernels::kGroup) : 0, block->size_bytes()),
      block_(std::move(block)) {}

kernels::Storage CudaMatrix::storage() const noexcept { return storage_of(format_); }

std::span<const std::byte> CudaMatrix::host_bytes() const {
  const std::lock_guard lock(mutex_);
  if (host_.empty()) {
    std::vector<std::byte> bytes(block_->size_bytes());
    block_->device().read(bytes.data(), block_->data(), bytes.size());
    host_ = std::move(bytes);
  }
  return host_;
}

std::vector<std::byte> CudaMatrix::read_panels(int64_t first_row, int64_t count) const {
  const int64_t bytes = kernels::panel_bytes(storage(), cols_);
  const int64_t first = first_row / kernels::kPanelRows;
  const int64_t last = kernels::panel_count(first_row + count);
  std::vector<std::byte> panels(static_cast<size_t>((last - first) * bytes));
  block_->device().read(panels.data(), block_->data() + first * bytes, panels.size());
  return panels;
}

CudaKv::CudaKv(std::shared_ptr<Device> device, const KvShape& shape) : shape_(shape), format_(kv_format_of(shape.dtype)) {
  check(shape);
  head_bytes_ = kernels::kv_k_bytes(format_, shape.head_dim) + kernels::kv_v_bytes(format_, shape.head_dim);
  const double wished = static_cast<double>(head_bytes_) * shape.kv_heads * shape.layers * shape.blocks;
  if (wished > 0x1p62) fail(ErrorCode::out_of_memory, "a KV cache of {:.0f} bytes", wished);
  const auto bytes = static_cast<size_t>(int64_t{shape.layers} * shape.blocks * block_bytes());
  Device& own = *device;
  block_ = std::make_unique<DeviceBlock>(std::move(device), bytes);
  own.enqueue_clear(block_->data(), bytes);  // padding is read, and must not be NaN
}

unsigned char* Scratch::of(size_t bytes) {
  if (!block_ || block_->size_bytes() < bytes) {
    block_.reset();
    block_ = std::make_unique<DeviceBlock>(device_, std::max(bytes + bytes / 2, kLeastScratch));
  }
  return block_->data();
}

Staging::~Staging() {
  if (memory_ != nullptr) device_->free_staging(memory_);
}

void Staging::grow(size_t half_bytes) {
  if (memory_ != nullptr) {
    device_->wait();
    device_->free_staging(memory_);
    memory_ = nullptr;
  }
  half_bytes_ = 0;
  memory_ = static_cast<std::byte*>(device_->allocate_staging(2 * half_bytes));
  half_bytes_ = half_bytes;
  used_ = 0;
  half_ = 0;
  marked_[0] = marked_[1] = false;
}

void Staging::enqueue(void* to, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (bytes.size() > half_bytes_) grow(std::max(2 * bytes.size(), kLeastHalf));
  if (used_ + bytes.size() > half_bytes_) {
    device_->mark(half_);
    marked_[half_] = true;
    half_ = 1 - half_;
    used_ = 0;
    if (marked_[half_]) device_->await_mark(half_);
  }
  std::byte* from = memory_ + static_cast<size_t>(half_) * half_bytes_ + used_;
  std::memcpy(from, bytes.data(), bytes.size());
  device_->enqueue_write(to, from, bytes.size());
  used_ += bytes.size();
}

void Lists::send(Staging& staging) {
  if (bytes_.empty()) return;
  unsigned char* to = memory_.of(bytes_.size());
  staging.enqueue(to, bytes_);
  start_ = to;
}

}  // namespace expert::cuda
