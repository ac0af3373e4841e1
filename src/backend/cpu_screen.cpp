#include "backend/cpu_screen.h"

#include <algorithm>
#include <array>
#include <limits>

#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/ask_for.h"
#include "core/error.h"
#include "core/kth_largest.h"

namespace expert {

namespace {

using kernels::FineRow;
using kernels::ScreenBound;

constexpr int64_t kWorthwhile = 4;      // one panel in so many at most: then the matrix is read as a whole
constexpr int64_t kRefined = 3;         // and one product in so many
constexpr int64_t kLongestPause = 255;  // calls
constexpr int64_t kListedPerWanted = 8;  // panels of which those are chosen that are computed first: estimates by two bits are coarse
constexpr int64_t kListed = 8;
constexpr int64_t kMoreThanWanted = 3;
constexpr int64_t kPanelsAtOnce = 128;
constexpr int64_t kPiecesAtOnce = 4;
constexpr size_t kRowsAhead = 16;  // with finer bits: of many more lines at once a processor forgets most

constexpr float kNothing = -std::numeric_limits<float>::infinity();

size_t size_of_panels(int64_t rows, int64_t cols) {
  return static_cast<size_t>(kernels::panel_count(rows) * kernels::screen_panel_bytes(cols));
}
size_t size_of_fine(int64_t rows, int64_t cols) {
  return static_cast<size_t>(kernels::panel_count(rows) * kernels::kPanelRows * kernels::fine_row_bytes(cols));
}
size_t size_of_rows(int64_t rows) {
  return static_cast<size_t>(kernels::panel_count(rows) * kernels::kPanelRows) * sizeof(FineRow);
}

// To the larger; to NaN where the value is.
void raise(float& to, float value) {
  if (!(value <= to)) to = value;
}

// Of what a row has for each panel, those of a task.
std::span<float> panels_of(std::span<float> all, int64_t task) {
  const auto first = static_cast<size_t>(task * kPanelsAtOnce);
  return all.subspan(first, std::min(all.size() - first, static_cast<size_t>(kPanelsAtOnce)));
}

void ask_for_row(const CpuScreen& screen, int64_t n) {
  ask_for_ahead(&screen.row(n), sizeof(FineRow));
  ask_for_ahead(screen.fine(n), static_cast<size_t>(kernels::fine_row_bytes(screen.cols())));
}

// Of a row: its finer bits, and what is known of it.
uint64_t fine_bytes(const CpuScreen& screen) {
  return static_cast<uint64_t>(kernels::fine_row_bytes(screen.cols())) + sizeof(FineRow);
}

float margin_of(const kernels::ScreenMargin& margin, const ScreenBound& bound) {
  return margin.spread * bound.spread + margin.norm * bound.norm + margin.least;
}

}  // namespace

// --- the copy -------------------------------------------------------------------------------------------------------

CpuScreen::CpuScreen(int64_t rows, int64_t cols, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
    : Matrix(rows, cols, WeightFormat::int4, static_cast<int>(kernels::kGroup), bytes.size()),
      rotation_(cols),
      bytes_(bytes),
      owner_(std::move(owner)),
      row_bytes_(kernels::fine_row_bytes(cols)),
      fine_(reinterpret_cast<const unsigned char*>(bytes.data()) + size_of_panels(rows, cols)),
      fine_rows_(reinterpret_cast<const FineRow*>(fine_ + size_of_fine(rows, cols))),
      bounds_(reinterpret_cast<const ScreenBound*>(fine_ + size_of_fine(rows, cols) + size_of_rows(rows))) {}

std::span<const std::byte> CpuScreen::panels() const noexcept { return bytes_.first(size_of_panels(rows(), cols())); }

size_t screen_bytes(int64_t rows, int64_t cols) {
  if (rows < 1 || cols < 1) fail(ErrorCode::invalid_request, "a screen of {} x {}", rows, cols);
  if (cols > kernels::kMostScreened) return 0;
  return size_of_panels(rows, cols) + size_of_fine(rows, cols) + size_of_rows(rows) +
         static_cast<size_t>(kernels::panel_count(rows)) * sizeof(ScreenBound);
}

std::shared_ptr<const CpuScreen> pack_screen(const kernels::CpuKernels& kernels, const CpuMatrix& head, int threads) {
  const size_t size = screen_bytes(head.rows(), head.cols());
  const std::shared_ptr<std::byte> bytes = allocate_host(size);
  const int64_t inputs = head.cols();
  const kernels::ScreenRotation rotation(inputs);
  const MatrixSource values{DType::f32, head.rows(), inputs, [&](int64_t first, int64_t count, void* to) {
                              for (int64_t r = 0; r < count; ++r) {
                                kernels.unpack_row(head.storage(), head.panels(), inputs, first + r,
                                                   static_cast<float*>(to) + r * inputs);
                              }
                            }};
  auto* panels = reinterpret_cast<unsigned char*>(bytes.get());
  unsigned char* fine = panels + size_of_panels(head.rows(), inputs);
  auto* fine_rows = reinterpret_cast<FineRow*>(fine + size_of_fine(head.rows(), inputs));
  auto* bounds = reinterpret_cast<ScreenBound*>(fine + size_of_fine(head.rows(), inputs) + size_of_rows(head.rows()));
  pack_in_chunks(values, threads, [&](const std::byte* rows, int64_t first, int64_t count) {
    for (int64_t r = 0; r < count; r += kernels::kPanelRows) {
      const int64_t panel = (first + r) / kernels::kPanelRows;
      const kernels::ScreenPanel to = {panels + panel * kernels::screen_panel_bytes(inputs),
                                       fine + (first + r) * kernels::fine_row_bytes(inputs), fine_rows + first + r,
                                       bounds + panel};
      kernels::pack_screen_panel(rotation, reinterpret_cast<const float*>(rows) + r * inputs,
                                 std::min(kernels::kPanelRows, count - r), inputs, to);
    }
  });
  return std::make_shared<CpuScreen>(head.rows(), inputs, std::span(bytes.get(), size), bytes);
}

// --- products -------------------------------------------------------------------------------------------------------

CpuScreenedLinear::CpuScreenedLinear(const kernels::CpuKernels& kernels, ThreadPool& pool, CrewMember& member,
                                     CpuLinear& linear)
    : kernels_(kernels), pool_(pool), linear_(linear), prepared_(kernels, member, room_), tasks_(pool.threads()) {}

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
  bytes_ += screen.panels().size();
  prepare(x, weight, screen, best);
  if (!estimate(x, screen, y)) return compute_all(x, weight, y);

  pieces_.clear();
  for (size_t r = 0; r < rows_.size(); ++r) choose_best(static_cast<int64_t>(r), screen, y);
  compute_least(x, weight, y);
  if (!find_candidates(screen, y)) return give_up(x, weight, y);

  // The best of them first: by what they are most others turn out too small.
  pieces_.clear();
  for (size_t r = 0; r < rows_.size(); ++r) choose_best_candidates(static_cast<int64_t>(r));
  compute_least(x, weight, y);
  pieces_.clear();
  for (const Candidate& candidate : candidates_) {
    const float least = rows_[static_cast<size_t>(candidate.row)].least;
    if (candidate.most != kNothing && !(candidate.most < least)) pieces_.push_back({candidate.row, candidate.panel});
  }
  if (static_cast<int64_t>(pieces_.size()) * kWorthwhile > screen.panel_count()) return give_up(x, weight, y);
  pauses_ = 0;
  compute(x, weight, y);
}

void CpuScreenedLinear::prepare(const Tensor& x, const CpuMatrix& weight, const CpuScreen& screen,
                                std::span<const int32_t> best) {
  prepared_.begin(host_floats(x), x.rows, x.cols);
  prepared_.prepare(weight.storage(), host_floats(x), x.rows, x.cols);
  const auto row_bytes = static_cast<size_t>(kernels::screened_row_bytes(x.cols));
  const auto panels = static_cast<size_t>(screen.panel_count());
  const auto rows = static_cast<size_t>(x.rows);
  if (screened_size_ < rows * row_bytes) {
    screened_ = allocate_host(rows * row_bytes);
    screened_size_ = rows * row_bytes;
  }
  rows_.resize(rows);
  const auto tasks = static_cast<size_t>(ceil_div(screen.panel_count(), kPanelsAtOnce));
  maxima_.resize(rows * (panels + tasks));
  auto* prepared = reinterpret_cast<unsigned char*>(screened_.get());
  for (size_t r = 0; r < rows; ++r) {
    Row& row = rows_[r];
    row.best = best[r];
    row.prepared = prepared + r * row_bytes;
    row.margin = kernels::prepare_screened_row(screen.rotation(), kernels::values_of(weight.storage()),
                                               host_floats(x) + static_cast<int64_t>(r) * x.cols, x.cols,
                                               prepared + r * row_bytes);
    row.maxima = std::span(maxima_).subspan(r * panels, panels);
    row.task_maxima = std::span(maxima_).subspan(rows * panels + r * tasks, tasks);
    row.computed.clear();
    row.least = kNothing;
  }
}

// y: products with the copy; and the largest of each panel. False: one of them is a NaN.
bool CpuScreenedLinear::estimate(const Tensor& x, const CpuScreen& screen, const Tensor& y) {
  kernels::GemmArgs all{};
  all.panels = screen.panels().data();
  all.outputs = screen.rows();
  all.inputs = screen.cols();
  all.x = host_floats(x);
  all.x_stride = x.cols;
  all.prepared = rows_.front().prepared;
  all.rows = x.rows;
  all.y = host_floats(y);
  all.y_stride = y.cols;
  all.scale = 1.0F;
  std::atomic<bool> numbers{true};
  tasks_.fill(ceil_div(screen.panel_count(), kPanelsAtOnce));
  pool_.run(pool_.threads(), [&](int64_t, int worker) {
    for (int64_t task = tasks_.next(worker); task >= 0; task = tasks_.next(worker)) {
      kernels::GemmArgs args = all;
      args.panel_begin = task * kPanelsAtOnce;
      args.panel_end = std::min(screen.panel_count(), args.panel_begin + kPanelsAtOnce);
      kernels_.screen(args);
      for (int64_t r = 0; r < y.rows; ++r) {
        const Row& row = rows_[static_cast<size_t>(r)];
        if (!kernels::panel_maxima(args.y + r * y.cols, y.cols, args.panel_begin, args.panel_end, row.maxima.data())) {
          numbers = false;
        }
        row.task_maxima[static_cast<size_t>(task)] = *std::ranges::max_element(panels_of(row.maxima, task));
      }
    }
  });
  return numbers;
}

// The panels that are computed first, so that most others turn out too small: of the best by their estimates the best by finer
// ones. They have no maximum any more.
void CpuScreenedLinear::choose_best(int64_t index, const CpuScreen& screen, const Tensor& y) {
  Row& row = rows_[static_cast<size_t>(index)];
  list_best(row, host_floats(y) + index * y.cols, y.cols);
  for (const int32_t n : listed_) ask_for_row(screen, n);
  bytes_ += listed_.size() * fine_bytes(screen);
  chosen_.clear();
  for (const int32_t n : listed_) {
    const int64_t panel = n / kernels::kPanelRows;
    const float estimate = refine(row, screen, n, host_floats(y)[index * y.cols + n]);
    if (chosen_.empty() || chosen_.back().panel != panel) chosen_.push_back({index, panel, kNothing, kNothing});
    raise(chosen_.back().estimate, estimate);
  }
  const auto wanted = std::min<size_t>(chosen_.size(), static_cast<size_t>(row.best + kMoreThanWanted));
  const auto end = chosen_.begin() + static_cast<ptrdiff_t>(wanted);
  std::partial_sort(chosen_.begin(), end, chosen_.end(), [](const Candidate& a, const Candidate& b) {
    return a.estimate != b.estimate ? a.estimate > b.estimate : a.panel < b.panel;
  });
  for (const Candidate& panel : std::span(chosen_).first(wanted)) {
    pieces_.push_back({index, panel.panel});
    row.maxima[static_cast<size_t>(panel.panel)] = kNothing;
  }
}

// A product by all bits of its row. What leaves the range of floats may be anything: infinity.
float CpuScreenedLinear::refine(const Row& row, const CpuScreen& screen, int64_t n, float estimate) const {
  const float refined = kernels_.refine(screen.row(n), screen.fine(n), screen.cols(), row.prepared, estimate);
  return refined == refined ? refined : std::numeric_limits<float>::infinity();
}

// The outputs with the largest estimates: at least one of as many panels.
void CpuScreenedLinear::list_best(const Row& row, const float* estimates, int64_t outputs) {
  const auto wanted = static_cast<size_t>(
      std::min(row.best * kListedPerWanted + kListed, static_cast<int64_t>(row.maxima.size())));
  // As many tasks' largest are no smaller than this, so no others can have one.
  const float least = row.task_maxima.size() < wanted ? kNothing : kth_largest(row.task_maxima, wanted, values_);
  estimates_.clear();
  for (size_t t = 0; t < row.task_maxima.size(); ++t) {
    if (row.task_maxima[t] < least) continue;
    const std::span<float> panels = panels_of(row.maxima, static_cast<int64_t>(t));
    estimates_.insert(estimates_.end(), panels.begin(), panels.end());
  }
  const float threshold = kth_largest(estimates_, wanted, values_);
  listed_.clear();
  for (size_t p = 0; p < row.maxima.size(); ++p) {
    if (row.task_maxima[p / kPanelsAtOnce] < threshold) {
      p += kPanelsAtOnce - 1 - p % kPanelsAtOnce;
      continue;
    }
    if (row.maxima[p] < threshold) continue;
    const int64_t first = static_cast<int64_t>(p) * kernels::kPanelRows;
    for (int64_t n = first; n < std::min(outputs, first + kernels::kPanelRows); ++n) {
      if (!(estimates[n] < threshold)) listed_.push_back(static_cast<int32_t>(n));
    }
  }
}

// Of one row and a task's panels the outputs whose products may be wanted.
struct CpuScreenedLinear::Possible {
  int64_t row;
  int64_t task;
  size_t count;
  std::array<int32_t, kPanelsAtOnce * kernels::kPanelRows + 1> outputs;  // and one that is written in vain
};

// False: so many products may be wanted that the matrix had better be read as a whole.
bool CpuScreenedLinear::find_candidates(const CpuScreen& screen, const Tensor& y) {
  const int64_t tasks = ceil_div(screen.panel_count(), kPanelsAtOnce);
  const auto lists = static_cast<size_t>(tasks) * rows_.size();
  if (found_.size() < lists * kPanelsAtOnce) found_.resize(lists * kPanelsAtOnce);
  counts_.assign(lists, 0);
  refined_ = 0;
  tasks_.fill(tasks);  // as estimate() did: what a core has computed is in its cache
  pool_.run(pool_.threads(), [&](int64_t, int worker) {
    std::array<Possible, 2> lists_of_worker;  // what is asked for of one is read when the next is made
    size_t made = 0;
    for (int64_t task = tasks_.next(worker); task >= 0; task = tasks_.next(worker)) {
      for (size_t r = 0; r < rows_.size(); ++r) {
        Possible& possible = lists_of_worker[made++ % 2];
        possible.row = static_cast<int64_t>(r);
        possible.task = task;
        list_possible(screen, y, possible);
        if (made > 1) add_candidates(screen, y, lists_of_worker[made % 2]);
      }
    }
    if (made > 0) add_candidates(screen, y, lists_of_worker[(made - 1) % 2]);
  });
  const int64_t most = screen.rows() / kRefined;
  bytes_ += static_cast<uint64_t>(std::min<int64_t>(refined_, most)) * fine_bytes(screen);
  if (refined_ > most) return false;
  candidates_.clear();
  for (size_t i = 0; i < lists; ++i) {
    const Candidate* first = found_.data() + i * kPanelsAtOnce;
    candidates_.insert(candidates_.end(), first, first + counts_[i]);
  }
  return true;
}

void CpuScreenedLinear::add_candidates(const CpuScreen& screen, const Tensor& y, const Possible& possible) {
  const Row& row = rows_[static_cast<size_t>(possible.row)];
  float* estimates = host_floats(y) + possible.row * y.cols;
  if ((refined_ += static_cast<int64_t>(possible.count)) > screen.rows() / kRefined) return;
  const size_t list = static_cast<size_t>(possible.task) * rows_.size() + static_cast<size_t>(possible.row);
  Candidate* const first = found_.data() + list * kPanelsAtOnce;
  Candidate* next = first;
  int64_t last = -1;  // panel
  for (size_t i = 0; i < possible.count; ++i) {
    const int64_t n = possible.outputs[i];
    if (i + kRowsAhead < possible.count) ask_for_row(screen, possible.outputs[i + kRowsAhead]);
    const float estimate = refine(row, screen, n, estimates[n]);
    estimates[n] = estimate;
    const float most = estimate + margin_of(row.margin, screen.row(n).bound);
    if (most < row.least) continue;
    const int64_t panel = n / kernels::kPanelRows;
    if (panel != last) *next++ = {possible.row, panel, kNothing, kNothing};
    last = panel;
    raise(next[-1].estimate, estimate);
    raise(next[-1].most, most);
  }
  counts_[list] = next - first;
}

// And asks for what is read of the first of them.
void CpuScreenedLinear::list_possible(const CpuScreen& screen, const Tensor& y, Possible& possible) const {
  const Row& row = rows_[static_cast<size_t>(possible.row)];
  const float* estimates = host_floats(y) + possible.row * y.cols;
  struct Panel {
    int64_t first;  // output
    float least;    // estimate
  };
  std::array<Panel, kPanelsAtOnce + 1> panels;
  size_t panel_count = 0;
  const int64_t first_panel = possible.task * kPanelsAtOnce;
  for (int64_t p = first_panel; p < std::min(screen.panel_count(), first_panel + kPanelsAtOnce); ++p) {
    const float margin = margin_of(row.margin, screen.bound(p));
    const float most = row.maxima[static_cast<size_t>(p)];
    panels[panel_count] = {p * kernels::kPanelRows, row.least - margin};
    __builtin_prefetch(estimates + p * kernels::kPanelRows);
    panel_count += !(most + margin < row.least) && most != kNothing ? 1 : 0;
  }
  size_t count = 0;
  for (const Panel& panel : std::span(panels).first(panel_count)) {
    const int64_t end = std::min(screen.rows(), panel.first + kernels::kPanelRows);
    for (int64_t n = panel.first; n < end; ++n) {  // without jumps that cannot be foreseen
      possible.outputs[count] = static_cast<int32_t>(n);
      count += !(estimates[n] < panel.least) ? 1 : 0;
    }
  }
  for (const int64_t n : std::span(possible.outputs).first(std::min(count, kRowsAhead))) ask_for_row(screen, n);
  possible.count = count;
}

// Likewise, as many as values are wanted. Those chosen cannot be anything any more.
void CpuScreenedLinear::choose_best_candidates(int64_t index) {
  estimates_.clear();
  for (const Candidate& candidate : candidates_) {
    if (candidate.row == index) estimates_.push_back(candidate.estimate);
  }
  const auto wanted = static_cast<size_t>(rows_[static_cast<size_t>(index)].best);
  const float threshold = estimates_.size() <= wanted ? kNothing : kth_largest(estimates_, wanted, values_);
  size_t taken = 0;
  for (Candidate& candidate : candidates_) {
    if (candidate.row != index || candidate.estimate < threshold || taken == wanted) continue;
    candidate.most = kNothing;
    pieces_.push_back({index, candidate.panel});
    ++taken;
  }
}

// The pieces, and what is least by them.
void CpuScreenedLinear::compute_least(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  compute(x, weight, y);
  for (const Piece& piece : pieces_) {
    const int64_t first = piece.panel * kernels::kPanelRows;
    const float* from = host_floats(y) + piece.row * y.cols;
    std::vector<float>& computed = rows_[static_cast<size_t>(piece.row)].computed;
    computed.insert(computed.end(), from + first, from + std::min(y.cols, first + kernels::kPanelRows));
  }
  for (Row& row : rows_) {
    const auto wanted = static_cast<size_t>(row.best);
    if (row.computed.size() >= wanted) row.least = kth_largest(row.computed, wanted, values_);
  }
}

// The pieces, as CpuLinear computes them.
void CpuScreenedLinear::compute(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  const auto count = static_cast<int64_t>(pieces_.size());
  bytes_ += pieces_.size() * static_cast<uint64_t>(kernels::panel_bytes(weight.storage(), weight.cols()));
  const unsigned char* prepared = prepared_.find(weight.storage(), host_floats(x));
  const int64_t row_bytes = kernels_.prepared_row_bytes(weight.storage(), weight.cols());
  pool_.run(ceil_div(count, kPiecesAtOnce), [&](int64_t task, int) {
    const int64_t end = std::min(count, (task + 1) * kPiecesAtOnce);
    for (int64_t i = task * kPiecesAtOnce; i < end; ++i) {
      const Piece piece = pieces_[static_cast<size_t>(i)];
      kernels::GemmArgs args{};
      args.panels = weight.panels();
      args.outputs = weight.rows();
      args.inputs = weight.cols();
      args.panel_begin = piece.panel;
      args.panel_end = piece.panel + 1;
      args.x = host_floats(x) + piece.row * x.cols;
      args.x_stride = x.cols;
      args.prepared = prepared == nullptr ? nullptr : prepared + piece.row * row_bytes;
      args.rows = 1;
      args.y = host_floats(y) + piece.row * y.cols;
      args.y_stride = y.cols;
      args.scale = 1.0F;
      kernels_.gemm(weight.storage(), args);
    }
  });
}

// The copy did not help.
void CpuScreenedLinear::give_up(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  pauses_ = std::min(pauses_ * 2 + 1, kLongestPause);
  pause_ = pauses_;
  compute_all(x, weight, y);
}

void CpuScreenedLinear::compute_all(const Tensor& x, const CpuMatrix& weight, const Tensor& y) {
  ++whole_;
  bytes_ += weight.size_bytes();
  const LinearOutput whole{&weight, nullptr, y, {}};
  linear_.run(x, std::span(&whole, 1));
}

}  // namespace expert
