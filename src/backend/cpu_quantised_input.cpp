#include "backend/cpu_quantised_input.h"

#include <algorithm>

#include "backend/host_memory.h"

namespace expert {

namespace {

constexpr int64_t kLeastQuantisedValues = 16384;  // worth a task of their own

}  // namespace

const unsigned char* QuantisedInputs::codes_of(kernels::Storage storage, const float* x, int64_t rows, int64_t inputs) {
  if (!kernels::is_quantised(storage)) return nullptr;
  for (size_t i = 0; i < used_; ++i) {
    if (entries_[i].x == x && entries_[i].storage == storage) {
      return reinterpret_cast<const unsigned char*>(entries_[i].codes.get());
    }
  }
  if (used_ == entries_.size()) entries_.emplace_back();
  Entry& entry = entries_[used_++];
  entry.storage = storage;
  entry.x = x;
  fill(entry, rows, inputs);
  return reinterpret_cast<const unsigned char*>(entry.codes.get());
}

void QuantisedInputs::fill(Entry& entry, int64_t rows, int64_t inputs) {
  const int64_t row_bytes = kernels::quantised_row_bytes(inputs);
  const auto bytes = static_cast<size_t>(rows * row_bytes);
  if (bytes > entry.capacity) {
    entry.capacity = 0;
    entry.codes = allocate_host(bytes);
    entry.capacity = bytes;
  }
  auto* codes = reinterpret_cast<unsigned char*>(entry.codes.get());
  const int64_t pieces = std::clamp<int64_t>(rows * inputs / kLeastQuantisedValues, 1, std::min(rows, int64_t{64}));
  pool_.run(pieces, [&](int64_t piece, int) {
    for (int64_t r = rows * piece / pieces; r < rows * (piece + 1) / pieces; ++r) {
      kernels_.quantise_row(entry.storage, entry.x + r * inputs, inputs, codes + r * row_bytes);
    }
  });
}

}  // namespace expert
