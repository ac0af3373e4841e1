#include "backend/cpu_matrix.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "backend/host_memory.h"
#include "core/error.h"
#include "kernels/cpu/panels.h"

namespace expert {

namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kLeastNarrow = int64_t{1} << 19;     // weights: fewer stay in a cache, where reading less gains nothing
constexpr int64_t kParallelBytes = int64_t{4} << 20;  // below this, starting threads costs more than it saves

// One pack() call: threads take chunks of rows in ascending order.
class Packing {
 public:
  Packing(const MatrixSource& source, const PackRows& pack)
      : source_(source),
        pack_(pack),
        row_bytes_(source.cols * static_cast<int64_t>(size_of(source.dtype))),
        chunk_rows_(std::max<int64_t>(1, kChunkBytes / row_bytes_ / kernels::kPanelRows) * kernels::kPanelRows) {}

  int64_t chunks() const { return (source_.rows + chunk_rows_ - 1) / chunk_rows_; }

  void run(int threads) {
    std::vector<std::thread> helpers;
    try {
      for (int t = 1; t < threads; ++t) helpers.emplace_back([this] { take_chunks(); });
    } catch (const std::system_error&) {
      // Fewer threads than wished: those there are do it.
    }
    take_chunks();
    for (std::thread& helper : helpers) helper.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void take_chunks() noexcept {
    try {
      const size_t most_rows = static_cast<size_t>(std::min(chunk_rows_, source_.rows));
      const std::shared_ptr<std::byte> rows = allocate_host(most_rows * static_cast<size_t>(row_bytes_));
      for (int64_t chunk = next_++; chunk < chunks(); chunk = next_++) pack_chunk(chunk, rows.get());
    } catch (...) {
      next_ = chunks();
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void pack_chunk(int64_t chunk, std::byte* rows) {
    const int64_t first = chunk * chunk_rows_;
    const int64_t count = std::min(chunk_rows_, source_.rows - first);
    source_.read(first, count, rows);
    pack_(rows, first, count);
  }

  const MatrixSource& source_;
  const PackRows& pack_;
  const int64_t row_bytes_;
  const int64_t chunk_rows_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

kernels::Source source_of(DType dtype, std::string_view what) {
  switch (dtype) {
    case DType::f32:
      return kernels::Source::f32;
    case DType::f16:
      return kernels::Source::f16;
    case DType::bf16:
      return kernels::Source::bf16;
    default:
      fail(ErrorCode::unsupported, "{} of type {}", what, name_of(dtype));
  }
}

size_t packed_matrix_size(int64_t rows, int64_t cols, kernels::Storage storage) {
  constexpr int64_t kMost = int64_t{1} << 28;  // per side; keeps every product below in range
  if (rows < 1 || cols < 1 || rows > kMost || cols > kMost) {
    fail(ErrorCode::invalid_request, "a matrix of {} x {}", rows, cols);
  }
  return static_cast<size_t>(kernels::panel_count(rows) * kernels::panel_bytes(storage, cols));
}

bool may_be_narrow(int64_t rows, int64_t cols) {
  return cols % kernels::kNarrowInputs == 0 && cols <= kernels::kMostNarrowInputs && rows * cols >= kLeastNarrow;
}

void pack_in_chunks(const MatrixSource& source, int threads, const PackRows& pack) {
  Packing packing(source, pack);
  packing.run(static_cast<int>(std::min<int64_t>(threads, packing.chunks())));
}

std::shared_ptr<const CpuMatrix> pack_matrix(const MatrixSource& source, WeightFormat format,
                                             kernels::QuantiseWeights quantise, int threads) {
  const kernels::Source type = source_of(source.dtype, "weights");
  const kernels::Storage storage = storage_of(format);
  const size_t bytes = packed_matrix_size(source.rows, source.cols, storage);
  const std::shared_ptr<std::byte> panels = allocate_host(bytes);
  const bool parallel = is_quantised(format) || static_cast<int64_t>(bytes) >= kParallelBytes;
  pack_in_chunks(source, parallel ? threads : 1, [&](const std::byte* rows, int64_t first, int64_t count) {
    auto* to = reinterpret_cast<unsigned char*>(panels.get()) +
               first / kernels::kPanelRows * kernels::panel_bytes(storage, source.cols);
    if (kernels::is_quantised(storage)) {
      kernels::pack_quantised_panels(type, rows, count, source.cols, storage, quantise, to);
    } else {
      kernels::pack_panels(type, rows, count, source.cols, storage, to);
    }
  });
  return std::make_shared<CpuMatrix>(source.rows, source.cols, format, std::span(panels.get(), bytes), panels);
}

std::shared_ptr<const CpuMatrix> pack_narrow_matrix(const MatrixSource& source, int threads) {
  if (!may_be_narrow(source.rows, source.cols)) return nullptr;
  const kernels::Source type = source_of(source.dtype, "weights");
  const size_t bytes = packed_matrix_size(source.rows, source.cols, kernels::Storage::narrow_bf16);
  const std::shared_ptr<std::byte> panels = allocate_host(bytes);
  const int64_t narrow_bytes = kernels::panel_bytes(kernels::Storage::narrow_bf16, source.cols);
  std::atomic<bool> fits{true};
  pack_in_chunks(source, threads, [&](const std::byte* rows, int64_t first, int64_t count) {
    std::vector<unsigned char> panel(static_cast<size_t>(kernels::panel_bytes(kernels::Storage::bf16, source.cols)));
    auto* to = reinterpret_cast<unsigned char*>(panels.get()) + first / kernels::kPanelRows * narrow_bytes;
    for (int64_t r = 0; r < count && fits; r += kernels::kPanelRows, to += narrow_bytes) {
      const std::byte* from = rows + r * source.cols * static_cast<int64_t>(size_of(source.dtype));
      kernels::pack_panels(type, from, std::min(kernels::kPanelRows, count - r), source.cols, kernels::Storage::bf16,
                           panel.data());
      if (!kernels::narrow_panel(panel.data(), source.cols, to)) fits = false;
    }
  });
  if (!fits) return nullptr;
  return std::make_shared<CpuMatrix>(source.rows, source.cols, WeightFormat::bf16, std::span(panels.get(), bytes), panels);
}

}  // namespace expert
