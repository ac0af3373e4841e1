// Activations in the form that kernels want them in, made once per call and shared by the outputs that read the same rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/cpu/cpu_kernels.h"

namespace expert {

// Rows that are prepared where they are made, part by part, for the call that reads them next.
class RowsInTheMaking {
 public:
  // Inputs [begin, end) of a row are written: whole groups, but for its last. Any thread; parts of their own.
  void prepare(int64_t row, int64_t begin, int64_t end) const {
    if (to_ != nullptr) kernels_->prepare_row(values_, x_ + row * inputs_, inputs_, {begin, end}, to_ + row * row_bytes_);
  }

 private:
  friend class PreparedInputs;

  const kernels::CpuKernels* kernels_ = nullptr;
  kernels::Storage values_ = kernels::Storage::f32;
  const float* x_ = nullptr;
  int64_t inputs_ = 0;
  int64_t row_bytes_ = 0;
  unsigned char* to_ = nullptr;  // null: they are read as they are
};

class PreparedInputs {
 public:
  PreparedInputs(const kernels::CpuKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Forgets the rows of the last call, whose memory is used again, and what was made for this one unless it is x [rows,
  // inputs].
  void begin(const float* x, int64_t rows, int64_t inputs);
  // x [rows, inputs] for weights stored so, unless they read x itself.
  void prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs);
  // kernels::GemmArgs::prepared of row 0; null where x was not prepared. Any thread, while nothing is prepared.
  const unsigned char* find(kernels::Storage storage, const float* x) const;

  // Room for x [rows, inputs], all of which will be prepared before the next call begins.
  RowsInTheMaking make(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs);
  // Something else was written since.
  void forget_made() noexcept { made_x_.store(nullptr, std::memory_order_relaxed); }
  // x was, perhaps. From any thread.
  void forget_made(const void* x) noexcept {
    const float* made = static_cast<const float*>(x);
    made_x_.compare_exchange_strong(made, nullptr, std::memory_order_relaxed);
  }

 private:
  struct Entry {
    kernels::Storage values = kernels::Storage::f32;  // of the weights
    const float* x = nullptr;
    int64_t rows = 0;
    int64_t inputs = 0;
    size_t capacity = 0;
    std::shared_ptr<std::byte> bytes;

    unsigned char* data() const { return reinterpret_cast<unsigned char*>(bytes.get()); }
  };

  void set(Entry& entry, kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) const;
  void fill(const Entry& entry);

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Entry> entries_;
  size_t used_ = 0;
  Entry made_;  // for the next call, if it reads made_x_
  std::atomic<const float*> made_x_{nullptr};
};

}  // namespace expert
