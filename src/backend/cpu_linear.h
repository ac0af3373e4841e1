// Linear layers with their deltas on the CPU: base products and all A x first, then everything that builds on them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_matrix.h"
#include "backend/cpu_quantised_input.h"
#include "core/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

// Keeps its plan and scratch between calls; one call at a time.
class CpuLinear {
 public:
  CpuLinear(const kernels::CpuKernels& kernels, ThreadPool& pool);

  // Backend::linear. At most three parallel regions: d * x (where there is a d), products of x, corrections.
  void run(const Tensor& x, std::span<const LinearOutput> outputs);

 private:
  struct Rows {
    int64_t first;
    int64_t count;
  };
  // B (A x) of one term for one segment; t [rows of the segment, rank] lies at `t` in scratch.
  struct LowRank {
    const CpuMatrix* a;
    const CpuMatrix* b;
    float weight;
    size_t t;
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
    const unsigned char* codes;  // the same for a quantised weight, else null
    float* y;
    bool scaled;
    size_t scaled_x;  // in scratch
    std::vector<Rows> with_base;
    std::vector<Rows> without_base;
    std::vector<Rows> plain;  // rows no delta applies to
    std::vector<Segment> segments;
  };
  // Panels [panel_begin, panel_end) of an output (term < 0) or of a term's A.
  struct Task {
    size_t output;
    int64_t segment;
    int64_t term;
    int64_t panel_begin;
    int64_t panel_end;
  };

  void plan(const Tensor& x, std::span<const LinearOutput> outputs);
  void plan_output(const LinearOutput& spec, Output& output);
  void plan_segment(const SegmentDelta& part, Output& output);
  void plan_products();
  void plan_corrections();
  void split(Task task, int64_t panels, double cost_per_panel, double target);
  void scale_inputs();
  void quantise_inputs();
  void do_products();
  void do_corrections();
  // `work`: scratch of the worker that does the task.
  void base_product(const Output& output, const Task& task, float* work);
  void correct(const Output& output, const Segment& segment, const Task& task, float* work);
  void multiply(const CpuMatrix& w, const Task& task, const float* x, int64_t rows, float* y, float scale,
                bool accumulate, float* work, const unsigned char* codes = nullptr) const;
  float* work_of(int worker) const;
  void add_to_rows(const Output& output, const Task& task, Rows rows, const float* values) const;
  void scale_rows(const Output& output, const Task& task, Rows rows, const float* values) const;

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  QuantisedInputs quantised_;
  const float* x_ = nullptr;
  int64_t rows_ = 0;
  int64_t inputs_ = 0;
  std::vector<Output> outputs_;
  std::vector<LowRank> terms_;
  std::vector<Task> tasks_;
  std::vector<float> scratch_;
  size_t scratch_size_ = 0;
  std::shared_ptr<std::byte> work_;  // kernels::kGemmScratch floats per worker
};

}  // namespace expert
