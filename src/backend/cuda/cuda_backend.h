// The Backend over a Device. Nothing here knows the CUDA runtime, so the tests run all of it on an emulated device.
//
// Weights, factors and KV blocks lie as on the CPU, inputs of quantised weights are quantised as on the CPU, and sums
// run in an order of the device's own (kernels/cuda/args.h), fixed by positions: batch invariance holds bit for bit,
// equality with the CPU's bits does not. Verified under emulation; never run on a GPU.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_linear.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/device.h"
#include "kernels/cuda/table.h"

namespace expert::cuda {

class CudaBackend final : public Backend {
 public:
  // `threads`: of the host, which pack weights; 0: one per core.
  CudaBackend(std::shared_ptr<Device> device, const kernels::cuda::Table& kernels, int threads);

  const BackendInfo& info() const noexcept override { return info_; }
  uint64_t free_memory() const override { return device_->memory().free; }
  Tensor allocate(DType dtype, int64_t rows, int64_t cols) override;
  void upload(const Tensor& destination, const void* source, size_t bytes) override;
  void download(void* destination, const Tensor& source, size_t bytes) override;
  void synchronize() override { device_->wait(); }
  std::unique_ptr<KvStorage> create_kv(const KvShape& shape) override;

  MatrixPtr pack(const MatrixSource& source, WeightFormat format) override;
  std::vector<MatrixPtr> pack_factors(std::span<const FactorSource> sources, WeightFormat format) override;
  std::span<const std::byte> packed_bytes(const Matrix& matrix) const override;
  MatrixPtr adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                  std::shared_ptr<const void> owner) override;
  void unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const override;
  bool adopts(int64_t rows, int64_t cols, WeightFormat format, size_t bytes) const override;

  void embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) override;
  void embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) override;
  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void linear(const Tensor& x, std::span<const LinearOutput> outputs) override;
  void attention(const BatchLayout& layout, const AttentionOp& op) override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override;
  void add(const Tensor& x, const Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;

 private:
  // Lists of one step: sent with the first attention of a step, used by all its layers.
  struct StepLists {
    explicit StepLists(std::shared_ptr<Device> device) : lists(std::move(device)) {}
    bool hold(const BatchLayout& layout, int32_t wanted_group) const;

    Lists lists;
    uint64_t step = 0;  // 0: nothing was sent that may be used again
    std::vector<Segment> segments;
    int32_t group = 0;
    int32_t most_splits = 0;
    int32_t most_queries = 0;  // of a tile
    std::vector<kernels::cuda::QueryTile> query_tiles;
    size_t places = 0;
    size_t blocks = 0;
    size_t tiles = 0;
  };

  void send_step(const BatchLayout& layout, const AttentionOp& op, const CudaKv& kv);
  void prepare_attention(const AttentionOp& op, const CudaKv& kv);
  // Tiles [first, last), which hold `rows` whole rows.
  void attend_tiles(const AttentionOp& op, const CudaKv& kv, size_t first, size_t last, int32_t rows);

  std::shared_ptr<Device> device_;
  const kernels::cuda::Table& kernels_;
  BackendInfo info_;
  Staging staging_;
  Lists call_lists_;  // of the call that is being enqueued
  StepLists step_;
  Scratch states_;  // of attention
  CudaLinear linear_;
};

}  // namespace expert::cuda
