#include "backend/cpu_linear.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/ask_for.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr double kLeastCost = 16384;         // multiply-adds worth a task of its own
constexpr double kByteCost = 3;              // reading a byte of weights, in multiply-adds
constexpr int kTasksPerThread = 6;           // uneven progress of the cores is evened out
constexpr double kLeastShrink = 8 * kLeastCost;  // likewise of A: a few dozen rows, read in one go
constexpr int64_t kAsked = 96 * 64;          // bytes that a processor has room to ask for at once
constexpr int64_t kPanelGroup = 4;           // panels one row is multiplied with at a time
constexpr int64_t kFactorGroup = 8;          // likewise rows of A
constexpr int64_t kFactorsAhead = 32;        // rows of A behind a task's own, which it asks for
constexpr int64_t kLeastGated = 16 * 1024;   // values of a gate, for another piece per thread
constexpr int64_t kLeastScaled = 64 * 1024;  // activations to scale, for a parallel region of their own

const CpuMatrix& packed(const Matrix& matrix) { return static_cast<const CpuMatrix&>(matrix); }

// In multiply-adds: of `weights` weights for `rows` rows.
double cost_of(double weights, kernels::Storage storage, int64_t rows) {
  constexpr int64_t kInputs = 1024;
  const double bytes = static_cast<double>(kernels::panel_bytes(storage, kInputs)) / (kInputs * kernels::kPanelRows);
  return weights * (static_cast<double>(rows) + kByteCost * bytes);
}

const float* floats_or_null(const Tensor& tensor) { return tensor ? host_floats(tensor) : nullptr; }

}  // namespace

LinearShare::LinearShare(int threads)
    : shrink_tasks(threads),
      output_tasks(threads),
      gate_tasks(threads),
      factor_lists(static_cast<size_t>(threads)),
      work(allocate_host(static_cast<size_t>(threads) * kernels::kGemmScratch * sizeof(float))) {}

CpuLinear::CpuLinear(const kernels::CpuKernels& kernels, CrewMember& member, LinearShare& share)
    : kernels_(kernels), member_(member), share_(share), prepared_(kernels, member, share.rows) {}

void LinearShare::begin() noexcept {
  for (WorkRanges* ranges : {&shrink_tasks, &output_tasks, &gate_tasks}) ranges->fill(0);
  shrinks_done.store(0, std::memory_order_relaxed);
  outputs_done.store(0, std::memory_order_relaxed);
}

void CpuLinear::begin_walk() noexcept {
  shrinks_due_ = 0;
  outputs_due_ = 0;
  prepared_.begin_walk();
}

float* CpuLinear::work_of(int worker) const {
  return reinterpret_cast<float*>(share_.work.get()) + worker * kernels::kGemmScratch;
}

void CpuLinear::run(const Tensor& x, std::span<const LinearOutput> outputs) {
  if (x.rows == 0 || outputs.empty()) return;
  gated_ = nullptr;
  compute(x, outputs);
}

void CpuLinear::run_gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) {
  require_shape(gate.y, out.rows, out.cols, "gated: gate");
  require_shape(up.y, out.rows, out.cols, "gated: up");
  if (x.rows == 0) return;
  gated_ = host_floats(out);
  compute(x, std::array{gate, up});
}

RowsInTheMaking CpuLinear::make_rows(const Tensor& x) {
  return prepared_.make(last_storage_, host_floats(x), x.rows, x.cols);
}

void CpuLinear::compute(const Tensor& x, std::span<const LinearOutput> outputs) {
  plan(x, outputs);
  place_scratch();
  plan_tasks();
  ask_for_first_factors();
  scale_inputs();
  prepare_inputs();
  do_tasks();
}

// --- what there is to do --------------------------------------------------------------------------------------------

void CpuLinear::plan(const Tensor& x, std::span<const LinearOutput> outputs) {
  require_shape(x, x.rows, x.cols, "linear: x");
  x_ = host_floats(x);
  rows_ = x.rows;
  inputs_ = x.cols;
  shrink_count_ = 0;
  unplanned_.clear();
  outputs_.resize(outputs.size());
  for (size_t o = 0; o < outputs.size(); ++o) plan_output(outputs[o], o);
}

void CpuLinear::plan_output(const LinearOutput& spec, size_t index) {
  Output& output = outputs_[index];
  output.weight = &require_matrix<CpuMatrix>(spec.weight, -1, inputs_, "weight");
  const int64_t n = output.weight->rows();
  require_shape(spec.y, rows_, n, "linear: y");
  if (spec.bias != nullptr) require_shape(*spec.bias, 1, n, "linear: bias");
  output.bias = spec.bias != nullptr ? host_floats(*spec.bias) : nullptr;
  output.x = x_;
  output.y = host_floats(spec.y);
  output.scaled = false;
  output.with_base.clear();
  output.without_base.clear();
  output.plain.clear();
  output.segments.clear();

  int64_t row = 0;
  const auto join = [](std::vector<Rows>& runs, Rows rows) {
    if (rows.count == 0) return;
    if (!runs.empty() && runs.back().first + runs.back().count == rows.first) {
      runs.back().count += rows.count;
    } else {
      runs.push_back(rows);
    }
  };
  for (const SegmentDelta& part : spec.deltas) {
    if (part.delta == nullptr || part.first_row < row || part.row_count < 0 ||
        part.first_row + part.row_count > rows_) {
      fail(ErrorCode::internal, "linear: a delta for rows [{}, {}) of {}, out of order or range", part.first_row,
           part.first_row + part.row_count, rows_);
    }
    const Rows rows{part.first_row, part.row_count};
    join(output.plain, {row, rows.first - row});
    join(output.with_base, {row, rows.first - row});
    join(part.delta->skip_base ? output.without_base : output.with_base, rows);
    plan_segment(part, index);
    row = rows.first + rows.count;
  }
  join(output.plain, {row, rows_ - row});
  join(output.with_base, {row, rows_ - row});
}

void CpuLinear::plan_segment(const SegmentDelta& part, size_t index) {
  Output& output = outputs_[index];
  const LinearDelta& delta = *part.delta;
  const int64_t n = output.weight->rows();
  require_vector(delta.input_scale, inputs_, "linear: input scale");
  require_vector(delta.output_scale, n, "linear: output scale");
  require_vector(delta.bias, n, "linear: delta bias");
  require_vector(delta.result_scale, n, "linear: result scale");
  for (const DenseTerm& term : delta.dense) {
    const CpuMatrix& d = require_matrix<CpuMatrix>(term.d.get(), n, inputs_, "dense term");
    if (kernels::is_quantised(d.storage())) {
      fail(ErrorCode::internal, "linear: an expert's matrix in {}", name_of(d.format()));
    }
  }
  if (part.row_count == 0) return;
  output.scaled = output.scaled || delta.input_scale;
  Segment segment{{part.first_row, part.row_count}, &delta, nullptr, 0, 0, 0};
  if (!delta.low_rank.empty()) {
    segment.terms = &terms_of(delta, n);
    segment.shrink = shrink_for(segment.rows, delta.input_scale ? static_cast<int64_t>(index) : -1);
    Shrink& shrink = shrinks_[segment.shrink];
    segment.column = shrink.stride;
    shrink.parts.push_back({segment.terms, shrink.stride});
    shrink.stride += segment.terms->a_ranks.total();
    shrink.ranks.add(segment.terms->a_ranks);
  }
  output.segments.push_back(segment);
}

const CpuTerms& CpuLinear::terms_of(const LinearDelta& delta, int64_t outputs) {
  const CpuTerms& terms = delta.planned_terms ? *static_cast<const CpuTerms*>(delta.planned_terms.get())
                                              : unplanned_.emplace_back(cpu_terms_of(delta.low_rank));
  if (terms.inputs != inputs_ || terms.outputs != outputs) {
    fail(ErrorCode::internal, "linear: terms are {} x {}, expected {} x {}", terms.outputs, terms.inputs, outputs, inputs_);
  }
  return terms;
}

// The shrink over these rows, a new one if there is none yet.
size_t CpuLinear::shrink_for(Rows rows, int64_t scaled_output) {
  for (size_t i = 0; i < shrink_count_; ++i) {
    const Shrink& shrink = shrinks_[i];
    if (shrink.rows == rows && shrink.scaled_output == scaled_output) return i;
  }
  if (shrink_count_ == shrinks_.size()) shrinks_.emplace_back();
  Shrink& shrink = shrinks_[shrink_count_];
  shrink.rows = rows;
  shrink.scaled_output = scaled_output;
  shrink.parts.clear();
  shrink.stride = 0;
  shrink.ranks = {};
  return shrink_count_++;
}

void CpuLinear::place_scratch() {
  size_t scaled = 0;
  for (Output& output : outputs_) {
    if (!output.scaled) continue;
    output.scaled_x = scaled;
    scaled += static_cast<size_t>(rows_ * inputs_);
  }
  scaled_.resize(std::max(scaled_.size(), scaled));
  size_t t_size = 0;
  for (size_t i = 0; i < shrink_count_; ++i) {
    shrinks_[i].t = t_size;
    t_size += static_cast<size_t>(shrinks_[i].rows.count * shrinks_[i].stride);
  }
  member_.once(t_size > share_.t.size(), [&] { share_.t.resize(t_size); });
  expands_.clear();
  for (Output& output : outputs_) {
    for (Segment& segment : output.segments) {
      segment.first_term = expands_.size();
      if (segment.terms == nullptr) continue;
      const Shrink& shrink = shrinks_[segment.shrink];
      const float* t = share_.t.data() + shrink.t + segment.column;
      for (const CpuTerms::Term& term : segment.terms->terms) {
        expands_.push_back({term.b_storage, term.b, term.rank, t, shrink.stride});
        t += term.rank;
      }
    }
  }
}

void CpuLinear::scale_inputs() {
  for (Output& output : outputs_) {
    if (!output.scaled) continue;
    float* to = scaled_.data() + output.scaled_x;
    output.x = to;
    std::memcpy(to, x_, static_cast<size_t>(rows_ * inputs_) * sizeof(float));
    for (const Segment& segment : output.segments) {
      if (!segment.delta->input_scale) continue;
      const float* scale = host_floats(segment.delta->input_scale);
      const auto scale_row = [&](int64_t r) {
        float* row = to + (segment.rows.first + r) * inputs_;
        kernels_.multiply(row, scale, inputs_, row);
      };
      if (segment.rows.count * inputs_ >= kLeastScaled) {
        member_.by_itself(segment.rows.count, scale_row);
      } else {
        for (int64_t r = 0; r < segment.rows.count; ++r) scale_row(r);
      }
    }
  }
}

void CpuLinear::prepare_inputs() {
  prepared_.begin(x_, rows_, inputs_);
  for (Output& output : outputs_) {
    if (!output.with_base.empty()) prepared_.prepare(output.weight->storage(), output.x, rows_, inputs_);
    for (const Segment& segment : output.segments) {
      for (const DenseTerm& term : segment.delta->dense) {
        prepared_.prepare(packed(*term.d).storage(), output.x, rows_, inputs_);
      }
    }
  }
  last_storage_ = outputs_.front().weight->storage();
  if (gated_ != nullptr) making_ = prepared_.make(last_storage_, gated_, rows_, outputs_.front().weight->rows());
}

// --- tasks ----------------------------------------------------------------------------------------------------------

// Cuts panels or factor rows into tasks of about `target` cost, in whole groups of `grain`.
void CpuLinear::split(Task task, int64_t grain, double cost, double target) {
  const auto wished = static_cast<int64_t>(std::min(target / cost, 1e9));
  const int64_t step = std::max<int64_t>(1, (wished + grain - 1) / grain) * grain;
  for (int64_t i = task.begin; i < task.end; i += step) tasks_.push_back({task.index, i, std::min(task.end, i + step)});
}

double CpuLinear::cost_per_panel(const Output& output) const {
  const auto of = [](int64_t inputs, kernels::Storage storage, int64_t rows) {
    return cost_of(static_cast<double>(kernels::kPanelRows * inputs), storage, rows);
  };
  double cost = of(inputs_, output.weight->storage(), rows_);
  for (const Segment& segment : output.segments) {
    const int64_t rows = segment.rows.count;
    cost += of(4, kernels::Storage::f32, rows);
    for (const DenseTerm& term : segment.delta->dense) cost += of(inputs_, packed(*term.d).storage(), rows);
    if (segment.terms != nullptr) cost += cost_of_ranks(segment.terms->b_ranks, kernels::kPanelRows, rows);
  }
  return cost;
}

double CpuLinear::cost_of_ranks(const CpuTerms::Ranks& ranks, int64_t width, int64_t rows) const {
  const auto of = [&](int64_t rank, kernels::Storage storage) {
    return cost_of(static_cast<double>(rank) * static_cast<double>(width), storage, rows);
  };
  return of(ranks.f32, kernels::Storage::f32) + of(ranks.bf16, kernels::Storage::bf16);
}

double CpuLinear::target_of(double cost) const {
  return std::max(kLeastCost, cost / (member_.size() * kTasksPerThread));
}

// Shrinks are begun first: when an output task waits for them, all are done or being done.
void CpuLinear::plan_tasks() {
  tasks_.clear();
  double cost = 0;
  size_t widest = 0;
  const auto cost_of_shrink = [&](const Shrink& shrink) { return cost_of_ranks(shrink.ranks, inputs_, shrink.rows.count); };
  for (size_t i = 0; i < shrink_count_; ++i) {
    cost += cost_of_shrink(shrinks_[i]);
    widest = std::max(widest, static_cast<size_t>(shrinks_[i].stride));
  }
  for (int i = 0; i < member_.size(); ++i) {  // here, since others wait for a task that lists them
    if (member_.walks() && i != member_.index()) continue;
    FactorList& list = share_.factor_lists[static_cast<size_t>(i)];
    list.rows.reserve(widest);
    list.weights.reserve(widest);
  }
  for (size_t i = 0; i < shrink_count_; ++i) {
    const double per_factor = cost_of_shrink(shrinks_[i]) / static_cast<double>(shrinks_[i].stride);
    split({i, 0, shrinks_[i].stride}, kFactorGroup, per_factor, std::max(kLeastShrink, target_of(cost)));
  }
  first_output_task_ = tasks_.size();
  cost = 0;
  for (const Output& output : outputs_) {
    cost += static_cast<double>(output.weight->panel_count()) * cost_per_panel(output);
  }
  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Output& output = outputs_[o];
    split({o, 0, output.weight->panel_count()}, kPanelGroup, cost_per_panel(output), target_of(cost));
  }
  const auto shrinks = static_cast<int64_t>(first_output_task_);
  const int64_t outputs = static_cast<int64_t>(tasks_.size()) - shrinks;
  if (!member_.walks()) {
    share_.begin();
    shrinks_due_ = 0;
    outputs_due_ = 0;
  }
  fill(share_.shrink_tasks, shrinks);
  fill(share_.output_tasks, outputs);
  shrinks_due_ += shrinks;
  if (gated_ == nullptr) return;
  fill(share_.gate_tasks, gate_pieces());
  outputs_due_ += outputs;
}

void CpuLinear::fill(WorkRanges& ranges, int64_t count) const {
  member_.walks() ? ranges.fill_part(count, member_.index()) : ranges.fill(count);
}

// What this thread reads first, while it makes ready for it.
void CpuLinear::ask_for_first_factors() const {
  if (first_output_task_ == 0 || rows_ > 1) return;
  const size_t first = first_output_task_ * static_cast<size_t>(member_.index()) / static_cast<size_t>(member_.size());
  const Task& task = tasks_[first];
  int64_t column = task.begin;
  for (const Shrink::Part& part : shrinks_[task.index].parts) {
    for (const CpuTerms::Term& term : part.terms->terms) {
      if (column < term.rank) {
        const int64_t row_bytes = kernels::factor_row_bytes(term.a_storage, inputs_);
        ask_for_ahead(term.a + column * row_bytes, static_cast<size_t>(std::min(kAsked, (term.rank - column) * row_bytes)));
        return;
      }
      column -= term.rank;
    }
  }
}

// Each worker reads on and on where it can: the processor runs ahead of it, and so do the kernels.
void CpuLinear::do_tasks() {
  LinearShare& share = share_;
  member_.share(static_cast<int64_t>(tasks_.size()), [&](int worker) {
    for (int64_t i = share.shrink_tasks.next(worker); i >= 0; i = share.shrink_tasks.next(worker)) {
      do_shrink(tasks_[static_cast<size_t>(i)], worker);
    }
    for (int64_t i = share.output_tasks.next(worker); i >= 0; i = share.output_tasks.next(worker)) {
      do_outputs(tasks_[first_output_task_ + static_cast<size_t>(i)], work_of(worker));
      if (gated_ != nullptr) share.outputs_done.fetch_add(1, std::memory_order_acq_rel);
    }
    if (gated_ == nullptr) return;
    member_.await(share.outputs_done, outputs_due_);
    for (int64_t i = share.gate_tasks.next(worker); i >= 0; i = share.gate_tasks.next(worker)) gate(i);
  });
}

void CpuLinear::do_outputs(const Task& task, float* work) {
  const Output& output = outputs_[task.index];
  base_product(output, task, work);
  if (output.segments.empty()) return;
  member_.await(share_.shrinks_done, shrinks_due_);
  for (const Segment& segment : output.segments) correct(output, segment, task, work);
}

// One per thread where there is little to do: each costs as much as it takes for the cores to agree on it.
int64_t CpuLinear::gate_pieces() const {
  return member_.size() * std::clamp<int64_t>(rows_ * outputs_.front().weight->rows() / kLeastGated, 1, kTasksPerThread);
}

// Of the two outputs, whole groups of their columns: whoever made them, both are done.
void CpuLinear::gate(int64_t piece) const {
  const int64_t n = outputs_.front().weight->rows();
  const int64_t groups = kernels::group_count(n);
  const int64_t pieces = gate_pieces();
  const int64_t first = groups * piece / pieces * kernels::kGroup;
  const int64_t last = std::min(n, groups * (piece + 1) / pieces * kernels::kGroup);
  for (int64_t r = 0; r < rows_; ++r) {
    const int64_t at = r * n + first;
    kernels_.swiglu(outputs_[0].y + at, outputs_[1].y + at, last - first, gated_ + at);
    making_.prepare(r, first, last);
  }
}

// The rows of A in the columns of t from `begin` to at most `end`, as far as they have one storage. Allocates nothing.
void CpuLinear::list_factors(const Shrink& shrink, int64_t begin, int64_t end, FactorList& list) const {
  list.rows.clear();
  list.weights.clear();
  for (const Shrink::Part& part : shrink.parts) {
    if (part.column + part.terms->a_ranks.total() <= begin) continue;
    int64_t column = part.column;
    for (const CpuTerms::Term& term : part.terms->terms) {
      const int64_t first = std::max<int64_t>(0, begin - column);
      const int64_t last = std::min(term.rank, end - column);
      column += term.rank;
      if (first >= term.rank) continue;
      if (last <= first) return;
      if (list.rows.empty()) list.storage = term.a_storage;
      if (list.storage != term.a_storage) return;
      const int64_t row_bytes = kernels::factor_row_bytes(term.a_storage, inputs_);
      for (int64_t r = first; r < last; ++r) list.rows.push_back(term.a + r * row_bytes);
      list.weights.insert(list.weights.end(), static_cast<size_t>(last - first), term.weight);
    }
  }
}

void CpuLinear::do_shrink(const Task& task, int worker) {
  const Shrink& shrink = shrinks_[task.index];
  FactorList& list = share_.factor_lists[static_cast<size_t>(worker)];
  for (int64_t begin = task.begin; begin < task.end;) {
    list_factors(shrink, begin, std::min(shrink.stride, task.end + kFactorsAhead), list);
    const int64_t count = std::min(static_cast<int64_t>(list.rows.size()), task.end - begin);
    shrink_listed(shrink, begin, count, list);
    begin += count;
  }
  share_.shrinks_done.fetch_add(1, std::memory_order_acq_rel);
}

// The first `count` of the list, which belong to the columns of t from `begin` on.
void CpuLinear::shrink_listed(const Shrink& shrink, int64_t begin, int64_t count, const FactorList& list) {
  const float* x = shrink.scaled_output < 0 ? x_ : outputs_[static_cast<size_t>(shrink.scaled_output)].x;
  kernels::ShrinkArgs args{};
  args.factors = list.rows.data();
  args.weights = list.weights.data();
  args.count = static_cast<int64_t>(list.rows.size());
  args.end = count;
  args.x = x + shrink.rows.first * inputs_;
  args.x_stride = inputs_;
  args.rows = shrink.rows.count;
  args.inputs = inputs_;
  args.t = share_.t.data() + shrink.t + begin;
  args.t_stride = shrink.stride;
  kernels_.shrink(list.storage, args);
}

void CpuLinear::base_product(const Output& output, const Task& task, float* work) {
  const int64_t n = output.weight->rows();
  for (const Rows rows : output.with_base) {
    multiply(*output.weight, task, output.x, rows, output.y + rows.first * n, 1.0F, false, work);
  }
  const int64_t first = task.begin * kernels::kPanelRows;
  const int64_t last = std::min(n, task.end * kernels::kPanelRows);
  for (const Rows rows : output.without_base) {
    for (int64_t r = rows.first; r < rows.first + rows.count; ++r)
      std::fill(output.y + r * n + first, output.y + r * n + last, 0.0F);
  }
  if (output.bias == nullptr) return;
  for (const Rows rows : output.plain) add_to_rows(output, task, rows, output.bias);
}

// The formula of linear_delta.h from the base product on, for the task's outputs.
void CpuLinear::correct(const Output& output, const Segment& segment, const Task& task, float* work) {
  const LinearDelta& delta = *segment.delta;
  const Rows rows = segment.rows;
  const int64_t n = output.weight->rows();
  kernels::ExpandArgs args{};
  args.y = output.y + rows.first * n;
  args.base_scale = delta.skip_base ? nullptr : floats_or_null(delta.output_scale);
  if (!delta.dense.empty()) {  // full matrices come between e and the low-rank terms
    if (args.base_scale != nullptr) scale_rows(output, task, rows, args.base_scale);
    args.base_scale = nullptr;
    for (const DenseTerm& term : delta.dense)
      multiply(packed(*term.d), task, output.x, rows, args.y, term.weight, true, work);
  }
  args.terms = expands_.data() + segment.first_term;
  args.count = segment.terms != nullptr ? static_cast<int64_t>(segment.terms->terms.size()) : 0;
  args.outputs = n;
  args.panel_begin = task.begin;
  args.panel_end = task.end;
  args.rows = rows.count;
  args.y_stride = n;
  args.base_bias = output.bias;
  args.bias = floats_or_null(delta.bias);
  args.result_scale = floats_or_null(delta.result_scale);
  kernels_.expand(args);
}

// `x`: of row 0, `y` of the first of `rows`.
void CpuLinear::multiply(const CpuMatrix& w, const Task& task, const float* x, Rows rows, float* y, float scale,
                         bool accumulate, float* work) const {
  kernels::GemmArgs args{};
  args.panels = w.panels();
  args.outputs = w.rows();
  args.inputs = w.cols();
  args.panel_begin = task.begin;
  args.panel_end = task.end;
  args.x = x + rows.first * w.cols();
  args.x_stride = w.cols();
  args.prepared = prepared_.find(w.storage(), x);
  if (args.prepared != nullptr) args.prepared += rows.first * kernels_.prepared_row_bytes(w.storage(), w.cols());
  args.rows = rows.count;
  args.y = y;
  args.y_stride = w.rows();
  args.scale = scale;
  args.accumulate = accumulate;
  args.scratch = work;
  kernels_.gemm(w.storage(), args);
}

void CpuLinear::add_to_rows(const Output& output, const Task& task, Rows rows, const float* values) const {
  const int64_t n = output.weight->rows();
  const int64_t first = task.begin * kernels::kPanelRows;
  const int64_t count = std::min(n, task.end * kernels::kPanelRows) - first;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    float* y = output.y + r * n + first;
    kernels_.add(y, values + first, count, y);
  }
}

void CpuLinear::scale_rows(const Output& output, const Task& task, Rows rows, const float* values) const {
  const int64_t n = output.weight->rows();
  const int64_t first = task.begin * kernels::kPanelRows;
  const int64_t count = std::min(n, task.end * kernels::kPanelRows) - first;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    float* y = output.y + r * n + first;
    kernels_.multiply(y, values + first, count, y);
  }
}

}  // namespace expert
