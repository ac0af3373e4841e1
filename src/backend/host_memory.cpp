#include "backend/host_memory.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "core/error.h"
#include "core/pages.h"

namespace expert {

namespace {

constexpr size_t kAlignment = 64;

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(size_t bytes) : memory_(allocate_host(bytes)), size_(bytes) {}
  size_t size_bytes() const noexcept override { return size_; }
  std::byte* data() const noexcept { return memory_.get(); }

 private:
  std::shared_ptr<std::byte> memory_;
  size_t size_;
};

[[noreturn]] void out_of_memory(size_t bytes) {
  throw Error(ErrorCode::out_of_memory, fmt::format("cannot allocate {} bytes", bytes),
              "free memory, or use a smaller model, context or weight format");
}

size_t checked_size(DType dtype, int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0) fail(ErrorCode::internal, "allocate: {} x {}", rows, cols);
  const auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 8);
  const auto r = static_cast<uint64_t>(rows);
  const auto c = static_cast<uint64_t>(cols);
  if (c != 0 && r > limit / c) out_of_memory(std::numeric_limits<size_t>::max());
  return static_cast<size_t>(r * c) * size_of(dtype);
}

}  // namespace

std::shared_ptr<std::byte> allocate_host(size_t bytes, Content content) {
  if (bytes >= kHugePage) {
    try {
      Pages pages = Pages::allocate(bytes, content == Content::zero ? Pages::Content::zero : Pages::Content::any);
      return {pages.start, [pages](std::byte*) mutable { pages.release(); }};
    } catch (const std::bad_alloc&) {
      out_of_memory(bytes);
    }
  }
  const size_t rounded = (bytes + kAlignment) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) out_of_memory(bytes);
  if (content == Content::zero) std::memset(memory, 0, rounded);
  return {static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); }};
}

Tensor allocate_host_tensor(DType dtype, int64_t rows, int64_t cols) {
  Tensor tensor;
  tensor.buffer = std::make_shared<HostBuffer>(checked_size(dtype, rows, cols));
  tensor.dtype = dtype;
  tensor.rows = rows;
  tensor.cols = cols;
  return tensor;
}

std::byte* host_bytes(const Tensor& tensor) {
  return static_cast<const HostBuffer&>(*tensor.buffer).data() + tensor.offset;
}

float* host_floats(const Tensor& tensor) {
  if (tensor.dtype != DType::f32) fail(ErrorCode::internal, "tensor is {}, expected F32", name_of(tensor.dtype));
  return reinterpret_cast<float*>(host_bytes(tensor));
}

void require_shape(const Tensor& tensor, int64_t rows, int64_t cols, const char* what) {
  if (!tensor) fail(ErrorCode::internal, "{}: tensor is empty, expected {} x {}", what, rows, cols);
  if (tensor.rows != rows || tensor.cols != cols || tensor.dtype != DType::f32 ||
      tensor.offset + tensor.size_bytes() > tensor.buffer->size_bytes()) {
    fail(ErrorCode::internal, "{}: tensor is {} {} x {}, expected F32 {} x {}", what, name_of(tensor.dtype),
         tensor.rows, tensor.cols, rows, cols);
  }
}

}  // namespace expert
