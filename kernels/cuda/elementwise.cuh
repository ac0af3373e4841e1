// Embedding, norm and the operations on single values.
#pragma once

#include "kernels/cuda/panels.cuh"

namespace expert::kernels::cuda {

// Blocks of threads: (rows, columns).
__global__ void __launch_bounds__(kPlainThreads) embed(const EmbedArgs args) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kPlainThreads + threadIdx.x;
  const int64_t row = static_cast<int64_t>(blockIdx.x);
  if (col >= args.cols) return;
  args.out[row * args.cols + col] = panel_value(args.storage, args.panels, args.cols, args.tokens[row], col);
}

// The formula of a linear layer where the input is one-hot: A x and D x are rows of tables. Blocks: (tiles, columns).
__global__ void __launch_bounds__(kPlainThreads) embed_deltas(const EmbedDeltaArgs args) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kPlainThreads + threadIdx.x;
  const RowTile tile = args.tiles[blockIdx.x];
  if (col >= args.cols) return;
  const DeltaVectors& delta = args.deltas[tile.delta];
  for (int64_t row = tile.first_row; row < tile.first_row + tile.count; ++row) {
    const int64_t token = args.tokens[row];
    float y = delta.skip_base != 0 ? 0.0F : args.out[row * args.cols + col];
    if (delta.output_scale != nullptr) y *= delta.output_scale[col];
    float sum = 0.0F;
    for (int i = delta.first_term; i < delta.last_term; ++i) {
      const EmbedTerm& term = args.terms[i];
      if (term.b == nullptr) {
        sum = fmaf(term.weight, panel_value(term.table_storage, term.table, args.cols, token, col), sum);
        continue;
      }
      for (int64_t k = 0; k < term.rank; ++k) {
        const float t = term.weight * panel_value(term.table_storage, term.table, term.rank, token, k);
        sum = fmaf(t, panel_value(term.b_storage, term.b, term.rank, col, k), sum);
      }
    }
    y += sum;
    if (delta.bias != nullptr) y += delta.bias[col];
    if (delta.result_scale != nullptr) y *= delta.result_scale[col];
    args.out[row * args.cols + col] = y;
  }
}

// One block of threads per row.
__global__ void __launch_bounds__(kNormThreads) rms_norm(const NormArgs args) {
  constexpr int kWarps = kNormThreads / kWarpLanes;
  float* sums = reinterpret_cast<float*>(block_memory());
  const float* x = args.x + static_cast<int64_t>(blockIdx.x) * args.cols;
  float* out = args.out + static_cast<int64_t>(blockIdx.x) * args.cols;
  float squares = 0.0F;
  for (int64_t i = threadIdx.x; i < args.cols; i += kNormThreads) squares = fmaf(x[i], x[i], squares);
  squares = warp_sum(squares);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = squares;
  __syncthreads();
  float total = 0.0F;
  for (int w = 0; w < kWarps; ++w) total += sums[w];
  const float inverse = 1.0F / sqrtf(total / static_cast<float>(args.cols) + args.eps);
  for (int64_t i = threadIdx.x; i < args.cols; i += kNormThreads) out[i] = x[i] * inverse * args.weight[i];
}

__global__ void __launch_bounds__(kPlainThreads) swiglu(const PairArgs args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (i < args.count) args.out[i] = args.a[i] / (1.0F + expf(-args.a[i])) * args.b[i];
}

__global__ void __launch_bounds__(kPlainThreads) add(const PairArgs args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (i < args.count) args.out[i] = args.a[i] + args.b[i];
}

// Blocks of threads: (rows, columns).
__global__ void __launch_bounds__(kPlainThreads) gather(const GatherArgs args) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kPlainThreads + threadIdx.x;
  const int64_t row = static_cast<int64_t>(blockIdx.x);
  if (col < args.cols) args.out[row * args.cols + col] = args.x[args.rows[row] * args.cols + col];
}

}  // namespace expert::kernels::cuda
