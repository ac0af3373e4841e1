// Activations in the form that kernels want them in, made once per call and shared by the outputs that read the same rows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

class PreparedInputs {
 public:
  PreparedInputs(const kernels::CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Forgets the rows of the last call; their memory is used again.
  void clear() noexcept { used_ = 0; }
  // x [rows, inputs] for weights stored so, unless they read x itself.
  void prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs);
  // kernels::GemmArgs::prepared of row 0; null where x was not prepared. Any thread, while nothing is prepared.
  const unsigned char* find(kernels::Storage storage, const float* x) const;

 private:
  struct Entry {
    kernels::Storage values = kernels::Storage::f32;  // of the weights
    const float* x = nullptr;
    size_t capacity = 0;
    std::shared_ptr<std::byte> bytes;
  };

  void fill(Entry& entry, int64_t rows, int64_t inputs, int64_t row_bytes);

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Entry> entries_;
  size_t used_ = 0;
};

}  // namespace expert
