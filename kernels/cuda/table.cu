// All CUDA kernels in one unit: built by nvcc for the devices, and by the host's compiler for the tests.
//
// The arithmetic is verified under emulation (tests/cuda). These kernels have never run on a GPU.
#include "kernels/cuda/table.h"

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/linear.cuh"

namespace expert::kernels::cuda {

const Table& table() {
  static const Table kernels = {
      {{product<Storage::f32, 1>, product<Storage::f32, 2>, product<Storage::f32, 4>, product<Storage::f32, 8>},
       {product<Storage::bf16, 1>, product<Storage::bf16, 2>, product<Storage::bf16, 4>, product<Storage::bf16, 8>},
       {product<Storage::int8, 1>, product<Storage::int8, 2>, product<Storage::int8, 4>, product<Storage::int8, 8>},
       {product<Storage::int4, 1>, product<Storage::int4, 2>, product<Storage::int4, 4>, product<Storage::int4, 8>}},
      shrink,
      finish,
      embed,
      embed_deltas,
      prepare,
      {{attend<KvFormat::f32, 1>, attend<KvFormat::f32, 2>, attend<KvFormat::f32, 4>, attend<KvFormat::f32, 8>},
       {attend<KvFormat::bf16, 1>, attend<KvFormat::bf16, 2>, attend<KvFormat::bf16, 4>, attend<KvFormat::bf16, 8>},
       {attend<KvFormat::int8, 1>, attend<KvFormat::int8, 2>, attend<KvFormat::int8, 4>, attend<KvFormat::int8, 8>}},
      merge,
      rms_norm,
      swiglu,
      add,
      gather};
  return kernels;
}

}  // namespace expert::kernels::cuda
