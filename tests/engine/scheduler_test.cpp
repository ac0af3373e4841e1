// Blocks and order under random admissions, cancellations and ends; no model involved.
#include "engine/scheduler.h"

#include <doctest/doctest.h>

#include <map>
#include <numeric>

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

 private:
  int64_t positions_;
  Output output_;
  Rows rows_;
};

}  // namespace

TEST_CASE("blocks are counted: taken, shared, kept for their content, given back once") {
  BlockPool pool(3);
  const PrefixRoot root = prefix_root({"base", "", "", ""});
  std::vector<int32_t> tokens(32);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto part = [&](int32_t block) {
    return std::span<const int32_t>(tokens).subspan(static_cast<size_t>(block) * 16).first<16>();
  };
  const int32_t a = pool.take();
  const int32_t b = pool.take();
  CHECK(pool.publish(a, root, -1, part(0)) == a);
  CHECK(pool.publish(b, root, a, part(1)) == b);
  CHECK(pool.used() == 2);
  CHECK(pool.fresh() == 2);

  std::vector<int32_t> found;
  pool.share_prefix(root, 2, part, found);
  CHECK(found == std::vector<int32_t>{a, b});
  CHECK(pool.uses(a) == 2);
  for (const int32_t block : {b, a, b, a}) pool.release(block);
  CHECK_THROWS_AS(pool.release(a), Error);
  CHECK_THROWS_AS(pool.release(99), Error);
  CHECK(pool.used() == 0);
  CHECK(pool.kept() == 2);
  CHECK(pool.available() == 3);

  // Another root, or another token, finds nothing; a shorter prefix finds its part.
  found.clear();
  pool.share_prefix(prefix_root({"base", "set", "", ""}), 2, part, found);
  CHECK(found.empty());
  pool.share_prefix(root, 1, part, found);
  CHECK(found == std::vector<int32_t>{a});
  pool.release(a);

  // What was computed twice becomes one.
  const int32_t twin = pool.take();
  CHECK(pool.publish(twin, root, -1, part(0)) == a);
  CHECK(pool.uses(a) == 1);
  CHECK(pool.stats().deduplicated == 1);

  // The free block, then the kept one; the end of a chain before its beginning.
  pool.release(a);
  pool.take();
  CHECK(pool.take() == b);
  CHECK(pool.take() == a);
  CHECK(pool.take() == -1);
  CHECK(pool.stats().evictions == 2);
  CHECK(pool.index().size() == 0);
}

TEST_CASE("the cache keeps no more than it may") {
  BlockPool pool(8, 2);
  const PrefixRoot root = prefix_root({"base", "", "", ""});
  const std::vector<int32_t> tokens(64, 7);
  std::vector<int32_t> chain;
  for (int i = 0; i < 4; ++i) {
    chain.push_back(pool.take());
    pool.publish(chain.back(), root, i == 0 ? -1 : chain[static_cast<size_t>(i) - 1], std::span(tokens).first<16>());
  }
  for (auto block = chain.rbegin(); block != chain.rend(); ++block) pool.release(*block);
  CHECK(pool.kept() == 2);
  std::vector<int32_t> found;
  const auto part = [&](int32_t) { return std::span(tokens).first<16>(); };
  pool.share_prefix(root, 4, part, found);
  CHECK(found == std::vector<int32_t>{chain[0], chain[1]});

  BlockPool none(8, 0);
  const int32_t block = none.take();
  none.publish(block, root, -1, std::span(tokens).first<16>());
  none.release(block);
  CHECK(none.kept() == 0);
  CHECK(none.index().size() == 0);
}

TEST_CASE("every part of a prefix's name counts, and none runs into the next") {
  const PrefixRoot root = prefix_root({"b", "a", "s", "t"});
  CHECK(root == prefix_root({"b", "a", "s", "t"}));
  for (const PrefixKey& key : {PrefixKey{"B", "a", "s", "t"}, {"b", "A", "s", "t"}, {"b", "a", "S", "t"},
                               {"b", "a", "s", "T"}, {"ba", "", "s", "t"}, {"b", "a", "st", ""}}) {
    CHECK(prefix_root(key) != root);
  }
}

TEST_CASE("admission: priority, then the caller with fewest running, then arrival; nobody overtakes the first") {
  Scheduler scheduler({.kv_blocks = 8, .max_batch = 3});
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

  Scheduler small({.kv_blocks = 2, .max_batch = 8});
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
  Scheduler scheduler({.kv_blocks = 1000, .max_batch = 8});
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

