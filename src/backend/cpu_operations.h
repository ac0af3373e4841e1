// The operations of a layer on the CPU, as one member of a crew has them: between walks it calls them alone and the pool's
// threads divide each; on a walk all members call them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_linear.h"
#include "core/crew.h"
#include "core/work_ranges.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

inline constexpr int64_t kLeastElements = 16384;  // of an elementwise operation, for a task of its own

// task(first, last) over [0, count) in pieces of at least `least`, in parallel where there is more than one.
template <typename Task>
void in_pieces(CrewMember& member, int64_t count, int64_t least, const Task& task) {
  const int64_t pieces = std::clamp<int64_t>(count / std::max<int64_t>(1, least), 1, int64_t{member.size()} * 4);
  member.by_itself(pieces, [&](int64_t i) { task(count * i / pieces, count * (i + 1) / pieces); });
}

// A part of one attention call: rows of one request under the q heads of one kv head, over some of their past.
struct AttentionTask {
  const Segment* segment;
  int64_t kv_head;
  int64_t first_row;  // within the segment
  int64_t rows;
  int64_t split_begin;
  int64_t split_end;
  size_t state;  // in scratch, for tasks cut along positions
};

// The tasks of one call; keeps its memory. Tasks cut along positions come first, those of one (segment, kv head) in
// ascending order.
struct AttentionPlan {
  std::vector<AttentionTask> tasks;
  size_t cut = 0;         // tasks[0, cut) are cut along positions
  size_t state_size = 0;  // floats for their states
};

// What the members of a crew have in common.
struct OperationsShare {
  explicit OperationsShare(int threads) : linear(threads), attention_tasks(threads) {}
  // Before a walk.
  void begin() noexcept {
    attention_tasks.fill(0);
    linear.begin();
  }

  LinearShare linear;
  WorkRanges attention_tasks;
  std::vector<float> attention_states;  // of tasks cut along positions, then each thread's own and its scratch
};

class CpuOperations final : public Operations {
 public:
  CpuOperations(const kernels::CpuKernels& kernels, CrewMember& member, OperationsShare& share)
      : kernels_(kernels), member_(member), share_(share), linear_(kernels, member, share.linear) {}

  // Before a walk, for every member.
  void begin_walk() noexcept { linear_.begin_walk(); }
  CpuLinear& linears() noexcept { return linear_; }

  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void linear(const Tensor& x, std::span<const LinearOutput> outputs) override;
  void attention(const BatchLayout& layout, const AttentionOp& op) override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override;
  void gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) override;
  void add(const Tensor& x, const Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;

 private:
  void prepare_all_heads(const BatchLayout& layout, const AttentionOp& op);

  const kernels::CpuKernels& kernels_;
  CrewMember& member_;
  OperationsShare& share_;
  CpuLinear linear_;
  AttentionPlan attention_plan_;
};

}  // namespace expert
