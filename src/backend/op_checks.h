// What every packing backend asks of the arguments of its operations before it computes. Throws Error(internal): a
// wrong shape here is a mistake of ours, not of the caller.
#pragma once

#include <typeinfo>

#include "backend/backend.h"
#include "backend/host_memory.h"
#include "core/error.h"
#include "kernels/kv_format.h"

namespace expert {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// -1: any number of rows or columns.
inline void require_size(const Matrix* matrix, int64_t rows, int64_t cols, const char* what) {
  if (matrix == nullptr) fail(ErrorCode::internal, "linear: {} is missing", what);
  if ((rows >= 0 && matrix->rows() != rows) || (cols >= 0 && matrix->cols() != cols)) {
    fail(ErrorCode::internal, "linear: {} is {} x {}, expected {} x {}", what, matrix->rows(), matrix->cols(), rows,
         cols);
  }
}

// `Packed`: what this backend's pack() makes.
template <class Packed>
const Packed& require_matrix(const Matrix* matrix, int64_t rows, int64_t cols, const char* what) {
  require_size(matrix, rows, cols, what);
  if (typeid(*matrix) != typeid(Packed)) fail(ErrorCode::internal, "linear: {} was not made by pack()", what);
  return static_cast<const Packed&>(*matrix);
}

// `Factor`: what this backend's pack_factors() makes.
template <class Factor>
const Factor& require_factor(const Matrix* matrix, FactorSource::Role role, int64_t rows, int64_t cols,
                             const char* what) {
  require_size(matrix, rows, cols, what);
  if (typeid(*matrix) == typeid(Factor)) {
    const auto& factor = static_cast<const Factor&>(*matrix);
    if (factor.role() == role) return factor;
  }
  fail(ErrorCode::internal, "linear: {} was not made by pack_factors()", what);
}

inline void require_vector(const Tensor& tensor, int64_t cols, const char* what) {
  if (tensor) require_shape(tensor, 1, cols, what);
}

inline kernels::KvFormat kv_format_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return kernels::KvFormat::f32;
    case DType::bf16:
      return kernels::KvFormat::bf16;
    case DType::i8:
      return kernels::KvFormat::int8;
    default:
      fail(ErrorCode::unsupported, "a KV cache in {}", name_of(dtype));
  }
}

inline void require_attention_shapes(const AttentionOp& op, const KvShape& kv) {
  if (op.kv_heads < 1 || op.heads % op.kv_heads != 0 || kv.kv_heads != op.kv_heads || kv.head_dim != op.head_dim ||
      op.layer < 0 || op.layer >= kv.layers) {
    fail(ErrorCode::internal, "attention: {} heads, {} kv heads of {} values, layer {} do not fit the KV cache",
         op.heads, op.kv_heads, op.head_dim, op.layer);
  }
  require_shape(op.q, op.q.rows, int64_t{op.heads} * op.head_dim, "attention: q");
  require_shape(op.k, op.q.rows, int64_t{op.kv_heads} * op.head_dim, "attention: k");
  require_shape(op.v, op.q.rows, int64_t{op.kv_heads} * op.head_dim, "attention: v");
  require_shape(op.out, op.q.rows, int64_t{op.heads} * op.head_dim, "attention: out");
  if (op.rope == nullptr || op.rope->rotary_dim > op.head_dim || op.rope->rotary_dim % 2 != 0) {
    fail(ErrorCode::internal, "attention: rotation of {} of {} values", op.rope ? op.rope->rotary_dim : 0, op.head_dim);
  }
  for (const Tensor* norm : {op.q_norm, op.k_norm}) {
    if (norm != nullptr) require_shape(*norm, 1, op.head_dim, "attention: norm");
  }
}

// They cover all rows in order, and their blocks are of this cache. After require_attention_shapes().
inline void require_segments(const BatchLayout& layout, const AttentionOp& op, const KvShape& kv) {
  int64_t next = 0;
  for (const Segment& segment : layout.segments) {
    const int64_t end = int64_t{segment.first_position} + segment.row_count;
    const int64_t blocks = ceil_div(end, kKvBlockTokens);
    if (segment.first_row != next || segment.row_count < 0 || segment.first_position < 0 || end > op.rope->cos.rows ||
        blocks > static_cast<int64_t>(segment.block_table.size())) {
      fail(ErrorCode::internal, "attention: segment at row {}, positions [{}, {}), {} KV blocks", segment.first_row,
           segment.first_position, end, segment.block_table.size());
    }
    for (const int32_t block : segment.block_table.first(static_cast<size_t>(blocks))) {
      if (block < 0 || block >= kv.blocks) fail(ErrorCode::internal, "attention: KV block {} of {}", block, kv.blocks);
    }
    next += segment.row_count;
  }
  if (next != op.q.rows) fail(ErrorCode::internal, "attention: segments cover {} of {} rows", next, op.q.rows);
}

}  // namespace expert
