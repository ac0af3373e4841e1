#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <limits>

#include "backend/cpu_factor.h"
#include "backend/cpu_matrix.h"
#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/cores.h"
#include "core/error.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert::cuda {

namespace kc = kernels::cuda;

namespace {

constexpr const char* kLayoutName = "panel16-2";  // as on the CPU: the caches of weights are the same

Grid grid_over(int64_t rows, int64_t cols) {
  return {rows, ceil_div(cols, kc::kPlainThreads), 1, kc::kPlainThreads};
}

Grid grid_over(int64_t count) { return {ceil_div(count, kc::kPlainThreads), 1, 1, kc::kPlainThreads}; }

const CudaMatrix& table_of(const Matrix& matrix) { return static_cast<const CudaMatrix&>(matrix); }

[[noreturn]] void out_of_memory() {
  throw Error(ErrorCode::out_of_memory, "a tensor has more values than memory can have",
              "use a smaller model, context or weight format");
}

size_t checked_size(DType dtype, int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0) fail(ErrorCode::internal, "allocate: {} x {}", rows, cols);
  const auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 8);
  const auto r = static_cast<uint64_t>(rows);
  const auto c = static_cast<uint64_t>(cols);
  if (c != 0 && r > limit / c) out_of_memory();
  return static_cast<size_t>(r * c) * size_of(dtype);
}

std::shared_ptr<const DeviceBlock> to_device(const std::shared_ptr<Device>& device, const void* from, size_t bytes) {
  auto block = std::make_shared<DeviceBlock>(device, bytes);
  device->write(block->data(), from, bytes);
  return block;
}

}  // namespace

CudaBackend::CudaBackend(std::shared_ptr<Device> device, const kc::Table& kernels, int threads)
    : device_(device),
      kernels_(kernels),
      info_{fmt::format("cuda:{}", device->traits().index), device->traits().isa,
            threads > 0 ? threads : usable_cores(), kLayoutName},
      staging_(device),
      call_lists_(device),
      step_(device),
      states_(device),
      linear_(device, kernels, staging_) {}

// --- memory ----------------------------------------------------------------------------------------------------------

Tensor CudaBackend::allocate(DType dtype, int64_t rows, int64_t cols) {
  Tensor tensor;
  tensor.buffer = std::make_shared<CudaBuffer>(device_, checked_size(dtype, rows, cols));
  tensor.dtype = dtype;
  tensor.rows = rows;
  tensor.cols = cols;
  return tensor;
}

// Waits for what was enqueued before, which may read the old contents.
void CudaBackend::upload(const Tensor& destination, const void* source, size_t bytes) {
  if (bytes > destination.size_bytes())
    fail(ErrorCode::internal, "upload: {} bytes into {}", bytes, destination.size_bytes());
  if (bytes == 0) return;
  device_->wait();
  device_->write(device_bytes(destination), source, bytes);
}

void CudaBackend::download(void* destination, const Tensor& source, size_t bytes) {
  if (bytes > source.size_bytes()) fail(ErrorCode::internal, "download: {} bytes of {}", bytes, source.size_bytes());
  if (bytes == 0) return;
  device_->wait();
  device_->read(destination, device_bytes(source), bytes);
}

std::unique_ptr<KvStorage> CudaBackend::create_kv(const KvShape& shape) {
  return std::make_unique<CudaKv>(device_, shape);
}

// --- weights ---------------------------------------------------------------------------------------------------------

MatrixPtr CudaBackend::pack(const MatrixSource& source, WeightFormat format) {
  const auto host = pack_matrix(source, format, kernels::best_kernels()->quantise_weights, info_.threads);
  return adopt(source.rows, source.cols, format, host->bytes(), nullptr);
}

std::vector<MatrixPtr> CudaBackend::pack_factors(std::span<const FactorSource> sources, WeightFormat format) {
  const std::vector<MatrixPtr> host = pack_cpu_factors(*kernels::best_kernels(), sources, format, info_.threads, false);
  if (host.empty()) return {};
  // They lie in one block, in order.
  const unsigned char* first = static_cast<const CpuFactor&>(*host.front()).bytes();
  const auto& last = static_cast<const CpuFactor&>(*host.back());
  const auto block = to_device(device_, first, static_cast<size_t>(last.bytes() - first) + last.size_bytes());
  std::vector<MatrixPtr> factors;
  factors.reserve(host.size());
  for (const MatrixPtr& matrix : host) {
    const auto& factor = static_cast<const CpuFactor&>(*matrix);
    factors.push_back(std::make_shared<CudaFactor>(factor.role(), factor.rows(), factor.cols(), factor.format(),
                                                   factor.size_bytes(), static_cast<size_t>(factor.bytes() - first),
                                                   block));
  }
  return factors;
}

std::span<const std::byte> CudaBackend::packed_bytes(const Matrix& matrix) const {
  return static_cast<const CudaMatrix&>(matrix).host_bytes();
}

MatrixPtr CudaBackend::adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                             std::shared_ptr<const void>) {
  if (!adopts(rows, cols, format, bytes.size())) {
    fail(ErrorCode::load, "packed {} matrix of {} x {} has {} bytes, expected {}", name_of(format), rows, cols,
         bytes.size(), packed_matrix_size(rows, cols, storage_of(format)));
  }
  return std::make_shared<CudaMatrix>(rows, cols, format, to_device(device_, bytes.data(), bytes.size()));
}

void CudaBackend::unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const {
  const CudaMatrix& table = table_of(matrix);
  if (first_row < 0 || count < 0 || first_row + count > matrix.rows()) {
    fail(ErrorCode::internal, "unpack_rows: rows [{}, {}) of {}", first_row, first_row + count, matrix.rows());
  }
  if (count == 0) return;
  const std::vector<std::byte> panels = table.read_panels(first_row, count);
  for (int64_t r = 0; r < count; ++r) {
    kernels::best_kernels()->unpack_row(table.storage(), panels.data(), matrix.cols(),
                                        first_row % kernels::kPanelRows + r, destination + r * matrix.cols());
  }
}

bool CudaBackend::adopts(int64_t rows, int64_t cols, WeightFormat format, size_t bytes) const {
  return bytes == packed_matrix_size(rows, cols, storage_of(format));
}

// --- operations ------------------------------------------------------------------------------------------------------

void CudaBackend::embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) {
  const CudaMatrix& matrix = table_of(table);
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), table.cols(), "embed: out");
  for (const int32_t token : layout.token_ids) {
    if (token < 0 || token >= table.rows()) fail(ErrorCode::internal, "embed: token {} of {}", token, table.rows());
  }
  if (out.rows == 0) return;
  call_lists_.clear();
  const size_t tokens = call_lists_.add(std::span<const int32_t>(layout.token_ids));
  call_lists_.send(staging_);
  const kc::EmbedArgs args{matrix.panels(), matrix.storage(), out.cols, call_lists_.at<int32_t>(tokens),
                           device_floats(out)};
  launch(*device_, kernels_.embed, grid_over(out.rows, out.cols), args);
}

namespace {

// What embed_deltas() sends.
struct EmbedPlan {
  std::vector<kc::RowTile> tiles;
  std::vector<kc::DeltaVectors> deltas;
  std::vector<kc::EmbedTerm> terms;

  void add(const SegmentDelta& part, int64_t cols) {
    const LinearDelta& delta = *part.delta;
    if (delta.input_scale) fail(ErrorCode::internal, "embed_deltas: an embedding has no input scale");
    if (part.row_count == 0) return;
    for (int32_t at = 0; at < part.row_count; at += kc::kMostRows) {
      tiles.push_back({part.first_row + at, std::min(kc::kMostRows, part.row_count - at),
                       static_cast<int32_t>(deltas.size())});
    }
    for (const Tensor* vector : {&delta.output_scale, &delta.bias, &delta.result_scale}) {
      if (*vector) require_shape(*vector, 1, cols, "embed_deltas: vector");
    }
    kc::DeltaVectors vectors{};
    vectors.output_scale = floats_or_null(delta.output_scale);
    vectors.bias = floats_or_null(delta.bias);
    vectors.result_scale = floats_or_null(delta.result_scale);
    vectors.skip_base = delta.skip_base ? 1 : 0;
    vectors.first_term = static_cast<int32_t>(terms.size());
    for (const DenseTerm& term : delta.dense) {
      const CudaMatrix& d = table_of(*term.d);
      terms.push_back({d.panels(), nullptr, d.storage(), d.storage(), 0, term.weight});
    }
    for (const LowRankTerm& term : delta.low_rank) {
      const CudaMatrix& a = table_of(*term.a);
      const CudaMatrix& b = table_of(*term.b);
      terms.push_back({a.panels(), b.panels(), a.storage(), b.storage(), a.cols(), term.weight});
    }
    vectors.last_term = static_cast<int32_t>(terms.size());
    deltas.push_back(vectors);
  }
};

}  // namespace

void CudaBackend::embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), out.cols, "embed_deltas: out");
  EmbedPlan plan;
  for (const SegmentDelta& part : deltas) plan.add(part, out.cols);
  if (plan.tiles.empty()) return;
  call_lists_.clear();
  const size_t tokens = call_lists_.add(std::span<const int32_t>(layout.token_ids));
  const size_t tiles = call_lists_.add(std::span<const kc::RowTile>(plan.tiles));
  const size_t vectors = call_lists_.add(std::span<const kc::DeltaVectors>(plan.deltas));
  const size_t terms = call_lists_.add(std::span<const kc::EmbedTerm>(plan.terms));
  call_lists_.send(staging_);
  const kc::EmbedDeltaArgs args{call_lists_.at<kc::RowTile>(tiles),   call_lists_.at<kc::DeltaVectors>(vectors),
                                call_lists_.at<kc::EmbedTerm>(terms), call_lists_.at<int32_t>(tokens),
                                out.cols,                             device_floats(out)};
  launch(*device_, kernels_.embed_deltas, grid_over(static_cast<int64_t>(plan.tiles.size()), out.cols), args);
}

void CudaBackend::rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  require_shape(x, out.rows, out.cols, "rms_norm: x");
  require_shape(out, x.rows, x.cols, "rms_norm: out");
  require_shape(weight, 1, x.cols, "rms_norm: weight");
  if (x.rows == 0 || x.cols == 0) return;
  const kc::NormArgs args{device_floats(x), device_floats(weight), device_floats(out), x.cols, eps};
  const Grid grid{x.rows, 1, 1, kc::kNormThreads, kc::kNormThreads / kc::kWarpLanes * sizeof(float)};
  launch(*device_, kernels_.rms_norm, grid, args);
}

void CudaBackend::linear(const Tensor& x, std::span<const LinearOutput> outputs) { linear_.run(x, outputs); }

void CudaBackend::swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_shape(gate, out.rows, out.cols, "swiglu: gate");
  require_shape(up, out.rows, out.cols, "swiglu: up");
  require_shape(out, gate.rows, gate.cols, "swiglu: out");
  const int64_t count = gate.rows * gate.cols;
  if (count == 0) return;
  const kc::PairArgs args{device_floats(gate), device_floats(up), device_floats(out), count};
  launch(*device_, kernels_.swiglu, grid_over(count), args);
}

void CudaBackend::add(const Tensor& x, const Tensor& y) {
  require_shape(x, y.rows, y.cols, "add: x");
  require_shape(y, x.rows, x.cols, "add: y");
  const int64_t count = x.rows * x.cols;
  if (count == 0) return;
  const kc::PairArgs args{device_floats(x), device_floats(y), device_floats(x), count};
  launch(*device_, kernels_.add, grid_over(count), args);
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(rows.size()), x.cols, "gather_rows: out");
  require_shape(x, x.rows, out.cols, "gather_rows: x");
  for (const int32_t row : rows) {
    if (row < 0 || row >= x.rows) fail(ErrorCode::internal, "gather_rows: row {} of {}", row, x.rows);
  }
  if (rows.empty() || x.cols == 0) return;
  call_lists_.clear();
  const size_t place = call_lists_.add(rows);
  call_lists_.send(staging_);
  const kc::GatherArgs args{device_floats(x), call_lists_.at<int32_t>(place), device_floats(out), x.cols};
  launch(*device_, kernels_.gather, grid_over(out.rows, out.cols), args);
}

}  // namespace expert::cuda
