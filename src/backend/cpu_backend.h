// The CPU backend: kernels of one instruction set over a thread pool.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_linear.h"
#include "backend/cpu_screen.h"
#include "core/thread_pool.h"
#include "core/work_ranges.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

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

// Operations run to their end before they return. pack() and allocate() never touch the pool, so they may run on other
// threads meanwhile.
class CpuBackend final : public Backend {
 public:
  CpuBackend(const kernels::CpuKernels& kernels, int threads);

  const BackendInfo& info() const noexcept override { return info_; }
  Tensor allocate(DType dtype, int64_t rows, int64_t cols) override;
  void upload(const Tensor& destination, const void* source, size_t bytes) override;
  void download(void* destination, const Tensor& source, size_t bytes) override;
  void synchronize() override {}
  std::span<float> host_values(const Tensor& tensor) const override;
  std::unique_ptr<KvStorage> create_kv(const KvShape& shape) override;

  MatrixPtr pack(const MatrixSource& source, WeightFormat format) override;
  std::vector<MatrixPtr> pack_factors(std::span<const FactorSource> sources, WeightFormat format) override;
  std::shared_ptr<const void> plan_terms(std::span<const LowRankTerm> low_rank) const override;
  std::span<const std::byte> packed_bytes(const Matrix& matrix) const override;
  MatrixPtr adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                  std::shared_ptr<const void> owner) override;
  void unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const override;
  bool adopts(int64_t rows, int64_t cols, WeightFormat format, size_t bytes) const override;
  size_t screen_size(int64_t rows, int64_t cols) const override;
  MatrixPtr pack_screen(const Matrix& matrix) override;
  MatrixPtr adopt_screen(int64_t rows, int64_t cols, std::span<const std::byte> bytes,
                         std::shared_ptr<const void> owner) override;
  ScreenStats screen_stats() const override { return screened_linear_.stats(); }

  void embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) override;
  void embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) override;
  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void linear(const Tensor& x, std::span<const LinearOutput> outputs) override;
  void screened_linear(const Tensor& x, const Matrix& weight, const Matrix& screen, std::span<const int32_t> best,
                       const Tensor& y) override;
  void attention(const BatchLayout& layout, const AttentionOp& op) override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override;
  void gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) override;
  void add(const Tensor& x, const Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;

 private:
  void lookup(const Matrix& table, std::span<const int32_t> rows, const Tensor& out);
  void scale_rows(const Tensor& x, const Tensor& by);
  void add_scaled(const Tensor& x, const Tensor& y, float weight);
  // task(first, last) over [0, count) in pieces of at least `least`, in parallel where there is more than one.
  template <typename Task>
  void in_pieces(int64_t count, int64_t least, const Task& task) {
    const int64_t pieces = std::clamp<int64_t>(count / std::max<int64_t>(1, least), 1, int64_t{pool_.threads()} * 4);
    pool_.run(pieces, [&](int64_t i, int) { task(count * i / pieces, count * (i + 1) / pieces); });
  }

  const kernels::CpuKernels& kernels_;
  ThreadPool pool_;
  BackendInfo info_;
  CpuLinear linear_;
  CpuScreenedLinear screened_linear_;
  AttentionPlan attention_plan_;
  WorkRanges attention_tasks_;
  std::vector<float> attention_scratch_;
};

}  // namespace expert
