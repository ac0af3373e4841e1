// Many requests at once, waited for together.
#include <algorithm>
#include <deque>

#include "convert.h"
#include "handles.h"

using namespace expert;
using namespace expert::capi;

namespace {

struct BatchItem {
  size_t index;
  std::shared_ptr<Generation> generation;
};

class Batch {
 public:
  Batch(Engine& engine, expert_result** out, expert_status* statuses)
      : engine_(engine), out_(out), statuses_(statuses) {}

  void submit(size_t index, const expert_request* request) {
    collect(index, [&] {
      Request wanted = request_of(request);
      running_.push_back({index, submit_when_there_is_room(std::move(wanted))});
    });
  }

  void finish_all() {
    while (!running_.empty()) finish_oldest();
  }

  // Throws the failure of the lowest index again.
  void report_first() const {
    if (first_) throw *first_;
  }

 private:
  std::shared_ptr<Generation> submit_when_there_is_room(Request request) {
    while (true) {
      try {
        return engine_.submit(request);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::out_of_memory || running_.empty()) throw;
        finish_oldest();
      }
    }
  }

  void finish_oldest() {
    const BatchItem item = running_.front();
    running_.pop_front();
    collect(item.index, [&] { out_[item.index] = new expert_result(item.generation->wait(timeout_of(-1))); });
  }

  template <typename Body>
  void collect(size_t index, Body&& body) {
    expert_status status = EXPERT_OK;
    try {
      body();
    } catch (const Error& error) {
      status = static_cast<expert_status>(error.code());
      if (!first_ || index < first_index_) {
        first_.emplace(error);
        first_index_ = index;
      }
    }
    if (statuses_ != nullptr) statuses_[index] = status;
  }

  Engine& engine_;
  expert_result** out_;
  expert_status* statuses_;
  std::deque<BatchItem> running_;
  std::optional<Error> first_;
  size_t first_index_ = 0;
};

}  // namespace

expert_status expert_infer_batch(expert_engine* engine, const expert_request* const* requests, size_t count,
                                 expert_result** out, expert_status* out_statuses) {
  if (out != nullptr) std::fill_n(out, count, nullptr);
  const expert_status status = guard([&] {
    const auto given = span_of(requests, count, "requests");
    if (count != 0) require(out, "out");
    Batch batch(require(engine, "engine").held.get(), out, out_statuses);
    for (size_t i = 0; i < count; ++i) batch.submit(i, given[i]);
    batch.finish_all();
    batch.report_first();
  });
  return status;
}
