// The few largest products of a row with a large matrix (a head), found without reading most of it: a copy in two bits
// per weight (kernels/cpu/screen.h) says how large each product can be, two more say it better of those that may be
// wanted, and only the panels that may still hold one are computed as CpuLinear computes them, bit for bit.
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

// Panels, then the finer bits of all rows, then what is known of each row, and of each panel.
class CpuScreen final : public Matrix {
 public:
  // `bytes`: screen_bytes() of them, which `owner` keeps.
  CpuScreen(int64_t rows, int64_t cols, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  int64_t panel_count() const noexcept { return kernels::panel_count(rows()); }
  std::span<const std::byte> panels() const noexcept;
  const unsigned char* fine(int64_t row) const noexcept { return fine_ + row * row_bytes_; }
  const kernels::FineRow& row(int64_t row) const noexcept { return fine_rows_[row]; }
  const kernels::ScreenBound& bound(int64_t panel) const noexcept { return bounds_[panel]; }
  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  const kernels::ScreenRotation& rotation() const noexcept { return rotation_; }

 private:
  kernels::ScreenRotation rotation_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  int64_t row_bytes_;
  const unsigned char* fine_;
  const kernels::FineRow* fine_rows_;
  const kernels::ScreenBound* bounds_;
};

// Error(invalid_request) for an empty shape; 0 where rows are too long.
size_t screen_bytes(int64_t rows, int64_t cols);

// On up to `threads` short-lived threads of its own.
std::shared_ptr<const CpuScreen> pack_screen(const kernels::CpuKernels& kernels, const CpuMatrix& head, int threads);

// Keeps its scratch between calls; one call at a time.
class CpuScreenedLinear {
 public:
  CpuScreenedLinear(const kernels::CpuKernels& kernels, ThreadPool& pool, CrewMember& member, CpuLinear& linear);

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
  // One that may hold a product that is wanted, by the finer bits of its rows.
  struct Candidate {
    int64_t row;
    int64_t panel;
    float estimate;  // the largest
    float most;      // that a product can be
  };
  struct Possible;
  // A row of activations as products with the copy read it, and what is known of its products.
  struct Row {
    int64_t best;  // as many are wanted
    const unsigned char* prepared;
    kernels::ScreenMargin margin;
    std::span<float> maxima;      // of each panel's estimates; none of those computed
    std::span<float> task_maxima; // of these
    std::vector<float> computed;  // products
    float least;                  // the `best`-th largest product is no smaller
  };

  void prepare(const Tensor& x, const CpuMatrix& weight, const CpuScreen& screen, std::span<const int32_t> best);
  bool estimate(const Tensor& x, const CpuScreen& screen, const Tensor& y);
  void choose_best(int64_t index, const CpuScreen& screen, const Tensor& y);
  float refine(const Row& row, const CpuScreen& screen, int64_t n, float estimate) const;
  void list_best(const Row& row, const float* estimates, int64_t outputs);
  bool find_candidates(const CpuScreen& screen, const Tensor& y);
  void list_possible(const CpuScreen& screen, const Tensor& y, Possible& possible) const;
  void add_candidates(const CpuScreen& screen, const Tensor& y, const Possible& possible);
  void choose_best_candidates(int64_t index);
  void compute(const Tensor& x, const CpuMatrix& weight, const Tensor& y);
  void compute_least(const Tensor& x, const CpuMatrix& weight, const Tensor& y);
  void give_up(const Tensor& x, const CpuMatrix& weight, const Tensor& y);
  void compute_all(const Tensor& x, const CpuMatrix& weight, const Tensor& y);

  const kernels::CpuKernels& kernels_;
  ThreadPool& pool_;
  CpuLinear& linear_;
  RoomForRows room_;
  PreparedInputs prepared_;  // for the matrix
  WorkRanges tasks_;
  std::atomic<uint64_t> calls_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> whole_{0};
  int64_t pause_ = 0;   // calls that are computed whole from now on, since the copy did not help
  int64_t pauses_ = 0;  // how many the last time
  std::shared_ptr<std::byte> screened_;  // activations as the copy reads them
  size_t screened_size_ = 0;
  std::vector<Row> rows_;
  std::vector<float> maxima_;      // [rows, panels], then [rows, tasks]
  std::vector<Candidate> found_;       // of each task and row, with room for all
  std::vector<Candidate> candidates_;
  std::vector<int64_t> counts_;        // of each task and row
  std::atomic<int64_t> refined_{0};    // products
  std::vector<int32_t> listed_;        // outputs: scratch, as all below
  std::vector<Candidate> chosen_;
  std::vector<float> estimates_;
  std::vector<Piece> pieces_;      // that are computed next
  std::vector<float> values_;
};

}  // namespace expert
