// Memory and tensor access shared by the backends that compute on the host.
#pragma once

#include <cstddef>
#include <memory>

#include "backend/tensor.h"

namespace expert {

// 64-byte aligned; large ones are pages on demand, huge where the system grants them. Throws Error(out_of_memory).
enum class Content { any, zero };
std::shared_ptr<std::byte> allocate_host(size_t bytes, Content content = Content::any);

// A tensor over fresh host memory. Throws Error(out_of_memory), and Error(internal) for a negative size.
Tensor allocate_host_tensor(DType dtype, int64_t rows, int64_t cols);

// First byte of a tensor made by allocate_host_tensor (or a view of one).
std::byte* host_bytes(const Tensor& tensor);
// The same as F32; Error(internal) for another type.
float* host_floats(const Tensor& tensor);

// Error(internal) "linear: x is 3 x 4, expected 3 x 5" unless the tensor is F32 [rows, cols] inside its buffer.
void require_shape(const Tensor& tensor, int64_t rows, int64_t cols, const char* what);

}  // namespace expert
