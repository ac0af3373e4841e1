#include "adapters/lowering.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"

namespace expert {
namespace {

// Keys of every method that say how an adapter was made, not what it does.
constexpr std::array<std::string_view, 7> kOfEveryMethod = {
    "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_version",
};

bool among(std::span<const std::string_view> keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

MatrixSource source_of(const std::vector<float>& values, int64_t rows, int64_t cols) {
  MatrixSource source;
  source.rows = rows;
  source.cols = cols;
  source.read = [&values, cols](int64_t first_row, int64_t count, void* destination) {
    std::memcpy(destination, values.data() + first_row * cols, static_cast<size_t>(count * cols) * sizeof(float));
  };
  return source;
}

}  // namespace

std::vector<SiteDelta> SiteDeltas::take() {
  std::vector<SiteDelta> deltas;
  deltas.reserve(by_site_.size());
  for (auto& [site, delta] : by_site_) deltas.push_back(std::move(delta));
  by_site_.clear();
  return deltas;
}

bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
}

void refuse_unknown_keys(const JsonFields& config, std::span<const std::string_view> read,
                         std::span<const std::string_view> without_effect) {
  for (const auto& [key, value] : config.json().items()) {
    if (among(kOfEveryMethod, key) || among(read, key) || among(without_effect, key) || is_off(value)) continue;
    fail(ErrorCode::load, "{}: \"{}\": {} is not supported", config.source(), key.substr(0, 80),
         value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80));
  }
}

MatrixPtr pack_values(Backend& backend, WeightFormat format, const std::vector<float>& values, int64_t rows,
                      int64_t cols) {
  return backend.pack(source_of(values, rows, cols), format);
}

MatrixPtr pack_factor(Backend& backend, FactorSource::Role role, WeightFormat format, const std::vector<float>& values,
                      int64_t rows, int64_t cols) {
  FactorSource factor;
  factor.role = role;
  factor.values = source_of(values, rows, cols);
  return backend.pack_factors({&factor, 1}, format).front();
}

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      result[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
    }
  }
  return result;
}

}  // namespace expert
