// The CPU backend: kernels of one instruction set over a thread pool.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_operations.h"
#include "backend/cpu_screen.h"
#include "core/crew.h"
#include "core/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

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
  void screened_linear(const Tensor& x, const Matrix& weight, const Matrix& screen, std::span<const int32_t> best,
                       const Tensor& y) override;
  int walkers(int64_t rows) const override;
  bool walk(const std::function<void(Operations&, int walker)>& walk) override;

  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override {
    alone().rms_norm(x, weight, eps, out);
  }
  void linear(const Tensor& x, std::span<const LinearOutput> outputs) override { alone().linear(x, outputs); }
  void attention(const BatchLayout& layout, const AttentionOp& op) override { alone().attention(layout, op); }
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override { alone().swiglu(gate, up, out); }
  void gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) override {
    alone().gated(x, gate, up, out);
  }
  void add(const Tensor& x, const Tensor& y) override { alone().add(x, y); }
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override {
    alone().gather_rows(x, rows, out);
  }

 private:
  // Between walks, for the thread that calls.
  CpuOperations& alone() noexcept { return *operations_.front(); }
  void forget_made_rows() noexcept { alone().linears().forget_made_rows(); }
  void lookup(const Matrix& table, std::span<const int32_t> rows, const Tensor& out);
  void scale_rows(const Tensor& x, const Tensor& by);
  void add_scaled(const Tensor& x, const Tensor& y, float weight);
  const kernels::CpuKernels& kernels_;
  ThreadPool pool_;
  Crew crew_;
  BackendInfo info_;
  OperationsShare share_;
  std::vector<std::unique_ptr<CpuOperations>> operations_;  // of each member
  CpuScreenedLinear screened_linear_;
};

}  // namespace expert
