// The low-rank factors of one expert on their way from its tensors to the backend: read once, checked, packed together.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "io/safetensors.h"

namespace expert {

class FactorList {
 public:
  // `origin` names the expert in errors; both must outlive the list.
  FactorList(const std::string& origin, const SafeTensors& tensors) : origin_(origin), tensors_(tensors) {}

  // A matrix tensor of type F32, F16 or BF16. Its values are multiplied by `scale` and, per row, by `row_scale` (empty:
  // ones). The entry must outlive the list.
  void add(const TensorEntry& entry, FactorSource::Role role, double scale = 1.0, std::vector<float> row_scale = {});

  // In the order of add(). Throws load, naming the tensor, where a value is not finite or overflows when it is scaled.
  std::vector<MatrixPtr> pack(Backend& backend, WeightFormat format) const;

 private:
  struct Item {
    const TensorEntry* entry;
    FactorSource::Role role;
    double scale;
    std::vector<float> row_scale;
  };
  FactorSource source_of(const Item& item) const;
  void read(const Item& item, int64_t first_row, int64_t count, void* destination) const;

  const std::string& origin_;
  const SafeTensors& tensors_;
  std::deque<Item> items_;
};

}  // namespace expert
