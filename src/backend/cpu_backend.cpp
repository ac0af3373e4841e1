#include "backend/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu_matrix.h"
#include "backend/host_memory.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr int64_t kLeastElements = 16384;  // of an elementwise operation, for a task of its own
constexpr const char* kLayoutName = "panel16-1";

}  // namespace

CpuBackend::CpuBackend(const kernels::CpuKernels& kernels, int threads)
    : kernels_(kernels),
      pool_(threads),
      info_{"cpu", kernels.isa, pool_.threads(), kLayoutName},
      linear_(kernels_, pool_) {}

Tensor CpuBackend::allocate(DType dtype, int64_t rows, int64_t cols) { return allocate_host_tensor(dtype, rows, cols); }

void CpuBackend::upload(const Tensor& destination, const void* source, size_t bytes) {
  if (bytes > destination.size_bytes())
    fail(ErrorCode::internal, "upload: {} bytes into {}", bytes, destination.size_bytes());
  if (bytes > 0) std::memcpy(host_bytes(destination), source, bytes);
}

void CpuBackend::download(void* destination, const Tensor& source, size_t bytes) {
  if (bytes > source.size_bytes()) fail(ErrorCode::internal, "download: {} bytes of {}", bytes, source.size_bytes());
  if (bytes > 0) std::memcpy(destination, host_bytes(source), bytes);
}

MatrixPtr CpuBackend::pack(const MatrixSource& source, WeightFormat format) {
  return pack_matrix(source, format, pool_.threads());
}

std::span<const std::byte> CpuBackend::packed_bytes(const Matrix& matrix) const {
  return static_cast<const CpuMatrix&>(matrix).bytes();
}

MatrixPtr CpuBackend::adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                            std::shared_ptr<const void> owner) {
  const size_t wanted = packed_matrix_size(rows, cols, format);
  if (bytes.size() != wanted) {
    fail(ErrorCode::load, "packed {} matrix of {} x {} has {} bytes, expected {}", name_of(format), rows, cols,
         bytes.size(), wanted);
  }
  return std::make_shared<CpuMatrix>(rows, cols, format, bytes, std::move(owner));
}

size_t CpuBackend::packed_size(int64_t rows, int64_t cols, WeightFormat format) const {
  return packed_matrix_size(rows, cols, format);
}

void CpuBackend::embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) {
  const auto& panels = static_cast<const CpuMatrix&>(table);
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), table.cols(), "embed: out");
  for (const int32_t token : layout.token_ids) {
    if (token < 0 || token >= table.rows()) fail(ErrorCode::internal, "embed: token {} of {}", token, table.rows());
  }
  float* to = host_floats(out);
  in_pieces(out.rows, kLeastElements / table.cols(), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      kernels_.unpack_row(panels.storage(), panels.panels(), table.cols(), layout.token_ids[static_cast<size_t>(r)],
                          to + r * table.cols());
    }
  });
}

void CpuBackend::rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  require_shape(x, out.rows, out.cols, "rms_norm: x");
  require_shape(out, x.rows, x.cols, "rms_norm: out");
  require_shape(weight, 1, x.cols, "rms_norm: weight");
  if (x.rows == 0 || x.cols == 0) return;
  in_pieces(x.rows, kLeastElements / x.cols, [&](int64_t first, int64_t last) {
    kernels_.rms_norm(host_floats(x) + first * x.cols, host_floats(weight), eps, last - first, x.cols,
                      host_floats(out) + first * x.cols);
  });
}

void CpuBackend::linear(const Tensor& x, std::span<const LinearOutput> outputs) { linear_.run(x, outputs); }

void CpuBackend::swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_shape(gate, out.rows, out.cols, "swiglu: gate");
  require_shape(up, out.rows, out.cols, "swiglu: up");
  require_shape(out, gate.rows, gate.cols, "swiglu: out");
  in_pieces(gate.rows * gate.cols, kLeastElements / 4, [&](int64_t first, int64_t last) {
    kernels_.swiglu(host_floats(gate) + first, host_floats(up) + first, last - first, host_floats(out) + first);
  });
}

void CpuBackend::add(const Tensor& x, const Tensor& y) {
  require_shape(x, y.rows, y.cols, "add: x");
  require_shape(y, x.rows, x.cols, "add: y");
  in_pieces(x.rows * x.cols, kLeastElements, [&](int64_t first, int64_t last) {
    kernels_.add(host_floats(x) + first, host_floats(y) + first, last - first, host_floats(x) + first);
  });
}

void CpuBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(rows.size()), x.cols, "gather_rows: out");
  require_shape(x, x.rows, out.cols, "gather_rows: x");
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= x.rows) fail(ErrorCode::internal, "gather_rows: row {} of {}", rows[i], x.rows);
    std::memcpy(host_floats(out) + static_cast<int64_t>(i) * x.cols, host_floats(x) + rows[i] * x.cols,
                static_cast<size_t>(x.cols) * sizeof(float));
  }
}

}  // namespace expert
