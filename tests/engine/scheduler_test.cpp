// Blocks and order under random admissions, cancellations and ends; no model involved.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "engine/scheduler.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>

using namespace expert;

namespace {

class Probe final : public Sequence {
 public:
  Probe(int32_t prompt, int32_t answer, Output output = Output::logits, Rows rows = Rows::last)
      : Sequence(std::vector<int32_t>(static_cast<size_t>(prompt), 1), nullptr),
        positions_(prompt + answer),
        output_(output),
        rows_(rows) {}
  int64_t max_positions() const noexcept override { return positions_; }
  Output output() const noexcept override { return output_; }
  Rows rows() const noexcept override { return rows_; }
  void on_admitted(Clock::time_point) override { admitted = true; }
  bool on_rows(std::span<float>, Clock::time_point) override { return false; }
  bool ends_now(Clock::time_point) override { return false; }
  void on_close() override {}
  void on_error(const Error&) override {}
  void deliver_end() override {}
  void generate() { tokens_.push_back(2); }

  bool admitted = false;
  bool leave = false;

 private:
  int64_t positions_;
  Output output_;
  Rows rows_;
};

Probe& of(Sequence* sequence) { return static_cast<Probe&>(*sequence); }

}  // namespace

TEST_CASE("blocks are taken at once, given back whole, and never twice") {
  KvAllocator kv(4);
  std::vector<int32_t> a, b;
  CHECK(kv.allocate(3, a));
  CHECK_FALSE(kv.allocate(2, b));
  CHECK(b.empty());
  CHECK(kv.used() == 3);
  std::vector<int32_t> copy = a;
  kv.release(a);
  CHECK(a.empty());
  CHECK(kv.used() == 0);
  CHECK_THROWS_AS(kv.release(copy), Error);
  std::vector<int32_t> stranger = {99};
  CHECK_THROWS_AS(kv.release(stranger), Error);
  CHECK(KvAllocator::blocks_for(0) == 0);
  CHECK(KvAllocator::blocks_for(16) == 1);
  CHECK(KvAllocator::blocks_for(17) == 2);
}

TEST_CASE("admission: priority, then the caller with fewest running, then arrival; nobody overtakes the first") {
  Scheduler scheduler(8, 3);
  std::map<std::string, Probe*> probes;
  const auto add = [&](const std::string& name, int32_t priority, const std::string& caller, int32_t tokens) {
    auto probe = std::make_unique<Probe>(tokens, 0);
    probe->priority = priority;
    probe->caller = caller;
    probes[name] = probe.get();
    scheduler.add(std::move(probe));
  };
  add("a1", 0, "alice", 16);
  add("a2", 0, "alice", 16);
  add("b1", 0, "bob", 16);
  add("urgent", 5, "alice", 16);
  scheduler.admit({});
  CHECK(probes["urgent"]->admitted);
  CHECK(probes["b1"]->admitted);  // alice has one running already
  CHECK(probes["a1"]->admitted);
  CHECK_FALSE(probes["a2"]->admitted);  // max_batch

  Scheduler small(2, 8);
  auto large = std::make_unique<Probe>(32, 0);
  auto larger = std::make_unique<Probe>(32, 0);
  auto little = std::make_unique<Probe>(1, 0);
  Probe* first = large.get();
  Probe* second = larger.get();
  Probe* third = little.get();
  small.add(std::move(large));
  small.add(std::move(larger));
  small.add(std::move(little));
  small.admit({});
  CHECK(first->admitted);
  CHECK_FALSE(second->admitted);
  CHECK_FALSE(third->admitted);  // waits behind the one that does not fit
  CHECK(small.take_if([&](Sequence& s) { return &s == first; }).size() == 1);
  small.admit({});
  CHECK(second->admitted);
}

TEST_CASE("a step: decoders first, then prompts up to the budget, logits only where they are wanted") {
  Scheduler scheduler(1000, 8);
  auto decoding = std::make_unique<Probe>(20, 20);
  Probe* decoder = decoding.get();
  scheduler.add(std::move(decoding));
  scheduler.admit({});
  StepPlan plan;
  scheduler.plan(plan);
  REQUIRE(plan.logits.sequences.size() == 1);
  CHECK(plan.logits.batch.layout.token_ids.size() == 20);
  CHECK(plan.logits.batch.logit_rows == std::vector<int32_t>{19});
  scheduler.advance(plan.logits);
  decoder->generate();

  scheduler.add(std::make_unique<Probe>(700, 1));
  scheduler.add(std::make_unique<Probe>(100, 1, Sequence::Output::logits, Sequence::Rows::all));
  scheduler.add(std::make_unique<Probe>(30, 0, Sequence::Output::hidden, Sequence::Rows::all));
  scheduler.admit({});
  scheduler.plan(plan);
  REQUIRE(plan.logits.sequences.size() == 2);
  CHECK(plan.logits.sequences[0] == decoder);
  CHECK(plan.logits.batch.layout.segments[1].row_count == kPrefillTokens);
  CHECK(plan.logits.batch.layout.segments[1].block_table.size() == kPrefillTokens / 16);
  CHECK(plan.logits.batch.logit_rows == std::vector<int32_t>{0});  // the prompt goes on
  CHECK(plan.hidden.empty());
  scheduler.advance(plan.logits);
  decoder->generate();

  scheduler.plan(plan);
  REQUIRE(plan.logits.sequences.size() == 3);
  CHECK(plan.logits.batch.layout.segments[1].row_count == 700 - kPrefillTokens);
  CHECK(plan.logits.batch.layout.segments[2].row_count == kMaxLogitRows);
  CHECK(plan.logits.output_rows == std::vector<int32_t>{1, 1, kMaxLogitRows});
  REQUIRE(plan.hidden.sequences.size() == 1);
  CHECK(plan.hidden.output_rows == std::vector<int32_t>{30});
}

TEST_CASE("random admissions, cancellations and ends leak no block and share none") {
  std::mt19937_64 rng(17);
  Scheduler scheduler(40, 6);
  StepPlan plan;
  size_t alive = 0, ended = 0;
  for (int round = 0; round < 5000; ++round) {
    if (rng() % 3 == 0) {
      auto probe = std::make_unique<Probe>(1 + static_cast<int32_t>(rng() % 300), 1 + static_cast<int32_t>(rng() % 40));
      probe->priority = static_cast<int32_t>(rng() % 3);
      probe->caller = std::string(1, static_cast<char>('a' + rng() % 3));
      scheduler.add(std::move(probe));
      ++alive;
    }
    scheduler.admit({});
    scheduler.plan(plan);
    std::set<int32_t> blocks;
    for (const Segment& segment : plan.logits.batch.layout.segments) {
      REQUIRE(static_cast<int32_t>(segment.block_table.size()) * kKvBlockTokens >=
              segment.first_position + segment.row_count);
      for (const int32_t block : segment.block_table) REQUIRE(blocks.insert(block).second);
    }
    scheduler.advance(plan.logits);
    for (size_t i = 0; i < plan.logits.sequences.size(); ++i) {
      Probe& probe = of(plan.logits.sequences[i]);
      if (plan.logits.output_rows[i] == 0) continue;
      probe.generate();
      probe.leave = static_cast<int64_t>(probe.tokens().size()) >= probe.max_positions();
    }
    const auto taken = scheduler.take_if([&](Sequence& s) { return of(&s).leave || rng() % 50 == 0; });
    ended += taken.size();
    REQUIRE(scheduler.running() + scheduler.waiting() == alive - ended);
    for (const auto& sequence : taken) REQUIRE(sequence->blocks.empty());
  }
  CHECK(ended > 500);
  scheduler.take_if([](Sequence&) { return true; });
  CHECK(scheduler.idle());
  CHECK(scheduler.kv().used() == 0);
}
