// Backend::linear on a device: what a call needs is listed on the host, sent as one piece, and done in a few launches -
// shrink, base products, finish - however many experts, ranks and segments there are.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "kernels/cuda/table.h"

namespace expert::cuda {

class CudaLinear {
 public:
  CudaLinear(std::shared_ptr<Device> device, const kernels::cuda::Table& kernels, Staging& staging);
  void run(const Tensor& x, std::span<const LinearOutput> outputs);

 private:
  // A product of some rows with one matrix: a base that not all rows meet as they are, or a full matrix of an expert.
  struct OwnProduct {
    const CudaMatrix* weight;
    size_t output;
    std::vector<int32_t> rows;
    std::vector<const float*> input_scales;  // empty: none
    float factor = 1.0F;
    bool accumulate = false;
    size_t rows_place = 0;
    size_t scales_place = 0;
  };
  struct Output {
    const CudaMatrix* weight;
    float* y;
    const float* bias;
    std::vector<kernels::cuda::RowTile> tiles;  // empty: no delta
    bool own_base;  // its base product is an OwnProduct
    bool dense;
    size_t tiles_place = 0;
  };

  void plan(std::span<const LinearOutput> outputs);
  void plan_output(const LinearOutput& spec, size_t index);
  void plan_segment(const SegmentDelta& part, size_t index);
  void plan_term(const LowRankTerm& term, const SegmentDelta& part, int64_t outputs);
  void plan_dense(const SegmentDelta& part, size_t index);
  void plan_own_base(const LinearOutput& spec, size_t index);
  void add_tiles(Output& output, int32_t first, int32_t count, int32_t delta) const;
  void decide_parts();
  void send_lists();
  void shrink();
  void multiply_shared();
  void multiply(const OwnProduct& product);
  void launch_product(const kernels::cuda::ProductArgs& args, kernels::Storage storage);
  void finish(kernels::cuda::FinishStage stage);

  std::shared_ptr<Device> device_;
  const kernels::cuda::Table& kernels_;
  Staging& staging_;
  Lists lists_;
  Scratch parts_;
  Scratch ranks_;

  // of one call
  const float* x_ = nullptr;
  int32_t rows_ = 0;
  int64_t inputs_ = 0;
  std::vector<Output> outputs_;
  std::vector<OwnProduct> own_;
  std::vector<kernels::cuda::DeltaVectors> deltas_;
  std::vector<kernels::cuda::ExpandTerm> terms_;
  std::vector<kernels::cuda::ShrinkTask> tasks_;  // one per term
  size_t rank_values_ = 0;
  int32_t units_ = 0;
  size_t deltas_place_ = 0;
  size_t terms_place_ = 0;
  size_t tasks_place_ = 0;
  float* part_memory_ = nullptr;  // null: products sum all their parts themselves
  int64_t part_count_ = 0;
  int64_t part_stride_ = 0;
};

}  // namespace expert::cuda
