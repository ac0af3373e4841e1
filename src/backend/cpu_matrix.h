// Weights as the CPU kernels read them: panels (kernels/formats.h).
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "backend/matrix.h"
#include "backend/storage.h"
#include "kernels/cpu/panels.h"

namespace expert {

// How packing reads values of a type; Error(unsupported), which names `what`, for those it cannot.
kernels::Source source_of(DType dtype, std::string_view what);
// Bytes of a packed matrix; Error(invalid_request) for an empty shape.
size_t packed_matrix_size(int64_t rows, int64_t cols, kernels::Storage storage);
// Whether BF16 weights of this shape may be narrow; which they are is told by their size.
bool may_be_narrow(int64_t rows, int64_t cols);

class CpuMatrix final : public Matrix {
 public:
  CpuMatrix(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> panels,
            std::shared_ptr<const void> owner)
      : Matrix(rows, cols, format, is_quantised(format) ? static_cast<int>(kernels::kGroup) : 0, panels.size()),
        storage_(storage_of(format)),
        panels_(panels),
        owner_(std::move(owner)) {
    if (format == WeightFormat::bf16 && panels.size() != packed_matrix_size(rows, cols, storage_)) {
      storage_ = kernels::Storage::narrow_bf16;
    }
  }

  const std::byte* panels() const noexcept { return panels_.data(); }
  std::span<const std::byte> bytes() const noexcept { return panels_; }
  kernels::Storage storage() const noexcept { return storage_; }
  int64_t panel_count() const noexcept { return kernels::panel_count(rows_); }

 private:
  kernels::Storage storage_;
  std::span<const std::byte> panels_;
  std::shared_ptr<const void> owner_;  // of panels_
};

// Calls pack(rows, first_row, count) for the source's rows in chunks of whole panels, on up to `threads` short-lived
// threads of its own, each with about a megabyte of rows. Rethrows what source.read and pack throw.
using PackRows = std::function<void(const std::byte* rows, int64_t first_row, int64_t count)>;
void pack_in_chunks(const MatrixSource& source, int threads, const PackRows& pack);

// Reads the source in chunks of whole panels, on up to `threads` short-lived threads of its own, and packs them;
// besides the result about two MB per thread are in use. `quantise` finds the scales of INT8 and INT4 weights. Rethrows
// what source.read throws.
std::shared_ptr<const CpuMatrix> pack_matrix(const MatrixSource& source, WeightFormat format,
                                             kernels::QuantiseWeights quantise, int threads);

// BF16 weights in 12 bits each, without loss; null where their shape or their values do not allow it. Reads the source as
// pack_matrix does.
std::shared_ptr<const CpuMatrix> pack_narrow_matrix(const MatrixSource& source, int threads);

}  // namespace expert
