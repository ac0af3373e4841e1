// The few largest products of a row with a large matrix (a head), found without reading most of it: a copy of half a byte
// per weight (kernels/cpu/screen.h) says of each panel how large its products can be, and only those panels that may hold
// one of the wanted are computed as CpuLinear computes them, bit for bit.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu_linear.h"
#include "backend/cpu_matrix.h"
#include "backend/cpu_prepared_input.h"
#include "kernels/cpu/screen.h"

namespace expert {

// Panels as of an INT4 matrix, then a bound for each of them.
class CpuScreen final : public Matrix {
 public:
  // `bytes`: screen_bytes() of them, which `owner` keeps.
  CpuScreen(int64_t rows, int64_t cols, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  const CpuMatrix& codes() const noexcept { return codes_; }
  std::span<const kernels::ScreenBound> bounds() const noexcept { return bounds_; }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  CpuMatrix codes_;
  std::span<const kernels::ScreenBound> bounds_;
};

// Error(invalid_request) for an empty shape.
size_t screen_bytes(int64_t rows, int64_t cols);

// On up to `threads` short-lived threads of its own.
std::shared_ptr<const CpuScreen> pack_screen(const kernels::CpuKernels& kernels, const CpuMatrix& head, int threads);

// Keeps its scratch between calls; one call at a time.
class CpuScreenedLinear {
 public:
  CpuScreenedLinear(const kernels::CpuKernels& kernels, ThreadPool& pool, CpuLinear& linear);

  // Backend::screened_linear.
  void run(const Tensor& x, const CpuMatrix& weight, const CpuScreen& screen, std::span<const int32_t> best,
           const Tensor& y);
  // Any thread.
  ScreenStats stats() const noexcept { return {calls_, bytes_, whole_}; }

 private:
  // A panel of one row that is computed.
  struct Piece {
    int64_t row;
    int64_t panel;
  };

  void prepare(const Tensor& x, const CpuMatrix& weight);
  bool estimate(const Tensor& x, const CpuMatrix& codes, const Tensor& y);
  void take_best(int64_t row, int32_t best);
  void take_possible(int64_t row, int32_t best, const CpuScreen& screen, const Tensor& y);
  void compute(const Tensor& x, const CpuMatrix& weight, const Tensor& y);
  void multiply(const CpuMatrix& w, const Tensor& x, const unsigned char* prepared, Piece first, int64_t rows,
                int64_t last_panel, const Tensor& y) const;
  void compute_all(const Tensor& x, const CpuMatrix& weight, const Tensor& y);

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  CpuLinear& linear_;
  PreparedInputs prepared_;  // for the matrix
  WorkRanges tasks_;
  std::atomic<uint64_t> calls_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> whole_{0};
  int64_t pause_ = 0;   // calls that are computed whole from now on, since the copy did not help
  int64_t pauses_ = 0;  // how many the last time
  int64_t panels_ = 0;
  std::shared_ptr<std::byte> screened_;  // rows as the copy reads them
  size_t screened_size_ = 0;
  std::vector<kernels::ScreenMargin> margins_;  // of each row
  std::vector<float> maxima_;   // [rows, panels] of the copy's products
  std::vector<Piece> pieces_;   // that are computed next
  std::vector<Piece> firsts_;   // that were computed first
  std::vector<float> computed_;  // scratch
  std::vector<float> values_;    // scratch
};

}  // namespace expert
