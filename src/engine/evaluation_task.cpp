#include "engine/evaluation_task.h"

#include <new>

namespace expert {

EvaluationTask::EvaluationTask(std::vector<int32_t> tokens, std::shared_ptr<ExpertLease> experts, Output output,
                               Rows rows, int32_t width)
    : Sequence(std::move(tokens), std::move(experts)), output_(output), rows_(rows) {
  arrived = Clock::now();
  const size_t count = rows == Rows::all ? tokens_.size() : 1;
  wanted_ = count * static_cast<size_t>(width);
  try {
    values_.reserve(wanted_);
  } catch (const std::exception&) {
    fail(ErrorCode::out_of_memory, "{} rows of {} values need {} bytes", count, width, wanted_ * sizeof(float));
  }
}

bool EvaluationTask::on_rows(std::span<float> values, Clock::time_point) {
  values_.insert(values_.end(), values.begin(), values.end());
  return values_.size() == wanted_;
}

bool EvaluationTask::ends_now(Clock::time_point) {
  const Error* missing = why_not_resident();
  if (missing != nullptr) on_error(*missing);
  return missing != nullptr;
}

void EvaluationTask::deliver_end() {
  release_experts();
  if (error_) {
    promise_.set_exception(error_);
  } else {
    promise_.set_value(std::move(values_));
  }
}

}  // namespace expert
