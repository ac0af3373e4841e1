#include "backend/cuda/cuda_linear.h"

#include <algorithm>

#include "backend/op_checks.h"
#include "core/error.h"

namespace expert::cuda {

namespace kc = kernels::cuda;

namespace {

constexpr int64_t kEnoughBlocks = 512;  // of threads, to keep a device busy without cutting the inputs

// Index in Table::product, and how many rows it takes at a time.
int row_choice(int64_t rows) { return rows == 1 ? 0 : rows == 2 ? 1 : rows <= 4 ? 2 : 3; }

size_t tile_bytes(kernels::Storage storage, int rows) {
  switch (storage) {
    case kernels::Storage::f32:
    case kernels::Storage::bf16:
      return static_cast<size_t>(rows) * kc::kSumInputs * sizeof(float);
    default:
      return static_cast<size_t>(rows) * (kc::kSumInputs + kc::kSumInputs / kernels::kGroup * sizeof(float));
  }
}

}  // namespace

CudaLinear::CudaLinear(std::shared_ptr<Device> device, const kc::Table& kernels, Staging& staging)
    : device_(device), kernels_(kernels), staging_(staging), lists_(device), parts_(device), ranks_(device) {}

void CudaLinear::run(const Tensor& x, std::span<const LinearOutput> outputs) {
  if (x.rows == 0 || outputs.empty()) return;
  if (outputs.size() > kc::kMostOutputs) {
    run(x, outputs.first(kc::kMostOutputs));
    return run(x, outputs.subspan(kc::kMostOutputs));
  }
  require_shape(x, x.rows, x.cols, "linear: x");
  x_ = device_floats(x);
  rows_ = static_cast<int32_t>(x.rows);
  inputs_ = x.cols;
  plan(outputs);
  decide_parts();
  send_lists();
  shrink();
  multiply_shared();
  for (const OwnProduct& product : own_) {
    if (!product.accumulate) multiply(product);
  }
  const bool dense = std::ranges::any_of(outputs_, [](const Output& output) { return output.dense; });
  if (dense) {
    finish(kc::FinishStage::opening);
    for (const OwnProduct& product : own_) {
      if (product.accumulate) multiply(product);
    }
    finish(kc::FinishStage::closing);
  }
  finish(kc::FinishStage::whole);
}

// --- what there is to do --------------------------------------------------------------------------------------------

void CudaLinear::plan(std::span<const LinearOutput> outputs) {
  outputs_.clear();
  own_.clear();
  deltas_.clear();
  terms_.clear();
  tasks_.clear();
  rank_values_ = 0;
  units_ = 0;
  outputs_.resize(outputs.size());
  for (size_t o = 0; o < outputs.size(); ++o) plan_output(outputs[o], o);
}

void CudaLinear::plan_output(const LinearOutput& spec, size_t index) {
  Output& output = outputs_[index];
  output.weight = &require_matrix<CudaMatrix>(spec.weight, -1, inputs_, "weight");
  const int64_t n = output.weight->rows();
  require_shape(spec.y, rows_, n, "linear: y");
  if (spec.bias != nullptr) require_shape(*spec.bias, 1, n, "linear: bias");
  output.bias = spec.bias != nullptr ? device_floats(*spec.bias) : nullptr;
  output.y = device_floats(spec.y);
  output.own_base = false;
  output.dense = false;
  int32_t row = 0;
  for (const SegmentDelta& part : spec.deltas) {
    if (part.delta == nullptr || part.first_row < row || part.row_count < 0 ||
        part.first_row + part.row_count > rows_) {
      fail(ErrorCode::internal, "linear: a delta for rows [{}, {}) of {}, out of order or range", part.first_row,
           part.first_row + part.row_count, rows_);
    }
    add_tiles(output, row, part.first_row - row, -1);
    plan_segment(part, index);
    row = part.first_row + part.row_count;
  }
  if (!output.tiles.empty()) add_tiles(output, row, rows_ - row, -1);
  if (output.own_base) plan_own_base(spec, index);
}

void CudaLinear::add_tiles(Output& output, int32_t first, int32_t count, int32_t delta) const {
  for (int32_t at = 0; at < count; at += kc::kMostRows) {
    output.tiles.push_back({first + at, std::min(kc::kMostRows, count - at), delta});
  }
}

void CudaLinear::plan_segment(const SegmentDelta& part, size_t index) {
  Output& output = outputs_[index];
  const LinearDelta& delta = *part.delta;
  const int64_t n = output.weight->rows();
  require_vector(delta.input_scale, inputs_, "linear: input scale");
  require_vector(delta.output_scale, n, "linear: output scale");
  require_vector(delta.bias, n, "linear: delta bias");
  require_vector(delta.result_scale, n, "linear: result scale");
  for (const DenseTerm& term : delta.dense) {
    const CudaMatrix& matrix = require_matrix<CudaMatrix>(term.d.get(), n, inputs_, "dense term");
    if (is_quantised(matrix.format())) {
      fail(ErrorCode::internal, "linear: a dense term in {}; experts are never quantised", name_of(matrix.format()));
    }
  }
  if (part.row_count == 0) return;
  add_tiles(output, part.first_row, part.row_count, static_cast<int32_t>(deltas_.size()));
  kc::DeltaVectors vectors{};
  vectors.output_scale = floats_or_null(delta.output_scale);
  vectors.bias = floats_or_null(delta.bias);
  vectors.result_scale = floats_or_null(delta.result_scale);
  vectors.skip_base = delta.skip_base ? 1 : 0;
  vectors.first_term = static_cast<int32_t>(terms_.size());
  for (const LowRankTerm& term : delta.low_rank) plan_term(term, part, n);
  vectors.last_term = static_cast<int32_t>(terms_.size());
  deltas_.push_back(vectors);
  output.own_base = output.own_base || delta.skip_base || delta.input_scale;
  plan_dense(part, index);
}

void CudaLinear::plan_term(const LowRankTerm& term, const SegmentDelta& part, int64_t outputs) {
  const CudaFactor& a = require_factor<CudaFactor>(term.a.get(), CudaFactor::Role::a, -1, inputs_, "A");
  const CudaFactor& b = require_factor<CudaFactor>(term.b.get(), CudaFactor::Role::b, outputs, a.rows(), "B");
  const auto rank = static_cast<int32_t>(a.rows());
  kc::ShrinkTask task{};
  task.a = a.bytes();
  task.input_scale = floats_or_null(part.delta->input_scale);
  task.first_row = part.first_row;
  task.row_count = part.row_count;
  task.rank = rank;
  task.bf16 = a.is_bf16() ? 1 : 0;
  task.weight = term.weight;
  task.first_unit = units_;
  tasks_.push_back(task);
  kc::ExpandTerm expand{};
  expand.b = b.bytes();
  expand.rank = rank;
  expand.bf16 = b.is_bf16() ? 1 : 0;
  expand.first_row = part.first_row;
  terms_.push_back(expand);
  units_ += rank * static_cast<int32_t>(ceil_div(part.row_count, kc::kMostRows));
  rank_values_ += static_cast<size_t>(rank) * static_cast<size_t>(part.row_count);
}

void CudaLinear::plan_dense(const SegmentDelta& part, size_t index) {
  for (const DenseTerm& term : part.delta->dense) {
    OwnProduct product{static_cast<const CudaMatrix*>(term.d.get()), index, {}, {}, term.weight, true};
    for (int32_t r = 0; r < part.row_count; ++r) product.rows.push_back(part.first_row + r);
    if (part.delta->input_scale) {
      product.input_scales.assign(product.rows.size(), device_floats(part.delta->input_scale));
    }
    own_.push_back(std::move(product));
    outputs_[index].dense = true;
  }
}

// The rows that meet the base, each with its own d.
void CudaLinear::plan_own_base(const LinearOutput& spec, size_t index) {
  OwnProduct product{outputs_[index].weight, index, {}, {}};
  auto part = spec.deltas.begin();
  for (int32_t row = 0; row < rows_; ++row) {
    while (part != spec.deltas.end() && part->first_row + part->row_count <= row) ++part;
    const bool bent = part != spec.deltas.end() && part->first_row <= row;
    if (bent && part->delta->skip_base) continue;
    product.rows.push_back(row);
    product.input_scales.push_back(bent ? floats_or_null(part->delta->input_scale) : nullptr);
  }
  if (!product.rows.empty()) own_.push_back(std::move(product));
}

// Few rows: the inputs are cut as well, so that there is work for the whole device. The bits are the same either way.
void CudaLinear::decide_parts() {
  int64_t panels = 0;
  part_stride_ = 0;
  for (const Output& output : outputs_) {
    panels += kernels::panel_count(output.weight->rows());
    part_stride_ += output.weight->rows();
  }
  part_count_ = ceil_div(inputs_, kc::kSumInputs);
  part_memory_ = nullptr;
  const int64_t blocks = ceil_div(panels, kc::kProductWarps) * ceil_div(rows_, int64_t{1} << row_choice(rows_));
  if (part_count_ == 1 || blocks >= kEnoughBlocks) return;
  part_memory_ =
      reinterpret_cast<float*>(parts_.of(static_cast<size_t>(part_count_ * rows_ * part_stride_) * sizeof(float)));
}

void CudaLinear::send_lists() {
  float* t = rank_values_ > 0 ? reinterpret_cast<float*>(ranks_.of(rank_values_ * sizeof(float))) : nullptr;
  for (size_t i = 0; i < tasks_.size(); ++i) {
    tasks_[i].t = t;
    terms_[i].t = t;
    t += int64_t{tasks_[i].rank} * tasks_[i].row_count;
  }
  lists_.clear();
  deltas_place_ = lists_.add(std::span<const kc::DeltaVectors>(deltas_));
  terms_place_ = lists_.add(std::span<const kc::ExpandTerm>(terms_));
  tasks_place_ = lists_.add(std::span<const kc::ShrinkTask>(tasks_));
  for (Output& output : outputs_) output.tiles_place = lists_.add(std::span<const kc::RowTile>(output.tiles));
  for (OwnProduct& product : own_) {
    product.rows_place = lists_.add(std::span<const int32_t>(product.rows));
    product.scales_place = lists_.add(std::span<const float* const>(product.input_scales));
  }
  lists_.send(staging_);
}

// --- launches --------------------------------------------------------------------------------------------------------

void CudaLinear::shrink() {
  if (units_ == 0) return;
  kc::ShrinkArgs args{};
  args.tasks = lists_.at<kc::ShrinkTask>(tasks_place_);
  args.task_count = static_cast<int32_t>(tasks_.size());
  args.unit_count = units_;
  args.x = x_;
  args.inputs = inputs_;
  const int64_t blocks = ceil_div(int64_t{units_} * kc::kWarpLanes, kc::kPlainThreads);
  launch(*device_, kernels_.shrink, {blocks, 1, 1, kc::kPlainThreads}, args);
}

// Base products that all rows meet as they are: one launch per weight format.
void CudaLinear::multiply_shared() {
  for (const kernels::Storage storage :
       {kernels::Storage::f32, kernels::Storage::bf16, kernels::Storage::int8, kernels::Storage::int4}) {
    kc::ProductArgs args{};
    int64_t offset = 0;
    for (const Output& output : outputs_) {
      const int64_t n = output.weight->rows();
      if (!output.own_base && output.weight->storage() == storage) {
        args.output[args.output_count++] = {output.weight->panels(), output.y, n, args.panel_count, offset};
        args.panel_count += kernels::panel_count(n);
      }
      offset += n;
    }
    if (args.output_count == 0) continue;
    args.row_count = rows_;
    args.parts = part_memory_;
    launch_product(args, storage);
  }
}

void CudaLinear::multiply(const OwnProduct& product) {
  const Output& output = outputs_[product.output];
  int64_t offset = 0;
  for (size_t o = 0; o < product.output; ++o) offset += outputs_[o].weight->rows();
  kc::ProductArgs args{};
  args.output_count = 1;
  args.output[0] = {product.weight->panels(), output.y, product.weight->rows(), 0, offset};
  args.panel_count = kernels::panel_count(product.weight->rows());
  args.row_count = static_cast<int32_t>(product.rows.size());
  args.rows = lists_.at<int32_t>(product.rows_place);
  args.input_scales = product.input_scales.empty() ? nullptr : lists_.at<const float*>(product.scales_place);
  args.parts = product.accumulate ? nullptr : part_memory_;
  args.weight = product.factor;
  args.accumulate = product.accumulate ? 1 : 0;
  launch_product(args, product.weight->storage());
}

void CudaLinear::launch_product(const kc::ProductArgs& common, kernels::Storage storage) {
  kc::ProductArgs args = common;
  args.inputs = inputs_;
  args.x = x_;
  args.part_rows = rows_;
  args.part_stride = part_stride_;
  const int choice = row_choice(args.row_count);
  const int tile = 1 << choice;
  const Grid grid{ceil_div(args.panel_count, kc::kProductWarps), ceil_div(args.row_count, tile),
                  args.parts != nullptr ? part_count_ : 1, kc::kProductWarps * kc::kWarpLanes,
                  tile_bytes(storage, tile)};
  launch(*device_, kernels_.product[static_cast<int>(storage)][choice], grid, args);
}

// Outputs with full matrices of experts have an opening and a closing; the others are whole, or done already.
void CudaLinear::finish(kc::FinishStage stage) {
  kc::FinishArgs args{};
  int64_t offset = 0;
  int64_t count = 0;
  Grid grid{0, 0, 0, kc::kPlainThreads};
  for (const Output& output : outputs_) {
    const int64_t n = output.weight->rows();
    const bool bent = !output.tiles.empty();
    const bool wanted = output.dense ? stage != kc::FinishStage::whole
                                     : stage == kc::FinishStage::whole &&
                                           (bent || output.bias != nullptr || part_memory_ != nullptr);
    if (wanted) {
      const auto tiles = static_cast<int32_t>(bent ? static_cast<int64_t>(output.tiles.size())
                                                   : ceil_div(rows_, kc::kMostRows));
      args.output[count++] = {output.y,
                              output.bias,
                              bent ? lists_.at<kc::RowTile>(output.tiles_place) : nullptr,
                              lists_.at<kc::DeltaVectors>(deltas_place_),
                              lists_.at<kc::ExpandTerm>(terms_place_),
                              tiles,
                              n,
                              offset,
                              stage};
      grid.x = std::max(grid.x, ceil_div(n, kc::kPlainThreads));
      grid.y = std::max<int64_t>(grid.y, tiles);
    }
    offset += n;
  }
  if (count == 0) return;
  grid.z = count;
  args.row_count = rows_;
  args.parts = part_memory_;
  args.part_count = static_cast<int32_t>(part_count_);
  args.part_rows = rows_;
  args.part_stride = part_stride_;
  launch(*device_, kernels_.finish, grid, args);
}

}  // namespace expert::cuda
