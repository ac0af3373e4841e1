#include "adapters/factor_list.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/magnitude.h"

namespace expert {

void FactorList::add(const TensorEntry& entry, FactorSource::Role role, double scale, std::vector<float> row_scale) {
  items_.push_back({&entry, role, scale, std::move(row_scale)});
}

std::vector<MatrixPtr> FactorList::pack(Backend& backend, WeightFormat format) const {
  std::vector<FactorSource> sources;
  sources.reserve(items_.size());
  for (const Item& item : items_) sources.push_back(source_of(item));
  return backend.pack_factors(sources, format);
}

FactorSource FactorList::source_of(const Item& item) const {
  FactorSource source;
  source.role = item.role;
  source.values.dtype = *item.entry->dtype;
  source.values.rows = item.entry->shape[0];
  source.values.cols = item.entry->shape[1];
  source.values.read = [this, &item](int64_t first_row, int64_t count, void* destination) {
    read(item, first_row, count, destination);
  };
  source.scale = static_cast<float>(item.scale);
  source.row_scale = item.row_scale;
  return source;
}

void FactorList::read(const Item& item, int64_t first_row, int64_t count, void* destination) const {
  const TensorEntry& entry = *item.entry;
  const DType dtype = *entry.dtype;
  const auto row_bytes = static_cast<size_t>(entry.shape[1]) * size_of(dtype);
  const auto values = static_cast<size_t>(count * entry.shape[1]);
  tensors_.read(entry, static_cast<uint64_t>(first_row) * row_bytes, destination, values * size_of(dtype));
  const float largest = largest_magnitude(dtype, destination, values);
  if (!std::isfinite(largest)) {
    fail(ErrorCode::load, "{}: tensor {} holds a value that is not finite (NaN or infinity)", origin_, entry.name);
  }
  const auto scale = static_cast<float>(item.scale);
  if (item.row_scale.empty()) {
    if (std::isfinite(largest * scale)) return;
    fail(ErrorCode::load, "{}: tensor {} overflows when scaled by {}", origin_, entry.name, item.scale);
  }
  for (int64_t r = 0; r < count; ++r) {
    const float by = scale * item.row_scale[static_cast<size_t>(first_row + r)];
    const auto* row = static_cast<const std::byte*>(destination) + static_cast<size_t>(r) * row_bytes;
    if (std::isfinite(largest * by)) continue;
    if (std::isfinite(by * largest_magnitude(dtype, row, static_cast<size_t>(entry.shape[1])))) continue;
    fail(ErrorCode::load, "{}: tensor {} overflows when its row {} is scaled by {}", origin_, entry.name,
         first_row + r, by);
  }
}

}  // namespace expert
