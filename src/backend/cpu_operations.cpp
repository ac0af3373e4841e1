#include "backend/cpu_operations.h"

#include <cstring>

#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/error.h"

namespace expert {

void CpuOperations::rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  require_shape(x, out.rows, out.cols, "rms_norm: x");
  require_shape(out, x.rows, x.cols, "rms_norm: out");
  require_shape(weight, 1, x.cols, "rms_norm: weight");
  if (x.rows == 0 || x.cols == 0) return;
  linear_.forget_made_rows();
  in_pieces(member_, x.rows, kLeastElements / x.cols, [&](int64_t first, int64_t last) {
    kernels_.rms_norm(host_floats(x) + first * x.cols, host_floats(weight), eps, last - first, x.cols,
                      host_floats(out) + first * x.cols);
  });
}

void CpuOperations::linear(const Tensor& x, std::span<const LinearOutput> outputs) { linear_.run(x, outputs); }

void CpuOperations::gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) {
  linear_.run_gated(x, gate, up, out);
}

void CpuOperations::swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_shape(gate, out.rows, out.cols, "swiglu: gate");
  require_shape(up, out.rows, out.cols, "swiglu: up");
  require_shape(out, gate.rows, gate.cols, "swiglu: out");
  linear_.forget_made_rows();
  in_pieces(member_, gate.rows * gate.cols, kLeastElements / 4, [&](int64_t first, int64_t last) {
    kernels_.swiglu(host_floats(gate) + first, host_floats(up) + first, last - first, host_floats(out) + first);
  });
}

void CpuOperations::add(const Tensor& x, const Tensor& y) {
  require_shape(x, y.rows, y.cols, "add: x");
  require_shape(y, x.rows, x.cols, "add: y");
  linear_.forget_made_rows();
  in_pieces(member_, x.rows * x.cols, kLeastElements, [&](int64_t first, int64_t last) {
    kernels_.add(host_floats(x) + first, host_floats(y) + first, last - first, host_floats(x) + first);
  });
}

void CpuOperations::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(rows.size()), x.cols, "gather_rows: out");
  require_shape(x, x.rows, out.cols, "gather_rows: x");
  linear_.forget_made_rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= x.rows) fail(ErrorCode::internal, "gather_rows: row {} of {}", rows[i], x.rows);
    std::memcpy(host_floats(out) + static_cast<int64_t>(i) * x.cols, host_floats(x) + rows[i] * x.cols,
                static_cast<size_t>(x.cols) * sizeof(float));
  }
}

}  // namespace expert
