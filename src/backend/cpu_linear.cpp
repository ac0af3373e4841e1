#include "backend/cpu_linear.h"

#include <algorithm>
#include <cstring>

#include "backend/host_memory.h"
#include "core/error.h"

namespace expert {

namespace {

constexpr double kLeastCost = 16384;  // multiply-adds worth a task of its own
constexpr double kRowCost = 6;        // reading a weight, in multiply-adds
constexpr int kTasksPerThread = 6;    // uneven progress of the cores is evened out
constexpr int64_t kPanelGroup = 4;    // panels one row is multiplied with at a time

const CpuMatrix& packed(const Matrix& matrix) { return static_cast<const CpuMatrix&>(matrix); }

const CpuMatrix& require_matrix(const Matrix* matrix, int64_t rows, int64_t cols, const char* what) {
  if (matrix == nullptr) fail(ErrorCode::internal, "linear: {} is missing", what);
  if ((rows >= 0 && matrix->rows() != rows) || (cols >= 0 && matrix->cols() != cols)) {
    fail(ErrorCode::internal, "linear: {} is {} x {}, expected {} x {}", what, matrix->rows(), matrix->cols(), rows,
         cols);
  }
  return packed(*matrix);
}

void require_vector(const Tensor& tensor, int64_t cols, const char* what) {
  if (tensor) require_shape(tensor, 1, cols, what);
}

double cost_of(int64_t inputs, int64_t rows) {
  return static_cast<double>(inputs * kernels::kPanelRows) * (static_cast<double>(rows) + kRowCost);
}

}  // namespace

CpuLinear::CpuLinear(const kernels::CpuKernels& kernels, ThreadPool& pool)
    : kernels_(kernels),
      pool_(pool),
      quantised_(kernels, pool),
      work_(allocate_host(static_cast<size_t>(pool.threads()) * kernels::kGemmScratch * sizeof(float))) {}

float* CpuLinear::work_of(int worker) const {
  return reinterpret_cast<float*>(work_.get()) + worker * kernels::kGemmScratch;
}

void CpuLinear::run(const Tensor& x, std::span<const LinearOutput> outputs) {
  if (x.rows == 0 || outputs.empty()) return;
  plan(x, outputs);
  scratch_.resize(std::max(scratch_.size(), scratch_size_));
  scale_inputs();
  quantise_inputs();
  plan_products();
  do_products();
  plan_corrections();
  do_corrections();
}

void CpuLinear::plan(const Tensor& x, std::span<const LinearOutput> outputs) {
  require_shape(x, x.rows, x.cols, "linear: x");
  x_ = host_floats(x);
  rows_ = x.rows;
  inputs_ = x.cols;
  scratch_size_ = 0;
  terms_.clear();
  outputs_.resize(outputs.size());
  for (size_t o = 0; o < outputs.size(); ++o) plan_output(outputs[o], outputs_[o]);
}

void CpuLinear::plan_output(const LinearOutput& spec, Output& output) {
  output.weight = &require_matrix(spec.weight, -1, inputs_, "weight");
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
    plan_segment(part, output);
    row = rows.first + rows.count;
  }
  join(output.plain, {row, rows_ - row});
  join(output.with_base, {row, rows_ - row});
  if (output.scaled) {
    output.scaled_x = scratch_size_;
    scratch_size_ += static_cast<size_t>(rows_ * inputs_);
  }
}

void CpuLinear::plan_segment(const SegmentDelta& part, Output& output) {
  const LinearDelta& delta = *part.delta;
  const int64_t n = output.weight->rows();
  require_vector(delta.input_scale, inputs_, "linear: input scale");
  require_vector(delta.output_scale, n, "linear: output scale");
  require_vector(delta.bias, n, "linear: delta bias");
  require_vector(delta.result_scale, n, "linear: result scale");
  for (const DenseTerm& term : delta.dense) require_matrix(term.d.get(), n, inputs_, "dense term");
  if (part.row_count == 0) return;
  output.scaled = output.scaled || delta.input_scale;
  Segment segment{{part.first_row, part.row_count}, &delta, terms_.size(), 0};
  for (const LowRankTerm& term : delta.low_rank) {
    const CpuMatrix& a = require_matrix(term.a.get(), -1, inputs_, "A");
    const CpuMatrix& b = require_matrix(term.b.get(), n, a.rows(), "B");
    terms_.push_back({&a, &b, term.weight, scratch_size_});
    scratch_size_ += static_cast<size_t>(part.row_count * a.rows());
  }
  segment.last_term = terms_.size();
  output.segments.push_back(segment);
}

void CpuLinear::scale_inputs() {
  for (Output& output : outputs_) {
    if (!output.scaled) continue;
    float* to = scratch_.data() + output.scaled_x;
    output.x = to;
    std::memcpy(to, x_, static_cast<size_t>(rows_ * inputs_) * sizeof(float));
    for (const Segment& segment : output.segments) {
      if (!segment.delta->input_scale) continue;
      const float* scale = host_floats(segment.delta->input_scale);
      pool_.run(segment.rows.count, [&](int64_t r, int) {
        float* row = to + (segment.rows.first + r) * inputs_;
        kernels_.multiply(row, scale, inputs_, row);
      });
    }
  }
}

void CpuLinear::quantise_inputs() {
  quantised_.clear();
  for (Output& output : outputs_) {
    output.codes = output.with_base.empty()
                       ? nullptr
                       : quantised_.codes_of(output.weight->storage(), output.x, rows_, inputs_);
  }
}

// Cuts `panels` panels into tasks of about `target` cost, in whole panel groups.
void CpuLinear::split(Task task, int64_t panels, double cost_per_panel, double target) {
  const auto wished = static_cast<int64_t>(std::min(target / cost_per_panel, 1e9));
  const int64_t step = std::max<int64_t>(1, (wished + kPanelGroup - 1) / kPanelGroup) * kPanelGroup;
  for (int64_t p = 0; p < panels; p += step) {
    task.panel_begin = p;
    task.panel_end = std::min(panels, p + step);
    tasks_.push_back(task);
  }
}

void CpuLinear::plan_products() {
  tasks_.clear();
  double total = 0;
  const auto over_all = [&](const auto& visit) {
    for (size_t o = 0; o < outputs_.size(); ++o) {
      const Output& output = outputs_[o];
      visit(Task{o, -1, -1, 0, 0}, output.weight->panel_count(), cost_of(inputs_, rows_));
      for (size_t s = 0; s < output.segments.size(); ++s) {
        const Segment& segment = output.segments[s];
        for (size_t t = segment.first_term; t < segment.last_term; ++t) {
          visit(Task{o, static_cast<int64_t>(s), static_cast<int64_t>(t), 0, 0}, terms_[t].a->panel_count(),
                cost_of(inputs_, segment.rows.count));
        }
      }
    }
  };
  over_all([&](Task, int64_t panels, double cost) { total += static_cast<double>(panels) * cost; });
  const double target = std::max(kLeastCost, total / (pool_.threads() * kTasksPerThread));
  over_all([&](const Task& task, int64_t panels, double cost) { split(task, panels, cost, target); });
}

void CpuLinear::plan_corrections() {
  tasks_.clear();
  const auto cost_per_panel = [&](const Output& output) {
    double cost = 0;
    for (const Segment& segment : output.segments) {
      int64_t inputs = 4 + inputs_ * static_cast<int64_t>(segment.delta->dense.size());
      for (size_t t = segment.first_term; t < segment.last_term; ++t) inputs += terms_[t].b->cols();
      cost += cost_of(inputs, segment.rows.count);
    }
    return cost;
  };
  double total = 0;
  for (const Output& output : outputs_)
    total += static_cast<double>(output.weight->panel_count()) * cost_per_panel(output);
  const double target = std::max(kLeastCost, total / (pool_.threads() * kTasksPerThread));
  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Output& output = outputs_[o];
    if (!output.segments.empty())
      split(Task{o, -1, -1, 0, 0}, output.weight->panel_count(), cost_per_panel(output), target);
  }
}

void CpuLinear::do_products() {
  pool_.run(static_cast<int64_t>(tasks_.size()), [&](int64_t i, int worker) {
    const Task& task = tasks_[static_cast<size_t>(i)];
    const Output& output = outputs_[task.output];
    if (task.term < 0) return base_product(output, task, work_of(worker));
    const Rows rows = output.segments[static_cast<size_t>(task.segment)].rows;
    const LowRank& term = terms_[static_cast<size_t>(task.term)];
    multiply(*term.a, task, output.x + rows.first * inputs_, rows.count, scratch_.data() + term.t, term.weight, false,
             work_of(worker));
  });
}

void CpuLinear::do_corrections() {
  pool_.run(static_cast<int64_t>(tasks_.size()), [&](int64_t i, int worker) {
    const Task& task = tasks_[static_cast<size_t>(i)];
    const Output& output = outputs_[task.output];
    for (const Segment& segment : output.segments) correct(output, segment, task, work_of(worker));
  });
}

void CpuLinear::base_product(const Output& output, const Task& task, float* work) {
  const int64_t n = output.weight->rows();
  for (const Rows rows : output.with_base) {
    const unsigned char* codes =
        output.codes == nullptr ? nullptr : output.codes + rows.first * kernels::quantised_row_bytes(inputs_);
    multiply(*output.weight, task, output.x + rows.first * inputs_, rows.count, output.y + rows.first * n, 1.0F, false,
             work, codes);
  }
  const int64_t first = task.panel_begin * kernels::kPanelRows;
  const int64_t last = std::min(n, task.panel_end * kernels::kPanelRows);
  for (const Rows rows : output.without_base) {
    for (int64_t r = rows.first; r < rows.first + rows.count; ++r)
      std::fill(output.y + r * n + first, output.y + r * n + last, 0.0F);
  }
  if (output.bias == nullptr) return;
  for (const Rows rows : output.plain) add_to_rows(output, task, rows, output.bias);
}

// The formula of linear_delta.h from the base product on, for the task's columns.
void CpuLinear::correct(const Output& output, const Segment& segment, const Task& task, float* work) {
  const LinearDelta& delta = *segment.delta;
  const Rows rows = segment.rows;
  float* y = output.y + rows.first * output.weight->rows();
  if (delta.output_scale && !delta.skip_base) scale_rows(output, task, rows, host_floats(delta.output_scale));
  for (const DenseTerm& term : delta.dense) {
    multiply(packed(*term.d), task, output.x + rows.first * inputs_, rows.count, y, term.weight, true, work);
  }
  for (size_t t = segment.first_term; t < segment.last_term; ++t) {
    const LowRank& term = terms_[t];
    multiply(*term.b, task, scratch_.data() + term.t, rows.count, y, 1.0F, true, work);
  }
  if (output.bias != nullptr) add_to_rows(output, task, rows, output.bias);
  if (delta.bias) add_to_rows(output, task, rows, host_floats(delta.bias));
  if (delta.result_scale) scale_rows(output, task, rows, host_floats(delta.result_scale));
}

void CpuLinear::multiply(const CpuMatrix& w, const Task& task, const float* x, int64_t rows, float* y, float scale,
                         bool accumulate, float* work, const unsigned char* codes) const {
  if (codes == nullptr && kernels::is_quantised(w.storage())) {
    fail(ErrorCode::internal, "linear: an expert's matrix in {}", name_of(w.format()));
  }
  kernels::GemmArgs args{};
  args.panels = w.panels();
  args.outputs = w.rows();
  args.inputs = w.cols();
  args.panel_begin = task.panel_begin;
  args.panel_end = task.panel_end;
  args.x = x;
  args.x_stride = w.cols();
  args.codes = codes;
  args.rows = rows;
  args.y = y;
  args.y_stride = w.rows();
  args.scale = scale;
  args.accumulate = accumulate;
  args.scratch = work;
  kernels_.gemm(w.storage(), args);
}

void CpuLinear::add_to_rows(const Output& output, const Task& task, Rows rows, const float* values) const {
  const int64_t n = output.weight->rows();
  const int64_t first = task.panel_begin * kernels::kPanelRows;
  const int64_t count = std::min(n, task.panel_end * kernels::kPanelRows) - first;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    float* y = output.y + r * n + first;
    kernels_.add(y, values + first, count, y);
  }
}

void CpuLinear::scale_rows(const Output& output, const Task& task, Rows rows, const float* values) const {
  const int64_t n = output.weight->rows();
  const int64_t first = task.panel_begin * kernels::kPanelRows;
  const int64_t count = std::min(n, task.panel_end * kernels::kPanelRows) - first;
  for (int64_t r = rows.first; r < rows.first + rows.count; ++r) {
    float* y = output.y + r * n + first;
    kernels_.multiply(y, values + first, count, y);
  }
}

}  // namespace expert
