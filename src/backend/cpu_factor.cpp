#include "backend/cpu_factor.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "backend/host_memory.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr int64_t kPieceBytes = int64_t{128} << 10;       // read and packed at a time
constexpr size_t kLeastFactorBytes = size_t{2} << 20;     // of a whole expert, for a second thread
constexpr size_t kFactorAlignment = 64;

kernels::Source factor_source_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return kernels::Source::f32;
    case DType::f16:
      return kernels::Source::f16;
    case DType::bf16:
      return kernels::Source::bf16;
    default:
      fail(ErrorCode::unsupported, "factors of type {}", name_of(dtype));
  }
}

size_t packed_factor_size(const FactorSource& source, kernels::Storage storage) {
  constexpr int64_t kMost = int64_t{1} << 28;  // per side, as for packed matrices
  const int64_t rows = source.values.rows;
  const int64_t cols = source.values.cols;
  if (rows < 1 || cols < 1 || rows > kMost || cols > kMost) {
    fail(ErrorCode::invalid_request, "a factor of {} x {}", rows, cols);
  }
  if (!source.row_scale.empty() && source.row_scale.size() != static_cast<size_t>(rows)) {
    fail(ErrorCode::internal, "a factor of {} rows with {} row scales", rows, source.row_scale.size());
  }
  return static_cast<size_t>(source.role == FactorSource::Role::a
                                 ? rows * kernels::factor_row_bytes(storage, cols)
                                 : kernels::panel_count(rows) * kernels::factor_panel_bytes(storage, cols));
}

// One pack_cpu_factors() call: threads take factors in ascending order.
class FactorPacking {
 public:
  FactorPacking(const kernels::CpuKernels& kernels, std::span<const FactorSource> sources, kernels::Storage storage)
      : kernels_(kernels), sources_(sources), storage_(storage) {
    offsets_.reserve(sources.size() + 1);
    size_t end = 0;
    for (const FactorSource& source : sources) {
      factor_source_of(source.values.dtype);
      offsets_.push_back(end);
      sizes_.push_back(packed_factor_size(source, storage));
      end += (sizes_.back() + kFactorAlignment - 1) / kFactorAlignment * kFactorAlignment;
    }
    total_ = end;
    block_ = allocate_host(total_);
  }

  void run(int threads) {
    std::vector<std::thread> helpers;
    try {
      for (int t = 1; t < threads; ++t) {
        helpers.emplace_back([this] {
          give_way();
          take_factors();
        });
      }
    } catch (const std::system_error&) {
      // Fewer threads than wished: those there are do it.
    }
    take_factors();
    for (std::thread& helper : helpers) helper.join();
    if (error_) std::rethrow_exception(error_);
  }

  std::vector<MatrixPtr> matrices(WeightFormat format) const {
    std::vector<MatrixPtr> result;
    result.reserve(sources_.size());
    for (size_t i = 0; i < sources_.size(); ++i) {
      const MatrixSource& values = sources_[i].values;
      result.push_back(std::make_shared<CpuFactor>(sources_[i].role, values.rows, values.cols, format,
                                                   std::span(block_.get() + offsets_[i], sizes_[i]), block_));
    }
    return result;
  }

  size_t total_bytes() const { return total_; }

 private:
  // To the thread that hashes the expert meanwhile, which takes longer, and to those that generate.
  static void give_way() {
#if defined(__linux__)  // where a thread has a priority of its own
    static_cast<void>(::setpriority(PRIO_PROCESS, 0, 10));
#endif
  }

  void take_factors() noexcept {
    try {
      std::vector<std::byte> piece;
      for (size_t i = next_++; i < sources_.size(); i = next_++) pack_factor(i, piece);
    } catch (...) {
      next_ = sources_.size();
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void pack_factor(size_t index, std::vector<std::byte>& piece) {
    const FactorSource& source = sources_[index];
    const MatrixSource& values = source.values;
    const int64_t row_bytes = values.cols * static_cast<int64_t>(size_of(values.dtype));
    const int64_t rows = std::max<int64_t>(1, kPieceBytes / row_bytes / kernels::kPanelRows) * kernels::kPanelRows;
    piece.resize(std::max(piece.size(), static_cast<size_t>(std::min(rows, values.rows) * row_bytes)));
    for (int64_t first = 0; first < values.rows; first += rows) {
      const int64_t count = std::min(rows, values.rows - first);
      values.read(first, count, piece.data());
      pack_rows(source, first, count, piece.data(), block_.get() + offsets_[index]);
    }
  }

  void pack_rows(const FactorSource& source, int64_t first, int64_t count, const std::byte* from, std::byte* to) const {
    const kernels::FactorScale scale{source.scale, source.row_scale.empty() ? nullptr : &source.row_scale[first]};
    const kernels::Source type = factor_source_of(source.values.dtype);
    const int64_t cols = source.values.cols;
    auto* packed = reinterpret_cast<unsigned char*>(to);
    if (source.role == FactorSource::Role::a) {
      packed += first * kernels::factor_row_bytes(storage_, cols);
      kernels_.pack_factor_rows(type, from, count, cols, scale, storage_, packed);
    } else {
      packed += first / kernels::kPanelRows * kernels::factor_panel_bytes(storage_, cols);
      kernels_.pack_factor_panels(type, from, count, cols, scale, storage_, packed);
    }
  }

  const kernels::CpuKernels& kernels_;
  const std::span<const FactorSource> sources_;
  const kernels::Storage storage_;
  std::vector<size_t> offsets_;
  std::vector<size_t> sizes_;
  size_t total_ = 0;
  std::shared_ptr<std::byte> block_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

std::vector<MatrixPtr> pack_cpu_factors(const kernels::CpuKernels& kernels, std::span<const FactorSource> sources,
                                        WeightFormat format, int threads) {
  const WeightFormat own = format == WeightFormat::f32 ? format : WeightFormat::bf16;
  FactorPacking packing(kernels, sources, own == WeightFormat::f32 ? kernels::Storage::f32 : kernels::Storage::bf16);
  packing.run(packing.total_bytes() >= kLeastFactorBytes ? std::min(threads, 8) : 1);
  return packing.matrices(own);
}

}  // namespace expert
