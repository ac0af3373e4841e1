// Device memory as models see it: a view without arithmetic and without a host pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/types.h"

namespace expert {

// Memory of one backend. Released with the last view; a backend outlives its buffers.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual size_t size_bytes() const noexcept = 0;
};

// A row-major [rows, cols] view. Copies share the buffer. Default-constructed: empty ("not present").
struct Tensor {
  std::shared_ptr<Buffer> buffer;
  size_t offset = 0;  // bytes from the start of the buffer
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;

  explicit operator bool() const noexcept { return buffer != nullptr; }
  size_t size_bytes() const noexcept { return static_cast<size_t>(rows) * static_cast<size_t>(cols) * size_of(dtype); }
  // Rows [first, first + count) of the same memory.
  Tensor row_range(int64_t first, int64_t count) const {
    Tensor view = *this;
    view.offset += static_cast<size_t>(first * cols) * size_of(dtype);
    view.rows = count;
    return view;
  }
};

}  // namespace expert
