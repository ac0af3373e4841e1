#include "backend/cpu_prepared_input.h"

#include <algorithm>

#include "backend/host_memory.h"

namespace expert {

namespace {

constexpr int64_t kLeastValues = 16384;  // worth a task of their own

}  // namespace

void PreparedInputs::prepare(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  const int64_t row_bytes = kernels_.prepared_row_bytes(storage, inputs);
  if (row_bytes == 0 || find(storage, x) != nullptr) return;
  if (used_ == entries_.size()) entries_.emplace_back();
  Entry& entry = entries_[used_++];
  entry.values = kernels::values_of(storage);
  entry.x = x;
  fill(entry, rows, inputs, row_bytes);
}

const unsigned char* PreparedInputs::find(kernels::Storage storage, const float* x) const {
  for (size_t i = 0; i < used_; ++i) {
    if (entries_[i].x == x && entries_[i].values == kernels::values_of(storage)) {
      return reinterpret_cast<const unsigned char*>(entries_[i].bytes.get());
    }
  }
  return nullptr;
}

void PreparedInputs::fill(Entry& entry, int64_t rows, int64_t inputs, int64_t row_bytes) {
  const auto bytes = static_cast<size_t>(rows * row_bytes);
  if (bytes > entry.capacity) {
    entry.capacity = 0;
    entry.bytes = allocate_host(bytes);
    entry.capacity = bytes;
  }
  auto* to = reinterpret_cast<unsigned char*>(entry.bytes.get());
  const int64_t pieces = std::clamp<int64_t>(rows * inputs / kLeastValues, 1, std::min(rows, int64_t{64}));
  pool_.run(pieces, [&](int64_t piece, int) {
    for (int64_t r = rows * piece / pieces; r < rows * (piece + 1) / pieces; ++r) {
      kernels_.prepare_row(entry.values, entry.x + r * inputs, inputs, to + r * row_bytes);
    }
  });
}

}  // namespace expert
