// From a checkpoint's tensors to packed matrices: which tensors a model needs, whether they are there, and reading
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "io/safetensors.h"

namespace expert {

// One tensor of the checkpoint and the slot it is loaded into: exactly one of `matrix` and `vector` is set.
struct PlannedWeight {
  std::string name;
  int64_t rows = 0;  // 1 for a vector
  int64_t cols = 0;
  MatrixPtr* matrix = nullptr;
  Tensor* vector = nullptr;
  bool vocabulary = false;  // embedding or head: one row per token of the vocabulary
};

// All tensors of one model, in loading order. The slots must outlive the plan.
class WeightPlan {
 public:
  void matrix(std::string name, int64_t rows, int64_t cols, MatrixPtr& slot) {
    entries_.push_back({std::move(name), rows, cols, &slot, nullptr});
  }
  void vocabulary(std::string name, int64_t rows, int64_t cols, MatrixPtr& slot) {
    entries_.push_back({std::move(name), rows, cols, &slot, nullptr, true});
  }
  void vector(std::string name, int64_t size, Tensor& slot) {
    entries_.push_back({std::move(name), 1, size, nullptr, &slot});
  }
  const std::vector<PlannedWeight>& entries() const noexcept { return entries_; }

 private:
  std::vector<PlannedWeight> entries_;
};

// Every planned tensor is there with its shape and a readable type, and nothing is left over, but for what Transformers
// drops as well: `rotary_emb.inv_freq` buffers and the names in `tolerated`. Throws load, naming the tensor.
void check_tensors(const WeightPlan& plan, const TensorSet& tensors, const std::vector<std::string>& tolerated);

// The format in which the files hold them: BF16 when every matrix is stored so, else F32.
WeightFormat lossless_format(const WeightPlan& plan, const TensorSet& tensors);

// Reads and packs one matrix, row by row; a value that is not finite is a load error that names the tensor.
MatrixPtr read_matrix(const PlannedWeight& weight, const TensorSet& tensors, Backend& backend, WeightFormat format);
// An F32 vector [1, size] on the device.
Tensor read_vector(const PlannedWeight& weight, const TensorSet& tensors, Backend& backend);

}  // namespace expert
