// The host tier of experts without files or threads: who is in memory, who waits, what is dropped, what is read next.
#include "engine/expert_cache.h"

#include <doctest/doctest.h>

#include <map>

#include "support/expect_error.h"

using namespace expert;
using namespace expert::test;

namespace {

using State = ExpertLease::State;
using Use = ExpertCache::Use;

// Experts by name, and a loader that does what it is told.
struct Bench {
  ExpertCache cache;
  std::map<std::string, ExpertCardPtr> cards;
  std::vector<std::string> read;

  explicit Bench(uint64_t budget, uint64_t memory_limit = 0) : cache({budget, memory_limit}) {}

  ExpertCardPtr card(const std::string& name, uint64_t bytes = 10) {
    ExpertCardPtr& card = cards[name];
    if (!card) {
      auto made = std::make_shared<ExpertCard>();
      made->key = made->name = name;
      made->bytes = bytes;
      card = made;
    }
    return card;
  }
  ExpertPtr data(const std::string& name) { return std::make_shared<const ExpertData>(ExpertData{nullptr, nullptr, card(name)}); }
  ExpertNeed need(const std::string& name, const std::string& path = "here") {
    return {card(name), 1.0F, {path, std::nullopt}, nullptr, false};
  }
  std::shared_ptr<ExpertLease> claim(const std::vector<std::string>& names, const std::string& path = "here") {
    std::vector<ExpertNeed> needs;
    for (const std::string& name : names) needs.push_back(need(name, path));
    const ExpertCache::Claim claim = cache.claim(std::move(needs));
    if (claim.to_form) cache.formed(*claim.lease, nullptr);
    return claim.lease;
  }
  // Does one piece of work; false: there is none.
  bool work() {
    const auto next = cache.next();
    if (!next) return false;
    if (next->to_form) {
      cache.formed(*next->to_form, nullptr);
    } else {
      read.push_back(next->card->name);
      cache.loaded(data(next->card->name));
    }
    return true;
  }
  void work_off() {
    while (work()) {
    }
  }
};

}  // namespace

TEST_CASE("what was used longest ago goes first; what a request uses stays") {
  Bench bench(30);
  auto a = bench.claim({"a"});
  CHECK(a->state() == State::waiting);
  bench.work_off();
  CHECK(a->state() == State::ready);
  bench.claim({"b"});  // released at once, nobody reads it
  CHECK(bench.cache.stats().bytes == 10);
  auto b = bench.claim({"b"});
  auto c = bench.claim({"c"});
  bench.work_off();
  b.reset();
  c.reset();
  auto d = bench.claim({"d"});  // in place of b: a is used, c was used later
  bench.work_off();
  CHECK(d->state() == State::ready);
  CHECK(bench.cache.stats().evictions == 1);
  CHECK(bench.cache.stats().evicted_bytes == 10);
  c = bench.claim({"c"});
  CHECK(c->state() == State::ready);  // still there
  CHECK(bench.cache.stats().hits == 1);
  auto e = bench.claim({"e"});
  bench.work_off();
  CHECK(e->state() == State::waiting);  // all of it is used
  CHECK(bench.cache.stats().waiting == 1);
  CHECK(bench.cache.stats().used_bytes == 30);
  a->release();
  bench.work_off();
  CHECK(e->state() == State::ready);
  CHECK(bench.cache.stats().used_bytes == 30);
  CHECK(bench.cache.stats().loads == 5);
}

TEST_CASE("a request gets all its experts or none, so two that need much do not hold each other") {
  Bench bench(20);
  auto one = bench.claim({"a", "b"});
  auto two = bench.claim({"c", "d"});
  bench.work_off();
  CHECK(one->state() == State::ready);
  CHECK(two->state() == State::waiting);
  CHECK(bench.read == std::vector<std::string>{"a", "b"});
  one->release();
  bench.work_off();
  CHECK(two->state() == State::ready);
  EXPECT_ERROR(out_of_memory, "need 30 bytes, expert_cache_bytes is 20", bench.claim({"a", "b", "c"}));
  two->release();
  CHECK(bench.cache.stats().pinned == 0);
}

TEST_CASE("while the first that waits has no room nobody overtakes it; the order is the waiting line's") {
  Bench bench(20);
  auto running = bench.claim({"a", "b"});
  bench.work_off();
  auto wide = bench.claim({"c", "d"});
  auto narrow = bench.claim({"a"});  // its expert is there, and would be for ever
  bench.work_off();
  CHECK(narrow->state() == State::waiting);
  running->release();
  bench.work_off();
  CHECK(wide->state() == State::ready);
  CHECK(narrow->state() == State::waiting);
  auto urgent = bench.claim({"b"});
  const std::vector<ExpertLease*> order = {urgent.get(), narrow.get()};
  bench.cache.put_in_order(order);
  wide->release();
  bench.read.clear();
  bench.work_off();
  CHECK(bench.read == std::vector<std::string>{"b", "a"});
  CHECK(narrow->state() == State::ready);
  CHECK(urgent->state() == State::ready);
}

TEST_CASE("an expert that cannot be read ends those that asked for it there, and nobody else") {
  Bench bench(100);
  auto first = bench.claim({"a", "x"}, "gone");
  auto same = bench.claim({"x"}, "gone");
  auto elsewhere = bench.claim({"x"}, "here");
  auto other = bench.claim({"a"}, "here");
  auto work = bench.cache.next();
  while (work && (work->to_form || work->card->name != "x")) {
    if (work->to_form) {
      bench.cache.formed(*work->to_form, nullptr);
    } else {
      bench.cache.loaded(bench.data(work->card->name));
    }
    work = bench.cache.next();
  }
  REQUIRE(work);
  CHECK(work->source.path == "gone");
  bench.cache.not_loaded(*work, Error(ErrorCode::load, "gone: no such file"));
  CHECK(first->state() == State::failed);
  CHECK(same->state() == State::failed);
  CHECK(std::string(same->error().what()) == "gone: no such file");
  CHECK(elsewhere->state() == State::waiting);
  bench.work_off();
  CHECK(elsewhere->state() == State::ready);
  CHECK(other->state() == State::ready);
  CHECK(bench.cache.stats().failures == 1);
  elsewhere->release();
  other->release();
  CHECK(bench.cache.stats().pinned == 0);
}

TEST_CASE("a request that ends while its expert is read gives its room back") {
  Bench bench(20);
  auto lease = bench.claim({"a", "b"});
  const auto work = bench.cache.next();
  REQUIRE(work);
  lease.reset();
  CHECK(bench.cache.stats().bytes == 10);  // b is forgotten, a is being read
  bench.cache.loaded(bench.data(work->card->name));
  CHECK(bench.cache.stats().experts == 1);  // kept: the reading is paid for
  CHECK_FALSE(bench.work());

  auto failing = bench.claim({"c"});
  const auto reading = bench.cache.next();
  REQUIRE(reading);
  failing.reset();
  bench.cache.not_loaded(*reading, Error(ErrorCode::load, "gone"));
  CHECK(bench.cache.stats().bytes == 10);

  auto forming = bench.claim({"d"});
  CHECK(bench.work());
  const auto form = bench.cache.next();
  REQUIRE(form);
  REQUIRE(form->to_form);
  forming->release();
  CHECK(bench.cache.stats().pinned == 1);  // whoever forms the set still needs it
  bench.cache.formed(*form->to_form, nullptr);
  CHECK(bench.cache.stats().pinned == 0);
}

TEST_CASE("what is loaded by hand stays and is not counted; unloaded, it goes with its last request") {
  Bench bench(10, 40);
  REQUIRE(bench.cache.reserve(10, Use::by_hand));
  const ExpertPtr hand = bench.cache.add(bench.data("hand"), 10, Use::by_hand);
  auto a = bench.claim({"a"});
  bench.work_off();
  CHECK(a->state() == State::ready);
  CHECK(bench.cache.stats().bytes == 20);
  CHECK(bench.cache.stats().used_bytes == 10);
  auto lease = bench.claim({"hand"});
  CHECK(lease->state() == State::ready);
  bench.cache.drop_handle(*hand);
  CHECK(bench.cache.stats().experts == 2);
  lease->release();
  CHECK(bench.cache.stats().experts == 1);
  REQUIRE(bench.cache.reserve(20, Use::by_hand));
  EXPECT_ERROR(out_of_memory, "30 of the 40 bytes left for experts by memory_limit", bench.cache.reserve(20, Use::by_hand));
  bench.cache.give_back(20, Use::by_hand);
  CHECK_FALSE(bench.cache.reserve(10, Use::by_request));  // a is used
  CHECK(bench.cache.stats().bytes == 10);
}

TEST_CASE("an expert that turns out larger than it looked waits for the room it needs") {
  Bench bench(20);
  auto a = bench.claim({"a"});
  auto b = bench.claim({"b"});
  CHECK(bench.work());
  const auto work = bench.cache.next();
  auto next = work;
  while (next && next->to_form) {
    bench.cache.formed(*next->to_form, nullptr);
    next = bench.cache.next();
  }
  REQUIRE(next);
  bench.card("b")->bytes = 15;
  bench.cache.loaded(bench.data("b"));
  CHECK(b->state() == State::waiting);
  CHECK(bench.cache.stats().used_bytes <= 20);
  a->release();
  bench.work_off();
  CHECK(b->state() == State::ready);
  CHECK(bench.cache.stats().used_bytes <= 20);
}

TEST_CASE("closing ends every claim that waits, and the work") {
  Bench bench(10);
  auto ready = bench.claim({"a"});
  bench.work_off();
  auto waiting = bench.claim({"b"});
  bench.cache.close();
  CHECK(ready->state() == State::ready);
  CHECK(waiting->state() == State::failed);
  CHECK(waiting->error().code() == ErrorCode::closed);
  EXPECT_ERROR(closed, "was closed", waiting->wait());
  EXPECT_ERROR(closed, "was closed", bench.claim({"c"}));
  CHECK_FALSE(bench.cache.next());
  CHECK_FALSE(bench.cache.wait_for_next());
  ready->release();
  CHECK(bench.cache.stats().pinned == 0);
}
