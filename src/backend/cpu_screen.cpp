#include "backend/cpu_screen.h"

#include <algorithm>
#include <limits>

#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/error.h"
#include "core/kth_largest.h"

namespace expert {

namespace {

using kernels::ScreenBound;

constexpr int64_t kWorthwhile = 4;      // one panel in so many at most: then the matrix is read as a whole
constexpr int64_t kLongestPause = 255;  // calls
constexpr int64_t kPanelsAtOnce = 128;
constexpr int64_t kPiecesAtOnce = 4;

constexpr float kNothing = -std::numeric_limits<float>::infinity();

std::span<const ScreenBound> bounds_in(std::span<const std::byte> bytes, int64_t panels, size_t codes) {
  return {reinterpret_cast<const ScreenBound*>(bytes.data() + codes), static_cast<size_t>(panels)};
}

}  // namespace

// --- the copy -------------------------------------------------------------------------------------------------------

CpuScreen::CpuScreen(int64_t rows, int64_t cols, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
    : Matrix(rows, cols, WeightFormat::int4, static_cast<int>(kernels::kGroup), bytes.size()),
      bytes_(bytes),
      codes_(rows, cols, WeightFormat::int4, bytes.first(packed_matrix_size(rows, cols, kernels::Storage::int4)),
             std::move(owner)),
      bounds_(bounds_in(bytes, codes_.panel_count(), codes_.size_bytes())) {}

size_t screen_bytes(int64_t rows, int64_t cols) {
  return packed_matrix_size(rows, cols, kernels::Storage::int4) +
         static_cast<size_t>(kernels::panel_count(rows)) * sizeof(ScreenBound);
}

std::shared_ptr<const CpuScreen> pack_screen(const kernels::CpuKernels& kernels, const CpuMatrix& head, int threads) {
  const size_t size = screen_bytes(head.rows(), head.cols());
  const std::shared_ptr<std::byte> bytes = allocate_host(size);
  const int64_t inputs = head.cols();
  const MatrixSource values{DType::f32, head.rows(), inputs, [&](int64_t first, int64_t count, void* to) {
                              for (int64_t r = 0; r < count; ++r) {
                                kernels.unpack_row(head.storage(), head.panels(), inputs, first + r,
                                                   static_cast<float*>(to) + r * inputs);
                              }
                            }};
  auto* panels = reinterpret_cast<unsigned char*>(bytes.get());
  auto* bounds = reinterpret_cast<ScreenBound*>(
      bytes.get() + packed_matrix_size(head.rows(), inputs, kernels::Storage::int4));
  pack_in_chunks(values, threads, [&](const std::byte* rows, int64_t first, int64_t count) {
    for (int64_t r = 0; r < count; r += kernels::kPanelRows) {
      const int64_t panel = (first + r) / kernels::kPanelRows;
      kernels::pack_screen_panel(reinterpret_cast<const float*>(rows) + r * inputs,
                                 std::min(kernels::kPanelRows, count - r), inputs,
                                 panels + panel * kernels::panel_bytes(kernels::Storage::int4, inputs), bounds[panel]);
    }
  });
  return std::make_shared<CpuScreen>(head.rows(), inputs, std::span(bytes.get(), size), bytes);
}

// --- products -------------------------------------------------------------------------------------------------------

CpuScreenedLinear::CpuScreenedLinear(const kernels::CpuKernels& kernels, ThreadPool& pool, CpuLinear& linear)
    : kernels_(kernels), pool_(pool), linear_(linear), prepared_(kernels, pool), tasks_(pool.threads()) {}

void CpuScreenedLinear::run(const Tensor& x, const CpuMatrix& weight, const CpuScreen& screen,
                            std::span<const int32_t> best, const Tensor& y) {
  require_shape(y, x.rows, weight.rows(), "screened_linear: y");
  if (screen.rows() != weight.rows() || screen.cols() != weight.cols() || static_cast<int64_t>(best.size()) != x.rows) {
    fail(ErrorCode::internal, "screened_linear: {} rows, a copy of {} x {} for {} x {}", best.size(), screen.rows(),
         screen.cols(), weight.rows(), weight.cols());
  }
  if (x.rows == 0) return;
  ++calls_;
  if (pause_ > 0) {
    --pause_;
    return compute_all(x, weight, y);
  }
  bytes_ += screen.size_bytes();
  prepare(x, weight);
  if (!estimate(x, screen.codes(), y)) return compute_all(x, weight, y);

  pieces_.clear();
  for (int64_t r = 0; r < x.rows; ++r) take_best(r, best[static_cast<size_t>(r)]);
  compute(x, weight, y);
  firsts_.swap(pieces_);
  pieces_.clear();
  for (int64_t r = 0; r < x.rows; ++r) take_possible(r, best[static_cast<size_t>(r)], screen, y);
  if (static_cast<int64_t>(pieces_.size()) * kWorthwhile > panels_) {
    pauses_ = std::min(pauses_ * 2 + 1, kLongestPause);
    pause_ = pauses_;
    return compute_all(x, weight, y);
  }
  pauses_ = 0;
  compute(x, weight, y);
}

void CpuScreenedLinear::prepare(const Tensor& x, const CpuMatrix& weight) {
  prepared_.clear();
  prepared_.prepare(weight.storage(), host_floats(x), x.rows, x.cols);
  const auto row_bytes = static_cast<size_t>(kernels_.prepared_row_bytes(kernels::Storage::int4, x.cols));
  const auto rows = static_cast<size_t>(x.rows);
  if (screened_size_ < rows * row_bytes) {
    screened_ = allocate_host(rows * row_bytes);
    screened_size_ = rows * row_bytes;
  }
  margins_.resize(rows);
  for (size_t r = 0; r < rows; ++r) {
    const float* from = host_floats(x) + static_cast<int64_t>(r) * x.cols;
    auto* to = reinterpret_cast<unsigned char*>(screened_.get()) + r * row_bytes;
    kernels_.prepare_row(kernels::Storage::int4, from, x.cols, to);
    margins_[r] = kernels::prepare_screened_row(kernels::values_of(weight.storage()), from, x.cols, to);
  }
}

// y: products with the copy; and the largest of each panel. False: one of them is a NaN.
bool CpuScreenedLinear::estimate(const Tensor& x, const CpuMatrix& codes, const Tensor& y) {
  panels_ = codes.panel_count();
  maxima_.resize(static_cast<size_t>(y.rows * panels_));
  std::atomic<bool> numbers{true};
  tasks_.fill(ceil_div(panels_, kPanelsAtOnce));
  pool_.run(pool_.threads(), [&](int64_t, int worker) {
    for (int64_t task = tasks_.next(worker); task >= 0; task = tasks_.next(worker)) {
      const int64_t begin = task * kPanelsAtOnce;
      const int64_t end = std::min(panels_, begin + kPanelsAtOnce);
      multiply(codes, x, reinterpret_cast<const unsigned char*>(screened_.get()), {0, begin}, x.rows, end, y);
      for (int64_t r = 0; r < y.rows; ++r) {
        const float* from = host_floats(y) + r * y.cols;
        if (!kernels::panel_maxima(from, y.cols, begin, end, maxima_.data() + r * panels_)) numbers = false;
      }
    }
  });
  return numbers;
}

// The panels with the largest estimates, as many as values are wanted. Those that are taken have no maximum any more.
void CpuScreenedLinear::take_best(int64_t row, int32_t best) {
  const std::span<float> maxima = std::span(maxima_).subspan(static_cast<size_t>(row * panels_),
                                                             static_cast<size_t>(panels_));
  const auto wanted = static_cast<size_t>(std::clamp<int64_t>(best, 1, panels_));
  const float threshold = wanted == 1 ? *std::max_element(maxima.begin(), maxima.end())
                                      : kth_largest(maxima, wanted, values_);
  size_t taken = 0;
  for (size_t p = 0; p < maxima.size() && taken < wanted; ++p) {
    if (maxima[p] < threshold) continue;
    maxima[p] = kNothing;
    pieces_.push_back({row, static_cast<int64_t>(p)});
    ++taken;
  }
}

// The other panels that may hold a value as large as the `best`-th of those computed, than which the row's `best`-th is no
// smaller.
void CpuScreenedLinear::take_possible(int64_t row, int32_t best, const CpuScreen& screen, const Tensor& y) {
  computed_.clear();
  for (const Piece& piece : firsts_) {
    if (piece.row != row) continue;
    const int64_t first = piece.panel * kernels::kPanelRows;
    const float* from = host_floats(y) + row * y.cols;
    computed_.insert(computed_.end(), from + first, from + std::min(y.cols, first + kernels::kPanelRows));
  }
  const auto wanted = static_cast<size_t>(best);
  const float least = computed_.size() < wanted ? kNothing : kth_largest(computed_, wanted, values_);
  const float* maxima = maxima_.data() + row * panels_;
  const kernels::ScreenMargin& margin = margins_[static_cast<size_t>(row)];
  for (int64_t p = 0; p < panels_; ++p) {
    const ScreenBound& bound = screen.bounds()[static_cast<size_t>(p)];
    const float most = maxima[p] + (margin.spread * bound.spread + margin.norm * bound.norm + margin.least);
    if (!(most < least) && maxima[p] != kNothing) pieces_.push_back({row, p});
  }
}

// The pieces, as CpuLinear computes them.
void CpuScreenedLinear::compute(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  const auto count = static_cast<int64_t>(pieces_.size());
  bytes_ += pieces_.size() * static_cast<uint64_t>(kernels::panel_bytes(weight.storage(), weight.cols()));
  const unsigned char* prepared = prepared_.find(weight.storage(), host_floats(x));
  pool_.run(ceil_div(count, kPiecesAtOnce), [&](int64_t task, int) {
    const int64_t end = std::min(count, (task + 1) * kPiecesAtOnce);
    for (int64_t i = task * kPiecesAtOnce; i < end; ++i) {
      const Piece piece = pieces_[static_cast<size_t>(i)];
      multiply(weight, x, prepared, piece, 1, piece.panel + 1, y);
    }
  });
}

// `rows` rows from first.row on, panels [first.panel, last_panel). `prepared`: of row 0.
void CpuScreenedLinear::multiply(const CpuMatrix& w, const Tensor& x, const unsigned char* prepared, Piece first,
                                 int64_t rows, int64_t last_panel, const Tensor& y) const {
  kernels::GemmArgs args{};
  args.panels = w.panels();
  args.outputs = w.rows();
  args.inputs = w.cols();
  args.panel_begin = first.panel;
  args.panel_end = last_panel;
  args.x = host_floats(x) + first.row * x.cols;
  args.x_stride = x.cols;
  args.prepared = prepared;
  if (prepared != nullptr) args.prepared += first.row * kernels_.prepared_row_bytes(w.storage(), w.cols());
  args.rows = rows;
  args.y = host_floats(y) + first.row * y.cols;
  args.y_stride = y.cols;
  args.scale = 1.0F;
  kernels_.gemm(w.storage(), args);
}

void CpuScreenedLinear::compute_all(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  ++whole_;
  bytes_ += weight.size_bytes();
  const LinearOutput whole{&weight, nullptr, y, {}};
  linear_.run(x, std::span(&whole, 1));
}

}  // namespace expert
