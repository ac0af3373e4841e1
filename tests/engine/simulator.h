// The scheduler without a model, in virtual time: a step writes into a picture of the KV cache what a model would have
// put there, and reads its past back through the block table. So a block that two prefixes share by mistake, one that
// is written while others use it, a wrong position or a lost token is found where it happens.
#pragma once

#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/expert_cache.h"
#include "engine/scheduler.h"

namespace expert::test {

inline uint64_t stir(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// A request whose next token is a function of its set of experts and everything before.
class SimSequence final : public Sequence {
 public:
  SimSequence(std::vector<int32_t> prompt, int32_t answer, uint64_t set, bool shares,
              std::shared_ptr<ExpertLease> experts = nullptr)
      : Sequence(std::move(prompt), std::move(experts)), positions_(static_cast<int64_t>(tokens_.size()) + answer) {
    if (shares) prefix = prefix_root({"sim", std::to_string(set), "", ""});
    states_.push_back(stir(set + 1));
    note_states();
    tokens_.reserve(static_cast<size_t>(positions_) + 1);
  }

  int64_t max_positions() const noexcept override { return positions_; }
  void on_admitted(Clock::time_point now) override {
    if (admitted) throw std::logic_error("admitted twice");
    if (!resident()) throw std::logic_error("admitted without its experts");
    admitted = true;
    admitted_at = now;
  }
  bool on_rows(std::span<float>, Clock::time_point) override { return false; }
  bool ends_now(Clock::time_point) override { return false; }
  void on_close() override {}
  void on_error(const Error&) override {}
  void deliver_end() override {}

  // What the model's state is behind the first `count` tokens; the truth, computed without any cache.
  uint64_t state(size_t count) const { return states_.at(count); }
  uint64_t next_state(uint64_t before, int32_t token) const { return stir(before + static_cast<uint32_t>(token) + 7); }
  void generate(uint64_t from_state) {
    tokens_.push_back(static_cast<int32_t>(stir(from_state) % 50));
    note_states();
  }
  bool failed() const { return why_not_resident() != nullptr; }
  bool complete() const { return static_cast<int64_t>(tokens_.size()) >= positions_; }

  bool admitted = false;
  bool leave = false;
  Clock::time_point admitted_at{};

 private:
  void note_states() {
    while (states_.size() <= tokens_.size()) {
      states_.push_back(next_state(states_.back(), tokens_[states_.size() - 1]));
    }
  }

  int64_t positions_;
  std::vector<uint64_t> states_;  // behind 0, 1, 2, … tokens
};

// Experts on a disk that takes some steps for each of them, and now and then cannot read one.
class SimExperts {
 public:
  explicit SimExperts(uint64_t budget) : budget_(budget), cache({budget, 0}) {}

  void define(int32_t expert, uint64_t bytes) {
    auto card = std::make_shared<ExpertCard>();
    card->key = card->name = std::to_string(expert);
    card->bytes = bytes;
    cards_[expert] = std::move(card);
  }
  std::shared_ptr<ExpertLease> claim(const std::vector<int32_t>& experts) {
    std::vector<ExpertNeed> needs;
    for (const int32_t expert : experts) needs.push_back({cards_.at(expert), 1.0F, {"disk", std::nullopt}, nullptr, false});
    const ExpertCache::Claim claim = cache.claim(std::move(needs));
    if (claim.to_form) cache.formed(*claim.lease, nullptr);
    return claim.lease;
  }
  void advance() {
    if (reading_ && --left_ <= 0) finish();
    while (!reading_) {
      const auto work = cache.next();
      if (!work) break;
      if (work->to_form) {
        cache.formed(*work->to_form, nullptr);
      } else {
        reading_ = work;
        left_ = static_cast<int32_t>(fastest + rng_() % (slowest - fastest + 1));
        order.push_back(work->card->name);
      }
    }
    const ExpertCacheStats stats = cache.stats();
    if (stats.used_bytes > budget_) throw std::logic_error("more experts than the budget allows");
    if (stats.bytes != stats.used_bytes) throw std::logic_error("bytes that nobody counts");
  }

  uint64_t fastest = 1, slowest = 8;  // steps of one reading
  uint64_t fails_one_in = 0;          // readings; 0: none
  std::vector<std::string> order;  // of the readings

 private:
  void finish() {
    if (fails_one_in != 0 && rng_() % fails_one_in == 0) {
      cache.not_loaded(*reading_, Error(ErrorCode::load, "cannot be read"));
    } else {
      cache.loaded(std::make_shared<const ExpertData>(ExpertData{nullptr, nullptr, reading_->card}));
    }
    reading_.reset();
  }

  const uint64_t budget_;
  std::map<int32_t, ExpertCardPtr> cards_;
  std::optional<ExpertWork> reading_;
  int32_t left_ = 0;
  std::mt19937_64 rng_{7};

 public:
  ExpertCache cache;
};

class Simulator {
 public:
  explicit Simulator(const SchedulerOptions& options)
      : options_(options),
        scheduler(options),
        cache_(static_cast<size_t>(options.kv_blocks) * kKvBlockTokens) {}

  // One step of the engine. `fails`: the forward throws half way, and its requests end.
  void step(bool fails = false) {
    if (experts != nullptr) bring_experts();
    scheduler.admit(now);
    check_budget();
    scheduler.plan(plan_);
    check_plan();
    forward(plan_.logits, fails);
    ++steps;
    if (fails) {
      for (Sequence* sequence : plan_.logits.sequences) static_cast<SimSequence*>(sequence)->leave = true;
    } else {
      scheduler.advance(plan_.logits);
      deliver();
    }
    end([](SimSequence& sequence) { return sequence.leave; });
  }

  SimSequence* add(std::unique_ptr<SimSequence> sequence) {
    SimSequence* added = sequence.get();
    added->arrived = now;
    scheduler.add(std::move(sequence));
    ++submitted;
    return added;
  }

  template <typename Ended>
  size_t end(const Ended& ended) {
    const auto taken = scheduler.take_if([&](Sequence& s) { return ended(static_cast<SimSequence&>(s)); });
    for (const auto& sequence : taken) {
      if (!sequence->blocks.empty()) throw std::logic_error("an ended request holds blocks");
      if (on_end) on_end(static_cast<SimSequence&>(*sequence));
    }
    ended_count += taken.size();
    return taken.size();
  }

  // The pool against what the running requests hold.
  void check_pool(const std::vector<const Sequence*>& running) const {
    std::vector<int32_t> uses(static_cast<size_t>(options_.kv_blocks), 0);
    for (const Sequence* sequence : running) {
      for (const int32_t block : sequence->blocks) ++uses[static_cast<size_t>(block)];
    }
    int32_t used = 0;
    for (int32_t block = 0; block < options_.kv_blocks; ++block) {
      const int32_t count = uses[static_cast<size_t>(block)];
      if (scheduler.kv().uses(block) != count) throw std::logic_error("a block is counted wrongly");
      used += count > 0 ? 1 : 0;
    }
    if (scheduler.kv().used() != used) throw std::logic_error("blocks leaked");
  }

  std::vector<const Sequence*> planned() const {
    return {plan_.logits.sequences.begin(), plan_.logits.sequences.end()};
  }

 private:
  struct Slot {
    uint64_t state = 0;  // behind its token
    int32_t position = -1;
  };

  const SchedulerOptions options_;

 public:
  SimExperts* experts = nullptr;
  Scheduler scheduler;
  Clock::time_point now{};
  size_t submitted = 0, ended_count = 0, steps = 0, rows = 0, shared_reads = 0;
  int32_t most_running = 0;
  std::function<void(SimSequence&)> on_end;

 private:
  void bring_experts() {
    std::vector<ExpertLease*> wanted;
    for (const Sequence* sequence : scheduler.line().without_experts(now)) wanted.push_back(sequence->experts());
    experts->cache.put_in_order(wanted);
    experts->advance();
    end([](SimSequence& sequence) { return sequence.failed(); });
  }

  Slot& slot(const Segment& segment, int32_t position) {
    const int32_t block = segment.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    return cache_[static_cast<size_t>(block * kKvBlockTokens + position % kKvBlockTokens)];
  }

  void check_budget() {
    most_running = std::max(most_running, static_cast<int32_t>(scheduler.running()));
    if (scheduler.running() > static_cast<size_t>(options_.max_batch)) throw std::logic_error("too many run");
    const BlockPoolStats blocks = scheduler.kv().stats();
    if (blocks.used > blocks.total || blocks.kept > options_.most_kept) throw std::logic_error("too many blocks");
  }

  void check_plan() {
    int32_t prefill = 0;
    for (const Segment& segment : plan_.logits.batch.layout.segments) prefill += segment.row_count > 1 ? segment.row_count : 0;
    if (prefill > options_.prefill_tokens) throw std::logic_error("more rows than a step may have");
    if (plan_.logits.empty() && !scheduler.stalled()) throw std::logic_error("nothing goes on");
  }

  void forward(const PlannedBatch& planned, bool fails) {
    states_.clear();
    const BatchLayout& layout = planned.batch.layout;
    for (size_t i = 0; i < planned.sequences.size(); ++i) {
      const auto& sequence = static_cast<const SimSequence&>(*planned.sequences[i]);
      const Segment& segment = layout.segments[i];
      uint64_t state = sequence.state(0);
      for (int32_t row = 0; row < (fails ? segment.row_count / 2 : segment.row_count); ++row) {
        const int32_t position = segment.first_position + row;
        if (position > 0) state = read(sequence, segment, position - 1);
        state = sequence.next_state(state, layout.token_ids[static_cast<size_t>(segment.first_row + row)]);
        write(segment, position, state);
        ++rows;
      }
      if (!fails) look_back(sequence, segment);
      states_.push_back(state);
    }
  }

  uint64_t read(const SimSequence& sequence, const Segment& segment, int32_t position) {
    const Slot& from = slot(segment, position);
    if (from.position != position || from.state != sequence.state(static_cast<size_t>(position) + 1)) {
      throw std::logic_error("a request reads what is not its own past");
    }
    return from.state;
  }

  void write(const Segment& segment, int32_t position, uint64_t state) {
    const int32_t block = segment.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    if (scheduler.kv().uses(block) != 1) throw std::logic_error("a block that others use is written");
    if (scheduler.kv().index().contains(block)) throw std::logic_error("a block that can be found is written");
    slot(segment, position) = {state, position};
  }

  // Attention reads all of the past: one place of it every time, the whole of it now and then.
  void look_back(const SimSequence& sequence, const Segment& segment) {
    const int32_t end = segment.first_position + segment.row_count;
    if (rng_() % 16 != 0) {
      read(sequence, segment, static_cast<int32_t>(rng_() % static_cast<uint64_t>(end)));
      return;
    }
    for (int32_t position = 0; position < end; ++position) read(sequence, segment, position);
  }

  void deliver() {
    for (size_t i = 0; i < plan_.logits.sequences.size(); ++i) {
      if (plan_.logits.output_rows[i] == 0) continue;
      auto& sequence = static_cast<SimSequence&>(*plan_.logits.sequences[i]);
      sequence.generate(states_[i]);
      sequence.leave = sequence.complete();
    }
  }

  std::vector<Slot> cache_;
  std::vector<uint64_t> states_;  // behind the last row of each segment
  StepPlan plan_;
  std::mt19937_64 rng_{99};
};

}  // namespace expert::test
