// A prompt whose logits or hidden states somebody wants, without sampling: Engine::logits and Engine::embed.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "engine/sequence.h"

namespace expert {

class EvaluationTask final : public Sequence {
 public:
  using Values = std::vector<float>;  // [rows, width], row-major

  // `result` receives the values of all wanted rows, or the error. Throws out_of_memory when they do not fit.
  EvaluationTask(std::vector<int32_t> tokens, std::shared_ptr<ExpertLease> experts, Output output, Rows rows,
                 int32_t width);

  std::future<Values> result() { return promise_.get_future(); }

  int64_t max_positions() const noexcept override { return virtual_rows() + static_cast<int64_t>(tokens_.size()); }
  Output output() const noexcept override { return output_; }
  Rows rows() const noexcept override { return rows_; }
  void on_admitted(Clock::time_point) override {}
  bool on_rows(std::span<float> values, Clock::time_point) override;
  bool ends_now(Clock::time_point) override;
  void on_close() override { on_error(Error(ErrorCode::cancelled, "the engine was closed")); }
  void on_error(const Error& error) override { error_ = std::make_exception_ptr(error); }
  void deliver_end() override;

 private:
  Output output_;
  Rows rows_;
  Values values_;
  size_t wanted_ = 0;
  std::exception_ptr error_;
  std::promise<Values> promise_;
};

}  // namespace expert
