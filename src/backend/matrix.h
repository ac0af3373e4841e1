// Weights of a linear layer in the backend's own layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "core/types.h"

namespace expert {

enum class WeightFormat : uint8_t { f32, bf16, int8, int4 };

const char* name_of(WeightFormat format);

constexpr bool is_quantised(WeightFormat format) {
  return format == WeightFormat::int8 || format == WeightFormat::int4;
}
// What experts over a base in `format` are kept in: they are small, and never quantised.
constexpr WeightFormat expert_format(WeightFormat format) {
  return format == WeightFormat::f32 ? WeightFormat::f32 : WeightFormat::bf16;
}

// Where the rows of a [rows, cols] matrix come from. `read` fills `count` consecutive rows (row-major, in `dtype`)
// into host memory; the backend calls it in ascending, non-overlapping chunks, possibly from several threads at once, and
// begins again where the first layout it tried does not fit the values.
struct MatrixSource {
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::function<void(int64_t first_row, int64_t count, void* destination)> read;
};

// An immutable packed matrix [rows = outputs, cols = inputs]. Created by Backend::pack or Backend::adopt.
// `group` and scales belong to quantised formats: group = inputs per scale, 0 where a format has none.
class Matrix {
 public:
  virtual ~Matrix() = default;
  int64_t rows() const noexcept { return rows_; }
  int64_t cols() const noexcept { return cols_; }
  WeightFormat format() const noexcept { return format_; }
  int group() const noexcept { return group_; }
  // Bytes one pass over the matrix reads, scales included.
  size_t size_bytes() const noexcept { return size_bytes_; }

 protected:
  Matrix(int64_t rows, int64_t cols, WeightFormat format, int group, size_t size_bytes)
      : rows_(rows), cols_(cols), format_(format), group_(group), size_bytes_(size_bytes) {}
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  int64_t rows_;
  int64_t cols_;
  WeightFormat format_;
  int group_;
  size_t size_bytes_;
};

using MatrixPtr = std::shared_ptr<const Matrix>;

// One factor of an expert's low-rank term B (A x): A [rank, in] or B [out, rank]. Every value is multiplied by `scale`
// and by its row's entry of `row_scale` (empty: ones), at F32, before the format rounds.
struct FactorSource {
  enum class Role : uint8_t { a, b };
  Role role = Role::a;
  MatrixSource values;
  float scale = 1.0F;
  std::span<const float> row_scale;
};

}  // namespace expert
