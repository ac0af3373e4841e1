// Attention on the CPU: norm, rotation and KV write first, then tasks of (segment, kv head, rows) or, for few rows over
// a long past, of (segment, kv head, position split) whose states are merged in order - with the same bits. Where all
// segments have one row and a task is all that meets a head, it does the first part for that head too.
#include <algorithm>
#include <cmath>

#include "backend/cpu_backend.h"
#include "backend/cpu_kv.h"
#include "backend/cpu_operations.h"
#include "backend/host_memory.h"
#include "backend/op_checks.h"
#include "core/ask_for.h"
#include "core/error.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

namespace {

constexpr int64_t kTaskStates = 48;   // (row, head) pairs per task: queries and states stay in the second-level cache
constexpr int64_t kSerialHeads = 64;  // heads to norm and rotate below which a parallel region costs more
constexpr int64_t kSplitRows = 4;     // segments of at most this many rows may be cut along positions

int64_t splits_of(const Segment& segment) {
  return (segment.first_position + segment.row_count + kernels::kAttentionSplit - 1) / kernels::kAttentionSplit;
}

// Norm, rotation and KV write of one row, for `heads` kv heads and their queries.
void prepare_heads(const kernels::CpuKernels& kernels, const AttentionOp& op, const CpuKvStorage& kv,
                   const Segment& segment, int64_t row, int64_t first_head, int64_t heads) {
  const int64_t position = segment.first_position + row - segment.first_row;
  const int64_t half = op.rope->rotary_dim / 2;
  const int64_t group = op.heads / op.kv_heads;
  kernels::NormRopeArgs args{};
  args.head_dim = op.head_dim;
  args.eps = op.norm_eps;
  args.cos = host_floats(op.rope->cos) + position * half;
  args.sin = host_floats(op.rope->sin) + position * half;
  args.half = half;
  args.x = host_floats(op.q) + row * op.q.cols + first_head * group * op.head_dim;
  args.heads = heads * group;
  args.norm = op.q_norm != nullptr ? host_floats(*op.q_norm) : nullptr;
  kernels.norm_rope(args);
  args.x = host_floats(op.k) + row * op.k.cols + first_head * op.head_dim;
  args.heads = heads;
  args.norm = op.k_norm != nullptr ? host_floats(*op.k_norm) : nullptr;
  kernels.norm_rope(args);
  const int64_t block = segment.block_table[static_cast<size_t>(position / kKvBlockTokens)];
  const float* v = host_floats(op.v) + row * op.v.cols + first_head * op.head_dim;
  for (int64_t h = 0; h < heads; ++h) {
    kernels.kv_write(kv.format(), args.x + h * op.head_dim, v + h * op.head_dim, op.head_dim, position % kKvBlockTokens,
                     kv.base(op.layer, first_head + h) + block * kv.block_stride());
  }
}

const Segment& segment_of(const BatchLayout& layout, int64_t row) {
  const auto after = std::upper_bound(layout.segments.begin(), layout.segments.end(), row,
                                      [](int64_t r, const Segment& s) { return r < s.first_row; });
  return *std::prev(after);
}

kernels::AttendArgs attend_args(const AttentionOp& op, const CpuKvStorage& kv, const AttentionTask& task) {
  kernels::AttendArgs args{};
  args.format = kv.format();
  args.group = op.heads / op.kv_heads;
  args.head_dim = op.head_dim;
  args.q_stride = op.q.cols;
  args.q = host_floats(op.q) + (task.segment->first_row + task.first_row) * op.q.cols +
           task.kv_head * args.group * op.head_dim;
  args.rows = task.rows;
  args.first_position = task.segment->first_position + task.first_row;
  args.scale = op.scale;
  args.kv = kv.base(op.layer, task.kv_head);
  args.block_stride = kv.block_stride();
  args.block_table = task.segment->block_table.data();
  args.split_begin = task.split_begin;
  args.split_end = task.split_end;
  return args;
}

// What comes behind `task`, so that its first keys are there when it does.
void set_next(kernels::AttendArgs& args, const AttentionOp& op, const CpuKvStorage& kv, const AttentionTask& next) {
  const unsigned char* base = kv.base(op.layer, next.kv_head);
  const std::span<const int32_t> blocks = next.segment->block_table;
  for (size_t b = 0; b < std::size(args.next_blocks) && b < blocks.size(); ++b) {
    args.next_blocks[b] = base + blocks[b] * kv.block_stride();
  }
}

// Later ones are asked for while those before them are read.
void ask_for_first_keys(const kernels::AttendArgs& args) {
  const int32_t block = args.block_table[args.split_begin * kernels::kAttentionSplit / kKvBlockTokens];
  ask_for_ahead(args.kv + block * args.block_stride, static_cast<size_t>(kernels::kv_k_bytes(args.format, args.head_dim)));
}

// What the norm, the rotation and the write of a head's one row work on, which another core has just made much of, and where
// they write the key: a line for every two values.
void ask_for_head(const AttentionOp& op, const CpuKvStorage& kv, const AttentionTask& task) {
  const int64_t row = task.segment->first_row;
  const int32_t block = task.segment->block_table[static_cast<size_t>(task.segment->first_position / kKvBlockTokens)];
  const auto bytes = static_cast<size_t>(op.head_dim) * sizeof(float);
  const int64_t group = op.heads / op.kv_heads;
  claim(host_floats(op.q) + row * op.q.cols + task.kv_head * group * op.head_dim, static_cast<size_t>(group) * bytes);
  claim(host_floats(op.k) + row * op.k.cols + task.kv_head * op.head_dim, bytes);
  ask_for(host_floats(op.v) + row * op.v.cols + task.kv_head * op.head_dim, bytes);
  ask_for_ahead(kv.base(op.layer, task.kv_head) + block * kv.block_stride(),
                static_cast<size_t>(kernels::kv_k_bytes(kv.format(), op.head_dim)));
}

void plan_tasks(const BatchLayout& layout, const AttentionOp& op, int threads, AttentionPlan& plan) {
  plan.tasks.clear();
  plan.state_size = 0;
  const int64_t group = op.heads / op.kv_heads;
  const int64_t stride = kernels::state_stride(op.head_dim);
  const auto is_cut = [&](const Segment& s) {
    return threads > 1 && s.row_count <= kSplitRows && splits_of(s) > 1 &&
           static_cast<int64_t>(layout.segments.size()) * op.kv_heads < 4 * int64_t{threads};
  };
  for (const Segment& segment : layout.segments) {
    if (segment.row_count == 0 || !is_cut(segment)) continue;
    for (int64_t h = 0; h < op.kv_heads; ++h) {
      for (int64_t s = 0; s < splits_of(segment); ++s) {
        plan.tasks.push_back({&segment, h, 0, segment.row_count, s, s + 1, plan.state_size});
        plan.state_size += static_cast<size_t>(segment.row_count * group * stride);
      }
    }
  }
  plan.cut = plan.tasks.size();
  const int64_t rows_per_task = std::max<int64_t>(1, kTaskStates / group);
  for (const Segment& segment : layout.segments) {
    if (segment.row_count == 0 || is_cut(segment)) continue;
    for (int64_t r = 0; r < segment.row_count; r += rows_per_task) {
      const int64_t rows = std::min<int64_t>(rows_per_task, segment.row_count - r);
      const int64_t splits =
          (segment.first_position + r + rows + kernels::kAttentionSplit - 1) / kernels::kAttentionSplit;
      for (int64_t h = 0; h < op.kv_heads; ++h) plan.tasks.push_back({&segment, h, r, rows, 0, splits, 0});
    }
  }
}

}  // namespace

CpuKvStorage::CpuKvStorage(const KvShape& shape) : shape_(shape), format_(kv_format_of(shape.dtype)) {
  if (format_ == kernels::KvFormat::int8 && shape.head_dim > kernels::kMostInt8HeadDim) {
    fail(ErrorCode::unsupported, "a KV cache in I8 with heads of {} values, at most {}", shape.head_dim,
         kernels::kMostInt8HeadDim);
  }
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1 || shape.blocks < 1) {
    fail(ErrorCode::invalid_request, "a KV cache of {} layers, {} heads of {}, {} blocks", shape.layers, shape.kv_heads,
         shape.head_dim, shape.blocks);
  }
  head_bytes_ = kernels::kv_k_bytes(format_, shape.head_dim) + kernels::kv_v_bytes(format_, shape.head_dim);
  const double wished = static_cast<double>(head_bytes_) * shape.kv_heads * shape.layers * shape.blocks;
  if (wished > 0x1p62) fail(ErrorCode::out_of_memory, "a KV cache of {:.0f} bytes", wished);
  size_ = static_cast<size_t>(shape.blocks * block_stride());
  const std::shared_ptr<std::byte> memory = allocate_host(size_, Content::zero);
  memory_ = {memory, reinterpret_cast<unsigned char*>(memory.get())};
}

void CpuKvStorage::touch(int32_t first, int32_t count) {
  constexpr int64_t kSmallPage = 4096;
  volatile unsigned char* begin = memory_.get() + first * block_stride();
  for (int64_t at = 0; at < count * block_stride(); at += kSmallPage) begin[at] = 0;  // what it is already
}

std::unique_ptr<KvStorage> CpuBackend::create_kv(const KvShape& shape) { return std::make_unique<CpuKvStorage>(shape); }

// Of every row, before any task: those of a walk each make a part.
void CpuOperations::prepare_all_heads(const BatchLayout& layout, const AttentionOp& op) {
  const auto& kv = static_cast<const CpuKvStorage&>(*op.kv);
  if (!member_.walks()) {
    const int64_t heads = op.heads + op.kv_heads;
    return in_pieces(member_, op.q.rows, std::max<int64_t>(1, kSerialHeads / heads), [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        prepare_heads(kernels_, op, kv, segment_of(layout, row), row, 0, op.kv_heads);
      }
    });
  }
  const int64_t count = op.q.rows * op.kv_heads;
  for (int64_t i = count * member_.index() / member_.size(); i < count * (member_.index() + 1) / member_.size(); ++i) {
    const int64_t row = i / op.kv_heads;
    prepare_heads(kernels_, op, kv, segment_of(layout, row), row, i % op.kv_heads, 1);
  }
  member_.meet();
}

void CpuOperations::attention(const BatchLayout& layout, const AttentionOp& op) {
  if (op.q.rows == 0) return;
  linear_.forget_made_rows();
  const auto& kv = static_cast<const CpuKvStorage&>(*op.kv);
  require_attention_shapes(op, kv.shape());
  require_segments(layout, op, kv.shape());
  const AttentionPlan& plan = attention_plan_;
  plan_tasks(layout, op, member_.size(), attention_plan_);
  const bool by_task = plan.cut == 0 && std::ranges::all_of(layout.segments, [](const Segment& segment) {
    return segment.row_count <= 1;
  });
  if (!by_task) prepare_all_heads(layout, op);

  const int64_t group = op.heads / op.kv_heads;
  const int64_t stride = kernels::state_stride(op.head_dim);
  const int64_t most_states = std::max(kTaskStates, kSplitRows * group);
  const int64_t per_thread = most_states * stride + kernels::attend_scratch(most_states, op.head_dim);
  const size_t scratch = plan.state_size + static_cast<size_t>(per_thread * member_.size());
  member_.once(scratch > share_.attention_states.size(), [&] { share_.attention_states.resize(scratch); });
  float* states = share_.attention_states.data();

  const int64_t width = group * op.head_dim;
  const RowsInTheMaking making = width % kernels::kGroup == 0 ? linear_.make_rows(op.out) : RowsInTheMaking{};
  const auto finish = [&](const AttentionTask& task, const float* state) {
    const int64_t first = task.segment->first_row + task.first_row;
    const int64_t column = task.kv_head * width;
    kernels_.finish(state, task.rows, group, op.head_dim, host_floats(op.out) + first * op.out.cols + column, op.out.cols);
    for (int64_t r = first; r < first + task.rows; ++r) making.prepare(r, column, column + width);
  };
  const auto attend = [&](const AttentionTask& task, int worker, const AttentionTask* next) {
    kernels::AttendArgs args = attend_args(op, kv, task);
    if (next != nullptr) set_next(args, op, kv, *next);
    float* own = states + plan.state_size + static_cast<size_t>(worker * per_thread);
    const bool cut = &task < plan.tasks.data() + plan.cut;
    args.state = cut ? states + task.state : own;
    args.scratch = own + most_states * stride;
    kernels_.attend(args);
    if (!cut) finish(task, args.state);
  };
  // Neighbouring heads stay with one core, which asks for the next while it works on one.
  const auto count = static_cast<int64_t>(plan.tasks.size());
  WorkRanges& tasks = share_.attention_tasks;
  member_.walks() ? tasks.fill_part(count, member_.index()) : tasks.fill(count);
  member_.share(count, [&](int worker) {
    bool asked = false;
    for (int64_t i = tasks.next(worker); i >= 0; i = tasks.next(worker)) {
      const AttentionTask& task = plan.tasks[static_cast<size_t>(i)];
      if (by_task) {
        if (!asked) {
          ask_for_first_keys(attend_args(op, kv, task));
          ask_for_head(op, kv, task);
        }
        prepare_heads(kernels_, op, kv, *task.segment, task.segment->first_row, task.kv_head, 1);
        asked = i + 1 < count;
        if (asked) ask_for_head(op, kv, plan.tasks[static_cast<size_t>(i + 1)]);
      }
      attend(task, worker, by_task && i + 1 < count ? &task + 1 : nullptr);
    }
  });
  if (plan.cut == 0) return;
  int64_t head_index = 0;
  for (size_t i = 0; i < plan.cut;) {
    const AttentionTask& head = plan.tasks[i];
    const bool own = !member_.walks() || head_index++ % member_.size() == member_.index();
    for (++i; i < plan.cut && plan.tasks[i].split_begin > 0; ++i) {
      if (own) kernels_.merge(states + head.state, states + plan.tasks[i].state, head.rows * group, op.head_dim);
    }
    if (own) finish(head, states + head.state);
  }
  if (member_.walks()) member_.meet();
}

}  // namespace expert
