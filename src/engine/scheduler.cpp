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
  batch.best_logits.clear();
  sequences.clear();
  output_rows.clear();
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  sequence->blocks.reserve(static_cast<size_t>(BlockPool::blocks_for(sequence->max_positions())));
  line_.add(std::move(sequence));
}

bool Scheduler::stalled() const noexcept {
  return running_.empty() && std::ranges::none_of(line_.waiting(), [](const auto& waiting) { return waiting->resident(); });
}

// --- admission ------------------------------------------------------------------------------------------------------

// Blocks for the tokens it has and a block's worth of what comes.
int32_t Scheduler::blocks_next(const Sequence& sequence) const {
  return BlockPool::blocks_for(std::min<int64_t>(int64_t{sequence.positions()} + kKvBlockTokens, sequence.max_positions()));
}

void Scheduler::admit(Clock::time_point now) {
  while (Sequence* first = line_.first(now)) {
    const bool seat = running_.size() < static_cast<size_t>(options_.max_batch);
    if (seat && fits(*first)) {
      enter(first, now);
    } else if (!make_way(*first, now)) {
      return;
    }
  }
}

// True: it holds the blocks of its tokens that the cache knows, and there are enough for the others. At least one token
// is left to compute, since it is the output at the last one that is wanted.
bool Scheduler::fits(Sequence& sequence) {
  if (sequence.prefix && sequence.rows() == Sequence::Rows::last) {
    const auto tokens_of = [&](int32_t block) { return sequence.block_tokens(block); };
    pool_.share_prefix(*sequence.prefix, (sequence.positions() - 1) / kKvBlockTokens, tokens_of, sequence.blocks);
  }
  int64_t needed = blocks_next(sequence) - static_cast<int64_t>(sequence.blocks.size());
  for (const auto& other : running_) {
    needed += std::max<int64_t>(0, blocks_next(*other) - static_cast<int64_t>(other->blocks.size()));
  }
  if (needed <= pool_.available()) return true;
  give_back(sequence);
  return false;
}

void Scheduler::enter(Sequence* first, Clock::time_point now) {
  const bool again = first->preemptions > 0;
  first->published = static_cast<int32_t>(first->blocks.size());
  const int32_t found = first->published * kKvBlockTokens;
  ++stats_.admissions;
  if (again) {
    stats_.recomputed_tokens += static_cast<uint64_t>(std::max(0, first->computed - found));
  } else {
    first->cached_tokens = std::max(0, found - first->virtual_rows());
    if (first->prefix && first->rows() == Sequence::Rows::last) {
      ++stats_.prefix_lookups;
      stats_.prefix_hits += found > 0 ? 1 : 0;
      stats_.prompt_tokens += first->tokens().size();
      stats_.cached_tokens += static_cast<uint64_t>(first->cached_tokens);
    }
    first->on_admitted(now);
  }
  first->computed = found;
  std::unique_ptr<Sequence> sequence = line_.admit(first, now);
  const auto rank = [](const Sequence& s) { return std::tuple(-s.level, s.arrival); };
  const auto place = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& other) { return rank(*sequence) < rank(*other); });
  running_.insert(place, std::move(sequence));
}

// Waiting adds to the rank of those that run, and never makes one a reason to preempt another.
bool Scheduler::make_way(const Sequence& first, Clock::time_point now) {
  if (running_.empty() || running_.back()->level >= first.priority) return false;
  preempt_last(now);
  return true;
}

void Scheduler::preempt_last(Clock::time_point now) {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  ++stats_.preemptions;
  ++sequence->preemptions;
  give_back(*sequence);
  sequence->on_preempted(now);
  line_.put_back(std::move(sequence));
}

// --- a step ---------------------------------------------------------------------------------------------------------

// Blocks for its next rows, as far as the pool has them; false: not for all.
bool Scheduler::grow(Sequence& sequence, int32_t rows) {
  const auto wanted = static_cast<size_t>(BlockPool::blocks_for(sequence.computed + rows));
  while (sequence.blocks.size() < wanted) {
    const int32_t block = pool_.take();
    if (block < 0) return false;
    sequence.blocks.push_back(block);
  }
  return true;
}

int32_t Scheduler::rows_for(Sequence& sequence, size_t rank, int32_t budget, Clock::time_point now) {
  const bool every_logit = sequence.rows() == Sequence::Rows::all && sequence.output() == Sequence::Output::logits;
  const int32_t most = sequence.pending() == 1 ? 1 : std::min(budget, every_logit ? kMaxLogitRows : budget);
  const int32_t rows = std::min(sequence.pending(), most);
  while (!grow(sequence, rows)) {
    if (running_.size() == rank + 1) break;  // nobody stands behind it
    preempt_last(now);
  }
  return std::min(rows, static_cast<int32_t>(sequence.blocks.size()) * kKvBlockTokens - sequence.computed);
}

// Soft-prompt rows stand at the positions before the first token. Nobody asks for their output.
void Scheduler::place(Sequence& sequence, PlannedBatch& planned) {
  constexpr int32_t kPlaceHolder = 0;
  BatchLayout& layout = planned.batch.layout;
  const int32_t rows = sequence.step_rows;
  const auto first_row = static_cast<int32_t>(layout.token_ids.size());
  const int32_t given = std::clamp(sequence.virtual_rows() - sequence.computed, 0, rows);
  const bool completes = rows == sequence.pending();
  const int32_t wanted = sequence.rows() == Sequence::Rows::all ? rows - given : completes ? 1 : 0;
  for (int32_t row = 0; row < rows; ++row) {
    const int32_t position = sequence.computed + row;
    const int32_t token = position - sequence.virtual_rows();
    layout.token_ids.push_back(token < 0 ? kPlaceHolder : sequence.tokens()[static_cast<size_t>(token)]);
    layout.positions.push_back(position);
    if (row < rows - wanted) continue;
    planned.batch.logit_rows.push_back(first_row + row);
    planned.batch.best_logits.push_back(sequence.best_logits());
  }
  if (given > 0) {
    planned.batch.given_rows.push_back(
        {first_row, sequence.adapters()->soft_prompt().row_range(sequence.computed, given)});
  }
  const auto blocks = static_cast<size_t>(BlockPool::blocks_for(sequence.computed + rows));
  layout.segments.push_back({first_row, rows, sequence.computed, std::span(sequence.blocks).first(blocks)});
  planned.batch.adapters.push_back(sequence.adapters());
  planned.sequences.push_back(&sequence);
  planned.output_rows.push_back(wanted);
}

void Scheduler::plan(StepPlan& plan, Clock::time_point now) {
  plan.logits.clear();
  plan.hidden.clear();
  // Blocks first, by rank: whoever is preempted here stands behind, and is not placed yet.
  int32_t budget = options_.prefill_tokens;
  for (size_t rank = 0; rank < running_.size(); ++rank) {
    Sequence& sequence = *running_[rank];
    sequence.step_rows = 0;
    if (sequence.pending() > 1 && budget == 0) continue;
    sequence.step_rows = rows_for(sequence, rank, budget, now);
    if (sequence.pending() > 1) budget -= sequence.step_rows;
  }
  const auto place_those = [&](bool decoding) {
    for (const auto& sequence : running_) {
      if (sequence->step_rows == 0 || (sequence->pending() == 1) != decoding) continue;
      place(*sequence, sequence->output() == Sequence::Output::hidden ? plan.hidden : plan.logits);
    }
  };
  place_those(true);
  place_those(false);
}

void Scheduler::plan_alone(Sequence& sequence, PlannedBatch& planned) {
  planned.clear();
  place(sequence, planned);
}

void Scheduler::advance(const PlannedBatch& planned) {
  for (size_t i = 0; i < planned.sequences.size(); ++i) {
    Sequence& sequence = *planned.sequences[i];
    sequence.computed += planned.batch.layout.segments[i].row_count;
    if (!sequence.prefix) continue;
    for (; (sequence.published + 1) * kKvBlockTokens <= sequence.computed; ++sequence.published) {
      const auto at = static_cast<size_t>(sequence.published);
      const int32_t parent = at == 0 ? -1 : sequence.blocks[at - 1];
      sequence.blocks[at] =
          pool_.publish(sequence.blocks[at], *sequence.prefix, parent, sequence.block_tokens(sequence.published));
    }
  }
}

// The last block first: block_pool.h says why.
void Scheduler::give_back(Sequence& sequence) {
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) pool_.release(*block);
  sequence.blocks.clear();
  sequence.published = 0;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::take_if(const std::function<bool(Sequence&)>& ended) {
  std::vector<std::unique_ptr<Sequence>> taken;
  line_.take_if(ended, taken);
  std::erase_if(running_, [&](std::unique_ptr<Sequence>& sequence) {
    if (!ended(*sequence)) return false;
    give_back(*sequence);
    line_.leave(*sequence);
    taken.push_back(std::move(sequence));
    return true;
  });
  return taken;
}

}  // namespace expert
