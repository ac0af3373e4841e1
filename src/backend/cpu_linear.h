// Linear layers with their deltas on the CPU, in one parallel region: first all A x of all experts and projections,
// then base products, each followed by what builds on it for the same outputs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_factor.h"
#include "backend/cpu_matrix.h"
#include "backend/cpu_prepared_input.h"
#include "core/thread_pool.h"
#include "core/work_ranges.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

// Keeps its plan and scratch between calls; one call at a time.
class CpuLinear {
 public:
  CpuLinear(const kernels::CpuKernels& kernels, ThreadPool& pool);

  // Backend::linear.
  void run(const Tensor& x, std::span<const LinearOutput> outputs);

 private:
  struct Rows {
    int64_t first;
    int64_t count;
    bool operator==(const Rows&) const = default;
  };
  // The rows of every A, in one storage, that reads the same rows of x; their results stand side by side in t [rows, factors].
  struct Shrink {
    Rows rows;
    int64_t scaled_output;  // whose own d * x it reads; -1: x itself
    kernels::Storage storage;
    std::vector<const unsigned char*> factors;
    std::vector<float> weights;
    size_t t;  // in scratch
    int64_t stride() const { return static_cast<int64_t>(factors.size()); }
  };
  // One B and its columns of t.
  struct Term {
    const CpuFactor* b;
    size_t shrink;
    int64_t column;
  };
  struct Segment {
    Rows rows;
    const LinearDelta* delta;
    size_t first_term;
    size_t last_term;
  };
  struct Output {
    const CpuMatrix* weight;
    const float* bias;  // or null
    const float* x;     // d * x where a segment has a d
    float* y;
    bool scaled;
    size_t scaled_x;  // in scratch
    std::vector<Rows> with_base;
    std::vector<Rows> without_base;
    std::vector<Rows> plain;  // rows no delta applies to
    std::vector<Segment> segments;
  };
  // Panels [begin, end) of an output, or factor rows [begin, end) of a shrink.
  struct Task {
    size_t index;
    int64_t begin;
    int64_t end;
  };

  void plan(const Tensor& x, std::span<const LinearOutput> outputs);
  void plan_output(const LinearOutput& spec, size_t index);
  void plan_segment(const SegmentDelta& part, size_t index);
  Term plan_term(const LowRankTerm& term, int64_t outputs, Rows rows, int64_t scaled_output);
  size_t shrink_for(Rows rows, int64_t scaled_output, kernels::Storage storage);
  void place_scratch();
  void scale_inputs();
  void prepare_inputs();
  void plan_tasks();
  double cost_per_panel(const Output& output) const;
  double cost_per_factor(const Shrink& shrink) const;
  double target_of(double cost) const;
  void split(Task task, int64_t count, int64_t grain, double cost, double target);
  void do_tasks();
  void await_shrinks() const;
  void do_shrink(const Task& task);
  void do_outputs(const Task& task, float* work);
  // `work`: scratch of the worker that does the task.
  void base_product(const Output& output, const Task& task, float* work);
  void correct(const Output& output, const Segment& segment, const Task& task, float* work);
  void multiply(const CpuMatrix& w, const Task& task, const float* x, Rows rows, float* y, float scale,
                bool accumulate, float* work) const;
  float* work_of(int worker) const;
  void add_to_rows(const Output& output, const Task& task, Rows rows, const float* values) const;
  void scale_rows(const Output& output, const Task& task, Rows rows, const float* values) const;

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  PreparedInputs prepared_;
  const float* x_ = nullptr;
  int64_t rows_ = 0;
  int64_t inputs_ = 0;
  std::vector<Output> outputs_;
  std::vector<Shrink> shrinks_;  // the first shrink_count_ are in use
  size_t shrink_count_ = 0;
  std::vector<Term> terms_;
  std::vector<kernels::ExpandTerm> expands_;  // of terms_, once scratch has its place
  std::vector<Task> tasks_;  // shrinks first
  size_t first_output_task_ = 0;
  WorkRanges shrink_tasks_;
  WorkRanges output_tasks_;  // counted from the first of them
  std::atomic<int64_t> shrinks_left_{0};  // tasks
  std::vector<float> scratch_;
  size_t scratch_size_ = 0;
  std::shared_ptr<std::byte> work_;  // kernels::kGemmScratch floats per worker
};

}  // namespace expert
