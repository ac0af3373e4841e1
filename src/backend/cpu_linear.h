// Linear layers with their deltas on the CPU, in one parallel region: first all A x of all experts and projections,
// then base products, each followed by what builds on it for the same outputs; then what a gate makes of two of them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_matrix.h"
#include "backend/cpu_prepared_input.h"
#include "backend/cpu_terms.h"
#include "core/crew.h"
#include "core/work_ranges.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

// What the members of a crew have in common of a call.
struct LinearShare {
  explicit LinearShare(int threads);
  // Before a walk, or a call by one thread; nobody is at work.
  void begin() noexcept;

  // Rows of A in one storage, as a kernel gets them.
  struct alignas(64) FactorList {
    kernels::Storage storage;
    std::vector<const unsigned char*> rows;
    std::vector<float> weights;
  };

  WorkRanges shrink_tasks;
  WorkRanges output_tasks;  // counted from the first of them
  WorkRanges gate_tasks;
  alignas(64) std::atomic<int64_t> shrinks_done{0};  // tasks, since the call or the walk began
  alignas(64) std::atomic<int64_t> outputs_done{0};
  alignas(64) std::vector<float> t;  // A x of all experts
  RoomForRows rows;
  std::vector<FactorList> factor_lists;  // of each thread
  std::shared_ptr<std::byte> work;       // kernels::kGemmScratch floats per thread
};

// As one member of a crew has it; keeps its plan and scratch between calls. One call at a time, on a walk by all members.
class CpuLinear {
 public:
  CpuLinear(const kernels::CpuKernels& kernels, CrewMember& member, LinearShare& share);

  // Before a walk, for every member.
  void begin_walk() noexcept;

  // Backend::linear.
  void run(const Tensor& x, std::span<const LinearOutput> outputs);
  // Backend::gated. What it leaves in `out` is prepared for a call that reads it next.
  void run_gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out);

  // For whoever writes all of x, to be read by the next call.
  RowsInTheMaking make_rows(const Tensor& x);
  void forget_made_rows() noexcept { prepared_.forget_made(); }
  void forget_made_rows(const void* x) noexcept { prepared_.forget_made(x); }  // from any thread

 private:
  struct Rows {
    int64_t first;
    int64_t count;
    bool operator==(const Rows&) const = default;
  };
  // The rows of every A that reads the same rows of x; their results stand side by side in t [rows, stride].
  struct Shrink {
    struct Part {
      const CpuTerms* terms;
      int64_t column;
    };
    Rows rows;
    int64_t scaled_output;  // whose own d * x it reads; -1: x itself
    std::vector<Part> parts;
    int64_t stride;
    CpuTerms::Ranks ranks;
    size_t t;  // in share_.t
  };
  struct Segment {
    Rows rows;
    const LinearDelta* delta;
    const CpuTerms* terms;
    size_t shrink;
    int64_t column;     // of t, where its terms begin
    size_t first_term;  // in expands_
  };
  using FactorList = LinearShare::FactorList;
  struct Output {
    const CpuMatrix* weight;
    const float* bias;  // or null
    const float* x;     // d * x where a segment has a d
    float* y;
    bool scaled;
    size_t scaled_x;  // in scaled_
    std::vector<Rows> with_base;
    std::vector<Rows> without_base;
    std::vector<Rows> plain;  // rows no delta applies to
    std::vector<Segment> segments;
  };
  // Panels [begin, end) of an output, or factor rows [begin, end) of a shrink.
  struct Task {
    size_t index;
    int64_t begin = 0;
    int64_t end = 0;
  };

  void compute(const Tensor& x, std::span<const LinearOutput> outputs);
  void plan(const Tensor& x, std::span<const LinearOutput> outputs);
  void plan_output(const LinearOutput& spec, size_t index);
  void plan_segment(const SegmentDelta& part, size_t index);
  const CpuTerms& terms_of(const LinearDelta& delta, int64_t outputs);
  size_t shrink_for(Rows rows, int64_t scaled_output);
  void place_scratch();
  void scale_inputs();
  void prepare_inputs();
  void plan_tasks();
  double cost_per_panel(const Output& output) const;
  double cost_of_ranks(const CpuTerms::Ranks& ranks, int64_t width, int64_t rows) const;
  double target_of(double cost) const;
  void split(Task task, int64_t grain, double cost, double target);
  void fill(WorkRanges& ranges, int64_t count) const;
  void do_tasks();
  void list_factors(const Shrink& shrink, int64_t begin, int64_t end, FactorList& list) const;
  void shrink_listed(const Shrink& shrink, int64_t begin, int64_t count, const FactorList& list);
  void do_shrink(const Task& task, int worker);
  void ask_for_first_factors() const;
  void do_outputs(const Task& task, float* work);
  int64_t gate_pieces() const;
  void gate(int64_t piece) const;
  // `work`: scratch of the worker that does the task.
  void base_product(const Output& output, const Task& task, float* work);
  void correct(const Output& output, const Segment& segment, const Task& task, float* work);
  void multiply(const CpuMatrix& w, const Task& task, const float* x, Rows rows, float* y, float scale,
                bool accumulate, float* work) const;
  float* work_of(int worker) const;
  void add_to_rows(const Output& output, const Task& task, Rows rows, const float* values) const;
  void scale_rows(const Output& output, const Task& task, Rows rows, const float* values) const;

  const kernels::CpuKernels& kernels_;
  CrewMember& member_;
  LinearShare& share_;
  PreparedInputs prepared_;
  const float* x_ = nullptr;
  int64_t rows_ = 0;
  int64_t inputs_ = 0;
  std::vector<Output> outputs_;
  std::vector<Shrink> shrinks_;  // the first shrink_count_ are in use
  size_t shrink_count_ = 0;
  std::vector<kernels::ExpandTerm> expands_;  // of all segments, once t has its place
  std::deque<CpuTerms> unplanned_;            // of deltas that came without
  float* gated_ = nullptr;  // of run_gated: its two outputs are computed side by side and end here
  RowsInTheMaking making_;
  kernels::Storage last_storage_ = kernels::Storage::f32;  // of the last weights
  std::vector<Task> tasks_;  // shrinks first
  size_t first_output_task_ = 0;
  int64_t shrinks_due_ = 0;  // done when those of this call are
  int64_t outputs_due_ = 0;
  std::vector<float> scaled_;
};

}  // namespace expert
