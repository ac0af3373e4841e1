#include "backend/cpu_prepared_input.h"

#include <algorithm>
#include <utility>

#include "backend/host_memory.h"

namespace expert {

namespace {

constexpr int64_t kLeastValues = 16384;  // worth a task of their own

}  // namespace

void PreparedInputs::begin(const float* x, int64_t rows, int64_t inputs) {
  used_ = 0;
  if (made_x_.exchange(nullptr, std::memory_order_relaxed) != x || made_.rows != rows || made_.inputs != inputs) return;
  if (entries_.empty()) entries_.emplace_back();
  std::swap(entries_.front(), made_);
  used_ = 1;
}

void PreparedInputs::prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  if (kernels_.prepared_row_bytes(storage, inputs) == 0 || find(storage, x) != nullptr) return;
  if (used_ == entries_.size()) entries_.emplace_back();
  Entry& entry = entries_[used_++];
  set(entry, storage, x, rows, inputs);
  fill(entry);
}

const unsigned char* PreparedInputs::find(kernels::Storage storage, const float* x) const {
  for (size_t i = 0; i < used_; ++i) {
    if (entries_[i].x == x && entries_[i].values == kernels::values_of(storage)) return entries_[i].data();
  }
  return nullptr;
}

RowsInTheMaking PreparedInputs::make(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  forget_made();
  RowsInTheMaking making;
  making.row_bytes_ = kernels_.prepared_row_bytes(storage, inputs);
  if (making.row_bytes_ == 0) return making;
  set(made_, storage, x, rows, inputs);
  made_x_.store(x, std::memory_order_relaxed);
  making.kernels_ = &kernels_;
  making.values_ = made_.values;
  making.x_ = x;
  making.inputs_ = inputs;
  making.to_ = made_.data();
  return making;
}

void PreparedInputs::set(Entry& entry, kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) const {
  const auto bytes = static_cast<size_t>(rows * kernels_.prepared_row_bytes(storage, inputs));
  if (bytes > entry.capacity) {
    entry.capacity = 0;
    entry.bytes = allocate_host(bytes);
    entry.capacity = bytes;
  }
  entry.values = kernels::values_of(storage);
  entry.x = x;
  entry.rows = rows;
  entry.inputs = inputs;
}

void PreparedInputs::fill(const Entry& entry) {
  const int64_t row_bytes = kernels_.prepared_row_bytes(entry.values, entry.inputs);
  const int64_t pieces = std::clamp<int64_t>(entry.rows * entry.inputs / kLeastValues, 1, std::min(entry.rows, int64_t{64}));
  pool_.run(pieces, [&](int64_t piece, int) {
    for (int64_t r = entry.rows * piece / pieces; r < entry.rows * (piece + 1) / pieces; ++r) {
      kernels_.prepare_row(entry.values, entry.x + r * entry.inputs, entry.inputs, {0, entry.inputs},
                           entry.data() + r * row_bytes);
    }
  });
}

}  // namespace expert
