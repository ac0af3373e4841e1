#include "backend/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <typeinfo>

#include "backend/cpu_factor.h"
#include "backend/cpu_matrix.h"
#include "backend/cpu_terms.h"
#include "backend/host_memory.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr int64_t kMostWalked = 4;  // rows: what comes between operations each thread does for all of them
constexpr const char* kLayoutName = "panel16-2";
constexpr const char* kNarrowLayoutName = "panel16-narrow-2";  // where BF16 weights may be narrow

std::vector<std::unique_ptr<CpuOperations>> operations_of(const kernels::CpuKernels& kernels, Crew& crew,
                                                          OperationsShare& share) {
  std::vector<std::unique_ptr<CpuOperations>> operations;
  for (int i = 0; i < crew.size(); ++i) {
    operations.push_back(std::make_unique<CpuOperations>(kernels, crew.member(i), share));
  }
  return operations;
}

}  // namespace

CpuBackend::CpuBackend(const kernels::CpuKernels& kernels, int threads)
    : kernels_(kernels),
      pool_(threads),
      crew_(pool_),
      info_{"cpu", kernels.isa, pool_.threads(), kernels.narrow ? kNarrowLayoutName : kLayoutName},
      share_(pool_.threads()),
      operations_(operations_of(kernels_, crew_, share_)),
      screened_linear_(kernels_, pool_, crew_.member(0), alone().linears()) {}

Tensor CpuBackend::allocate(DType dtype, int64_t rows, int64_t cols) { return allocate_host_tensor(dtype, rows, cols); }

void CpuBackend::upload(const Tensor& destination, const void* source, size_t bytes) {
  if (bytes > destination.size_bytes())
    fail(ErrorCode::internal, "upload: {} bytes into {}", bytes, destination.size_bytes());
  for (const auto& member : operations_) member->linears().forget_made_rows(host_bytes(destination));
  if (bytes > 0) std::memcpy(host_bytes(destination), source, bytes);
}

void CpuBackend::download(void* destination, const Tensor& source, size_t bytes) {
  if (bytes > source.size_bytes()) fail(ErrorCode::internal, "download: {} bytes of {}", bytes, source.size_bytes());
  if (bytes > 0) std::memcpy(destination, host_bytes(source), bytes);
}

std::span<float> CpuBackend::host_values(const Tensor& tensor) const {
  return {host_floats(tensor), static_cast<size_t>(tensor.rows * tensor.cols)};
}

MatrixPtr CpuBackend::pack(const MatrixSource& source, WeightFormat format) {
  if (format == WeightFormat::bf16 && kernels_.narrow) {
    if (const auto narrow = pack_narrow_matrix(source, pool_.threads())) return narrow;
  }
  return pack_matrix(source, format, kernels_.quantise_weights, pool_.threads());
}

std::vector<MatrixPtr> CpuBackend::pack_factors(std::span<const FactorSource> sources, WeightFormat format) {
  return pack_cpu_factors(kernels_, sources, format, pool_.threads(), true);
}

std::shared_ptr<const void> CpuBackend::plan_terms(std::span<const LowRankTerm> low_rank) const {
  for (const LowRankTerm& term : low_rank) {
    const Matrix* a = term.a.get();
    if (a == nullptr || typeid(*a) != typeid(CpuFactor)) return nullptr;  // of an embedding
  }
  return std::make_shared<const CpuTerms>(cpu_terms_of(low_rank));
}

std::span<const std::byte> CpuBackend::packed_bytes(const Matrix& matrix) const {
  if (typeid(matrix) == typeid(CpuScreen)) return static_cast<const CpuScreen&>(matrix).bytes();
  return static_cast<const CpuMatrix&>(matrix).bytes();
}

MatrixPtr CpuBackend::adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                            std::shared_ptr<const void> owner) {
  if (!adopts(rows, cols, format, bytes.size())) {
    fail(ErrorCode::load, "packed {} matrix of {} x {} has {} bytes, expected {}", name_of(format), rows, cols,
         bytes.size(), packed_matrix_size(rows, cols, storage_of(format)));
  }
  return std::make_shared<CpuMatrix>(rows, cols, format, bytes, std::move(owner));
}

void CpuBackend::unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const {
  const auto& panels = static_cast<const CpuMatrix&>(matrix);
  if (first_row < 0 || count < 0 || first_row + count > matrix.rows()) {
    fail(ErrorCode::internal, "unpack_rows: rows [{}, {}) of {}", first_row, first_row + count, matrix.rows());
  }
  for (int64_t r = 0; r < count; ++r) {
    kernels_.unpack_row(panels.storage(), panels.panels(), matrix.cols(), first_row + r,
                        destination + r * matrix.cols());
  }
}

bool CpuBackend::adopts(int64_t rows, int64_t cols, WeightFormat format, size_t bytes) const {
  if (bytes == packed_matrix_size(rows, cols, storage_of(format))) return true;
  return format == WeightFormat::bf16 && kernels_.narrow && may_be_narrow(rows, cols) &&
         bytes == packed_matrix_size(rows, cols, kernels::Storage::narrow_bf16);
}

size_t CpuBackend::screen_size(int64_t rows, int64_t cols) const { return screen_bytes(rows, cols); }

MatrixPtr CpuBackend::pack_screen(const Matrix& matrix) {
  return expert::pack_screen(kernels_, static_cast<const CpuMatrix&>(matrix), pool_.threads());
}

MatrixPtr CpuBackend::adopt_screen(int64_t rows, int64_t cols, std::span<const std::byte> bytes,
                                   std::shared_ptr<const void> owner) {
  if (bytes.size() != screen_bytes(rows, cols)) {
    fail(ErrorCode::load, "a screen of {} x {} has {} bytes, expected {}", rows, cols, bytes.size(),
         screen_bytes(rows, cols));
  }
  return std::make_shared<CpuScreen>(rows, cols, bytes, std::move(owner));
}

void CpuBackend::embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) {
  lookup(table, layout.token_ids, out);
}

// out[r] = table[tokens[r]].
void CpuBackend::lookup(const Matrix& table, std::span<const int32_t> tokens, const Tensor& out) {
  const auto& panels = static_cast<const CpuMatrix&>(table);
  require_shape(out, static_cast<int64_t>(tokens.size()), table.cols(), "embed: out");
  for (const int32_t token : tokens) {
    if (token < 0 || token >= table.rows()) fail(ErrorCode::internal, "embed: token {} of {}", token, table.rows());
  }
  forget_made_rows();
  float* to = host_floats(out);
  in_pieces(crew_.member(0), out.rows, kLeastElements / table.cols(), [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      kernels_.unpack_row(panels.storage(), panels.panels(), table.cols(), tokens[static_cast<size_t>(r)],
                          to + r * table.cols());
    }
  });
}

// The formula of linear_delta.h where the input is one-hot: A x and D x are rows of tables.
void CpuBackend::embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), out.cols, "embed_deltas: out");
  forget_made_rows();
  for (const SegmentDelta& part : deltas) {
    const LinearDelta& delta = *part.delta;
    if (delta.input_scale) fail(ErrorCode::internal, "embed_deltas: an embedding has no input scale");
    if (part.row_count == 0) continue;
    const Tensor y = out.row_range(part.first_row, part.row_count);
    const std::span<const int32_t> tokens = std::span(layout.token_ids)
                                                .subspan(static_cast<size_t>(part.first_row),
                                                         static_cast<size_t>(part.row_count));
    const auto rows = [&](int64_t cols) { return allocate_host_tensor(DType::f32, y.rows, cols); };
    if (delta.skip_base) {
      std::fill_n(host_floats(y), y.rows * y.cols, 0.0F);
    } else if (delta.output_scale) {
      scale_rows(y, delta.output_scale);
    }
    const Tensor term = delta.dense.empty() && delta.low_rank.empty() ? Tensor{} : rows(y.cols);
    for (const DenseTerm& dense : delta.dense) {
      lookup(*dense.d, tokens, term);
      add_scaled(y, term, dense.weight);
    }
    for (const LowRankTerm& low_rank : delta.low_rank) {
      const Tensor t = rows(low_rank.a->cols());
      lookup(*low_rank.a, tokens, t);
      const LinearOutput product{low_rank.b.get(), nullptr, term, {}};
      alone().linears().run(t, std::span(&product, 1));
      add_scaled(y, term, low_rank.weight);
    }
    if (delta.bias) {
      for (int64_t r = 0; r < y.rows; ++r) add(y.row_range(r, 1), delta.bias);
    }
    if (delta.result_scale) scale_rows(y, delta.result_scale);
  }
}

void CpuBackend::scale_rows(const Tensor& x, const Tensor& by) {
  require_shape(by, 1, x.cols, "embed_deltas: scale");
  for (int64_t r = 0; r < x.rows; ++r) {
    float* row = host_floats(x) + r * x.cols;
    kernels_.multiply(row, host_floats(by), x.cols, row);
  }
}

void CpuBackend::add_scaled(const Tensor& x, const Tensor& y, float weight) {
  require_shape(y, x.rows, x.cols, "embed_deltas: term");
  float* to = host_floats(x);
  const float* from = host_floats(y);
  for (int64_t i = 0; i < x.rows * x.cols; ++i) to[i] += weight * from[i];
}

void CpuBackend::screened_linear(const Tensor& x, const Matrix& weight, const Matrix& screen,
                                 std::span<const int32_t> best, const Tensor& y) {
  screened_linear_.run(x, static_cast<const CpuMatrix&>(weight), static_cast<const CpuScreen&>(screen), best, y);
}

// --- walking together -------------------------------------------------------------------------------------------------

int CpuBackend::walkers(int64_t rows) const { return rows <= kMostWalked ? pool_.threads() : 1; }

bool CpuBackend::walk(const std::function<void(Operations&, int walker)>& walk) {
  share_.begin();
  for (const auto& member : operations_) member->begin_walk();
  return crew_.walk([&](int index) { walk(*operations_[static_cast<size_t>(index)], index); });
}

}  // namespace expert
