#include "models/weights.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_set>

#include "core/error.h"
#include "io/magnitude.h"

namespace expert {
namespace {

std::string text_of(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::vector<int64_t> shape_of(const PlannedWeight& weight) {
  if (weight.vector) return {weight.cols};
  return {weight.rows, weight.cols};
}

void check_tensor(const PlannedWeight& weight, const TensorSet& tensors) {
  const TensorRef found = tensors.find(weight.name);
  if (!found) fail(ErrorCode::load, "{}: tensor {} is missing", tensors.source(), weight.name);
  if (found->shape != shape_of(weight)) {
    fail(ErrorCode::load, "{}: tensor {} has shape {}, the configuration asks for {}", tensors.source(), weight.name,
         text_of(found->shape), text_of(shape_of(weight)));
  }
  if (!found->dtype || *found->dtype == DType::i32) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: tensor {} is {}, which is not supported", tensors.source(), weight.name, found->dtype_name),
        "Base models are read from F32, F16 and BF16 tensors.");
  }
}

[[noreturn]] void refuse_not_finite(const std::string& source, const std::string& name) {
  fail(ErrorCode::load, "{}: tensor {} holds a value that is not finite (NaN or infinity)", source, name);
}

}  // namespace

void check_tensors(const WeightPlan& plan, const TensorSet& tensors, const std::vector<std::string>& tolerated) {
  std::unordered_set<std::string_view> known(tolerated.begin(), tolerated.end());
  for (const PlannedWeight& weight : plan.entries()) {
    check_tensor(weight, tensors);
    known.insert(weight.name);
  }
  for (const std::string& name : tensors.names()) {
    if (known.contains(name) || name.find("rotary_emb.inv_freq") != std::string::npos) continue;
    fail(ErrorCode::load, "{}: tensor {} belongs to no part of the model the configuration describes", tensors.source(),
         name);
  }
}

WeightFormat lossless_format(const WeightPlan& plan, const TensorSet& tensors) {
  const bool all_bf16 = std::all_of(plan.entries().begin(), plan.entries().end(), [&](const PlannedWeight& weight) {
    return !weight.matrix || tensors.at(weight.name)->dtype == DType::bf16;
  });
  return all_bf16 ? WeightFormat::bf16 : WeightFormat::f32;
}

MatrixPtr read_matrix(const PlannedWeight& weight, const TensorSet& tensors, Backend& backend, WeightFormat format) {
  const TensorRef tensor = tensors.at(weight.name);
  MatrixSource source;
  source.dtype = *tensor->dtype;
  source.rows = weight.rows;
  source.cols = weight.cols;
  source.read = [&](int64_t first_row, int64_t count, void* destination) {
    const auto values = static_cast<size_t>(count * weight.cols);
    const auto offset = static_cast<uint64_t>(first_row * weight.cols) * size_of(source.dtype);
    tensor.read(offset, destination, values * size_of(source.dtype));
    if (!std::isfinite(largest_magnitude(source.dtype, destination, values))) refuse_not_finite(tensors.source(), weight.name);
  };
  return backend.pack(source, format);
}

Tensor read_vector(const PlannedWeight& weight, const TensorSet& tensors, Backend& backend) {
  const std::vector<float> values = tensors.at(weight.name).read_f32();
  if (!std::isfinite(largest_magnitude(DType::f32, values.data(), values.size()))) refuse_not_finite(tensors.source(), weight.name);
  Tensor vector = backend.allocate(DType::f32, 1, weight.cols);
  backend.upload(vector, values.data(), values.size() * sizeof(float));
  return vector;
}

}  // namespace expert
