#include "backend/cpu_factor.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "backend/cpu_matrix.h"
#include "backend/host_memory.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr int64_t kPieceBytes = int64_t{128} << 10;       // read and packed at a time
constexpr size_t kLeastFactorBytes = size_t{2} << 20;     // of a whole expert, for a second thread
constexpr size_t kFactorAlignment = 64;

bool may_be_narrow(const FactorSource& source) {
  constexpr int64_t kMostInputs = 65536;  // an index has 16 bits
  constexpr int64_t kMostRank = 512;
  const int64_t cols = source.values.cols;
  return source.role == FactorSource::Role::a ? cols % kernels::kNarrowRowInputs == 0 && cols <= kMostInputs
                                              : cols % kernels::kNarrowInputs == 0 && cols <= kMostRank;
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
  FactorPacking(const kernels::CpuKernels& kernels, std::span<const FactorSource> sources, kernels::Storage storage,
                bool narrow)
      : kernels_(kernels), sources_(sources) {
    places_.reserve(sources.size());
    for (const FactorSource& source : sources) {
      source_of(source.values.dtype, "factors");
      const bool is_narrow = narrow && may_be_narrow(source);
      Place place{is_narrow ? kernels::Storage::narrow_bf16 : storage, total_, 0, {}};
      place.size = packed_factor_size(source, place.storage);
      total_ += (place.size + kFactorAlignment - 1) / kFactorAlignment * kFactorAlignment;
      places_.push_back(std::move(place));
    }
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

  std::vector<MatrixPtr> matrices() const {
    std::vector<MatrixPtr> result;
    result.reserve(sources_.size());
    for (size_t i = 0; i < sources_.size(); ++i) {
      const MatrixSource& values = sources_[i].values;
      const Place& place = places_[i];
      const std::shared_ptr<std::byte>& block = place.own ? place.own : block_;
      const std::byte* first = place.own ? block.get() : block.get() + place.offset;
      result.push_back(std::make_shared<CpuFactor>(sources_[i].role, values.rows, values.cols, place.storage,
                                                   std::span(first, place.size), block));
    }
    return result;
  }

  size_t total_bytes() const { return total_; }

 private:
  struct Place {
    kernels::Storage storage;
    size_t offset;  // in the block
    size_t size;
    std::shared_ptr<std::byte> own;  // instead
  };
  // Of one thread.
  struct Scratch {
    std::vector<std::byte> piece;
    std::vector<unsigned char> lines;  // of a piece, before they become narrow
  };

  // To the thread that hashes the expert meanwhile, which takes longer, and to those that generate.
  static void give_way() {
#if defined(__linux__)  // where a thread has a priority of its own
    static_cast<void>(::setpriority(PRIO_PROCESS, 0, 10));
#endif
  }

  void take_factors() noexcept {
    try {
      Scratch scratch;
      for (size_t i = next_++; i < sources_.size(); i = next_++) {
        if (!pack_factor(i, block_.get() + places_[i].offset, scratch)) pack_apart(i, scratch);
      }
    } catch (...) {
      next_ = sources_.size();
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  // As BF16, where narrow was too narrow.
  void pack_apart(size_t index, Scratch& scratch) {
    Place& place = places_[index];
    place.storage = kernels::Storage::bf16;
    place.size = packed_factor_size(sources_[index], place.storage);
    place.own = allocate_host(place.size);
    pack_factor(index, place.own.get(), scratch);
  }

  // False where it does not fit its storage.
  bool pack_factor(size_t index, std::byte* to, Scratch& scratch) {
    const FactorSource& source = sources_[index];
    const MatrixSource& values = source.values;
    const kernels::Storage storage = places_[index].storage;
    const int64_t row_bytes = values.cols * static_cast<int64_t>(size_of(values.dtype));
    const int64_t rows = std::max<int64_t>(1, kPieceBytes / row_bytes / kernels::kPanelRows) * kernels::kPanelRows;
    std::vector<std::byte>& piece = scratch.piece;
    piece.resize(std::max(piece.size(), static_cast<size_t>(std::min(rows, values.rows) * row_bytes)));
    for (int64_t first = 0; first < values.rows; first += rows) {
      const int64_t count = std::min(rows, values.rows - first);
      values.read(first, count, piece.data());
      unsigned char* here = reinterpret_cast<unsigned char*>(to) + bytes_before(source, storage, first);
      if (storage != kernels::Storage::narrow_bf16) {
        pack_rows(source, storage, first, count, piece.data(), here);
      } else if (!pack_narrow(source, first, count, scratch, here)) {
        return false;
      }
    }
    return true;
  }

  // Of the rows before `row`, in whole panels for B.
  static int64_t bytes_before(const FactorSource& source, kernels::Storage storage, int64_t row) {
    const int64_t cols = source.values.cols;
    return source.role == FactorSource::Role::a ? row * kernels::factor_row_bytes(storage, cols)
                                                : row / kernels::kPanelRows * kernels::factor_panel_bytes(storage, cols);
  }

  void pack_rows(const FactorSource& source, kernels::Storage storage, int64_t first, int64_t count, const std::byte* from,
                 unsigned char* to) const {
    const kernels::FactorScale scale{source.scale, source.row_scale.empty() ? nullptr : &source.row_scale[first]};
    const kernels::Source type = source_of(source.values.dtype, "factors");
    const auto pack = source.role == FactorSource::Role::a ? kernels_.pack_factor_rows : kernels_.pack_factor_panels;
    pack(type, from, count, source.values.cols, scale, storage, to);
  }

  // A row of A, or a panel of B, after the other.
  bool pack_narrow(const FactorSource& source, int64_t first, int64_t count, Scratch& scratch, unsigned char* to) const {
    const bool is_row = source.role == FactorSource::Role::a;
    const int64_t cols = source.values.cols;
    const int64_t units = is_row ? count : kernels::panel_count(count);
    const auto bytes_of = [&](kernels::Storage storage) {
      return is_row ? kernels::factor_row_bytes(storage, cols) : kernels::factor_panel_bytes(storage, cols);
    };
    const int64_t plain = bytes_of(kernels::Storage::bf16);
    std::vector<unsigned char>& lines = scratch.lines;
    lines.resize(std::max(lines.size(), static_cast<size_t>(units * plain)));
    pack_rows(source, kernels::Storage::bf16, first, count, scratch.piece.data(), lines.data());
    const int64_t head = is_row ? kernels::kNarrowRowHead : kernels::narrow_panel_head(cols);
    for (int64_t i = 0; i < units; ++i, to += bytes_of(kernels::Storage::narrow_bf16)) {
      if (!kernels_.narrow_lines(lines.data() + i * plain, plain / 64, is_row, head, to)) return false;
    }
    return true;
  }

  const kernels::CpuKernels& kernels_;
  const std::span<const FactorSource> sources_;
  std::vector<Place> places_;
  size_t total_ = 0;
  std::shared_ptr<std::byte> block_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

std::vector<MatrixPtr> pack_cpu_factors(const kernels::CpuKernels& kernels, std::span<const FactorSource> sources,
                                        WeightFormat format, int threads, bool narrow) {
  const kernels::Storage storage = format == WeightFormat::f32 ? kernels::Storage::f32 : kernels::Storage::bf16;
  FactorPacking packing(kernels, sources, storage,
                        narrow && storage == kernels::Storage::bf16 && kernels.narrow_lines != nullptr);
  packing.run(packing.total_bytes() >= kLeastFactorBytes ? std::min(threads, 8) : 1);
  return packing.matrices();
}

}  // namespace expert
