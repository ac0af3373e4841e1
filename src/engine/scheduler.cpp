#include "engine/scheduler.h"

#include <algorithm>
#include <tuple>

namespace expert {

void PlannedBatch::clear() {
  batch.layout.token_ids.clear();
  batch.layout.positions.clear();
  batch.layout.segments.clear();
  batch.adapters.clear();
  batch.given_rows.clear();
  batch.logit_rows.clear();
  sequences.clear();
  output_rows.clear();
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  sequence->arrival = arrivals_++;
  waiting_.push_back(std::move(sequence));
}

std::vector<std::unique_ptr<Sequence>>::iterator Scheduler::first_in_line() {
  const auto rank = [this](const std::unique_ptr<Sequence>& sequence) {
    const auto running = running_by_caller_.find(sequence->caller);
    return std::tuple(-int64_t{sequence->priority}, running == running_by_caller_.end() ? 0 : running->second,
                      sequence->arrival);
  };
  return std::min_element(waiting_.begin(), waiting_.end(),
                          [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
}

void Scheduler::admit(Clock::time_point now) {
  while (!waiting_.empty() && running_.size() < static_cast<size_t>(max_batch_)) {
    const auto first = first_in_line();
    if (!kv_.allocate(KvAllocator::blocks_for((*first)->max_positions()), (*first)->blocks)) return;
    ++running_by_caller_[(*first)->caller];
    (*first)->on_admitted(now);
    running_.push_back(std::move(*first));
    waiting_.erase(first);
  }
}

// Soft-prompt rows stand at the positions before the first token. Nobody asks for their output.
void Scheduler::place(Sequence& sequence, int32_t rows, PlannedBatch& planned) {
  constexpr int32_t kPlaceHolder = 0;
  BatchLayout& layout = planned.batch.layout;
  const auto first_row = static_cast<int32_t>(layout.token_ids.size());
  const int32_t given = std::clamp(sequence.virtual_rows() - sequence.computed, 0, rows);
  const bool completes = rows == sequence.pending();
  const int32_t wanted = sequence.rows() == Sequence::Rows::all ? rows - given : completes ? 1 : 0;
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t position = sequence.computed + row;
    const int32_t token = position - sequence.virtual_rows();
    layout.token_ids.push_back(token < 0 ? kPlaceHolder : sequence.tokens()[static_cast<size_t>(token)]);
    layout.positions.push_back(position);
    if (row >= rows - wanted) planned.batch.logit_rows.push_back(first_row + row);
  }
  if (given > 0) {
    planned.batch.given_rows.push_back(
        {first_row, sequence.adapters()->soft_prompt().row_range(sequence.computed, given)});
  }
  const int32_t blocks = KvAllocator::blocks_for(sequence.computed + rows);
  layout.segments.push_back(
      {first_row, rows, sequence.computed, {sequence.blocks.begin(), sequence.blocks.begin() + blocks}});
  planned.batch.adapters.push_back(sequence.adapters());
  planned.sequences.push_back(&sequence);
  planned.output_rows.push_back(wanted);
}

void Scheduler::plan(StepPlan& plan) {
  plan.logits.clear();
  plan.hidden.clear();
  const auto batch_of = [&](const Sequence& sequence) -> PlannedBatch& {
    return sequence.output() == Sequence::Output::hidden ? plan.hidden : plan.logits;
  };
  for (const auto& sequence : running_) {
    if (sequence->pending() == 1) place(*sequence, 1, batch_of(*sequence));
  }
  int32_t budget = kPrefillTokens;
  for (const auto& sequence : running_) {
    if (sequence->pending() <= 1 || budget == 0) continue;
    const bool every_logit = sequence->rows() == Sequence::Rows::all && sequence->output() == Sequence::Output::logits;
    const int32_t rows = std::min({sequence->pending(), budget, every_logit ? kMaxLogitRows : kPrefillTokens});
    place(*sequence, rows, batch_of(*sequence));
    budget -= rows;
  }
}

void Scheduler::advance(const PlannedBatch& planned) {
  for (size_t i = 0; i < planned.sequences.size(); ++i) {
    planned.sequences[i]->computed += planned.batch.layout.segments[i].row_count;
  }
}

std::vector<std::unique_ptr<Sequence>> Scheduler::take_if(const std::function<bool(Sequence&)>& ended) {
  std::vector<std::unique_ptr<Sequence>> taken;
  const auto take = [&](std::unique_ptr<Sequence>& sequence) {
    if (!ended(*sequence)) return false;
    taken.push_back(std::move(sequence));
    return true;
  };
  std::erase_if(waiting_, take);
  const size_t were_waiting = taken.size();
  std::erase_if(running_, take);
  for (size_t i = were_waiting; i < taken.size(); ++i) {
    kv_.release(taken[i]->blocks);
    const auto count = running_by_caller_.find(taken[i]->caller);
    if (--count->second == 0) running_by_caller_.erase(count);
  }
  return taken;
}

}  // namespace expert
