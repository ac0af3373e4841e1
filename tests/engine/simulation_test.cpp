// Properties of the scheduler, on a simulator in virtual time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <set>

#include "simulator.h"
#include "support/volume.h"

using namespace expert;
using namespace expert::test;
using namespace std::chrono_literals;

namespace {

// Prompts that begin alike, so that there is something to share.
std::vector<int32_t> prompt_of(std::mt19937_64& rng, size_t most) {
  std::vector<int32_t> tokens(1 + rng() % most);
  const uint64_t family = rng() % 3;
  const size_t common = rng() % tokens.size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i <= common ? stir(family * 1000 + i) % 50 : rng() % 50);
  }
  return tokens;
}

std::unique_ptr<SimSequence> request(std::mt19937_64& rng, size_t prompt, size_t answer) {
  auto sequence = std::make_unique<SimSequence>(prompt_of(rng, prompt), 1 + static_cast<int32_t>(rng() % answer),
                                                rng() % 6, rng() % 8 != 0);
  sequence->priority = static_cast<int32_t>(rng() % 4) - 1;
  sequence->caller = std::string(1, static_cast<char>('a' + rng() % 5));
  return sequence;
}

std::unique_ptr<SimSequence> plain(int32_t prompt, int32_t answer, std::string caller = {}, int32_t priority = 0) {
  auto sequence = std::make_unique<SimSequence>(std::vector<int32_t>(static_cast<size_t>(prompt), 1), answer, 0, false);
  sequence->caller = std::move(caller);
  sequence->priority = priority;
  return sequence;
}

}  // namespace

TEST_CASE("many operations at random: no crossing, no leak, no block given back twice, every request ends once") {
  size_t operations = 0, preemptions = 0, hits = 0, evictions = 0;
  const char* wanted = std::getenv("EXPERT_SIMULATION_OPERATIONS");
  const size_t most = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : thorough() ? size_t{1'000'000} : size_t{100'000};
  for (uint64_t seed = 1; operations < most; ++seed) {
    std::mt19937_64 rng(seed);
    SchedulerOptions options;
    options.kv_blocks = 20 + static_cast<int32_t>(rng() % 40);
    options.max_batch = 1 + static_cast<int32_t>(rng() % 8);
    options.prefill_tokens = 16 << rng() % 4;
    options.most_kept = seed % 4 == 0 ? static_cast<int32_t>(rng() % 10) : INT32_MAX;
    Simulator sim(options);
    std::set<const Sequence*> alive;
    sim.on_end = [&](SimSequence& sequence) {
      if (alive.erase(&sequence) != 1) throw std::logic_error("a request ended twice");
    };
    CAPTURE(seed);
    for (int round = 0; round < 4000; ++round) {
      sim.now += std::chrono::milliseconds(rng() % 50);
      if (rng() % 200 == 0) sim.now += std::chrono::hours(rng() % 3);
      if (rng() % 100 == 0) sim.now -= std::chrono::minutes(rng() % 30);
      while (rng() % 3 == 0) {
        alive.insert(sim.add(request(rng, 250, 60)));
        ++operations;
      }
      if (rng() % 20 == 0) sim.end([&](SimSequence&) { return rng() % 4 == 0; });
      REQUIRE_NOTHROW(sim.step(rng() % 300 == 0));
      operations += 4;  // admit, plan, advance, take
      if (round % 16 == 0) {
        std::vector<const Sequence*> holders(alive.begin(), alive.end());
        REQUIRE_NOTHROW(sim.check_pool(holders));
      }
      if (alive.size() > 60) sim.end([&](SimSequence&) { return rng() % 3 == 0; });
      REQUIRE(sim.scheduler.running() + sim.scheduler.waiting() == alive.size());
    }
    while (!sim.scheduler.idle()) REQUIRE_NOTHROW(sim.step());
    CHECK(alive.empty());
    CHECK(sim.ended_count == sim.submitted);
    CHECK(sim.scheduler.kv().used() == 0);
    CHECK(sim.scheduler.line().callers() == 0);
    preemptions += sim.scheduler.stats().preemptions;
    hits += sim.scheduler.stats().prefix_hits;
    evictions += sim.scheduler.kv().stats().evictions;
  }
  MESSAGE(operations << " operations, " << preemptions << " preemptions, " << hits << " prefix hits, " << evictions
                     << " evictions");
  CHECK(preemptions > operations / 10'000);
  CHECK(hits > operations / 1000);
  CHECK(evictions > operations / 1000);
}

TEST_CASE("experts that come late: no budget is exceeded, nobody waits for ever, every request ends once") {
  size_t operations = 0, waits = 0, evictions = 0, failures = 0;
  const char* wanted = std::getenv("EXPERT_SIMULATION_OPERATIONS");
  const size_t most = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) / 4 : 100'000;
  for (uint64_t seed = 1; operations < most; ++seed) {
    std::mt19937_64 rng(seed);
    SimExperts experts(10 + rng() % 20);
    for (int32_t i = 0; i < 12; ++i) experts.define(i, 1 + rng() % 4);
    experts.slowest = 1 + rng() % 30;
    experts.fails_one_in = seed % 3 == 0 ? 0 : 40;
    Simulator sim({.kv_blocks = 20 + static_cast<int32_t>(rng() % 40), .max_batch = 1 + static_cast<int32_t>(rng() % 8)});
    sim.experts = &experts;
    std::set<const Sequence*> alive;
    sim.on_end = [&](SimSequence& sequence) {
      if (alive.erase(&sequence) != 1) throw std::logic_error("a request ended twice");
    };
    CAPTURE(seed);
    for (int round = 0; round < 1500; ++round) {
      sim.now += std::chrono::milliseconds(rng() % 50);
      if (rng() % 200 == 0) sim.now += std::chrono::hours(rng() % 3);
      if (rng() % 100 == 0) sim.now -= std::chrono::minutes(rng() % 30);
      while (rng() % 3 == 0) {
        std::vector<int32_t> chosen;
        for (int32_t i = 0; i < 12 && chosen.size() < 2; ++i) {
          if (rng() % 8 == 0) chosen.push_back(i);
        }
        auto lease = chosen.empty() ? nullptr : experts.claim(chosen);
        waits += lease && lease->state() == ExpertLease::State::waiting ? 1 : 0;
        uint64_t set = 0;
        for (const int32_t expert : chosen) set = set * 12 + static_cast<uint64_t>(expert) + 1;
        auto sequence = std::make_unique<SimSequence>(prompt_of(rng, 100), 1 + static_cast<int32_t>(rng() % 30), set,
                                                      rng() % 8 != 0, std::move(lease));
        sequence->priority = static_cast<int32_t>(rng() % 4) - 1;
        sequence->caller = std::string(1, static_cast<char>('a' + rng() % 5));
        alive.insert(sim.add(std::move(sequence)));
        ++operations;
      }
      if (rng() % 20 == 0) sim.end([&](SimSequence&) { return rng() % 4 == 0; });
      REQUIRE_NOTHROW(sim.step(rng() % 300 == 0));
      operations += 4;
      if (alive.size() > 60) sim.end([&](SimSequence&) { return rng() % 3 == 0; });
      REQUIRE(sim.scheduler.running() + sim.scheduler.waiting() == alive.size());
    }
    for (int left = 100'000; !sim.scheduler.idle(); --left) {
      REQUIRE(left > 0);
      REQUIRE_NOTHROW(sim.step());
    }
    CHECK(alive.empty());
    CHECK(sim.ended_count == sim.submitted);
    const ExpertCacheStats stats = experts.cache.stats();
    CHECK(stats.pinned == 0);
    CHECK(stats.waiting == 0);
    evictions += stats.evictions;
    failures += stats.failures;
  }
  MESSAGE(operations << " operations, " << waits << " waited for experts, " << evictions << " evictions, " << failures
                     << " failures");
  CHECK(waits > 100);
  CHECK(evictions > 100);
  CHECK(failures > 10);
}

TEST_CASE("a stream of requests for experts that are there does not starve one whose expert is not") {
  SimExperts experts(10);
  experts.define(0, 6);
  experts.define(1, 6);  // they do not fit together
  Simulator sim({.kv_blocks = 64, .max_batch = 2, .ageing = 1s});
  sim.experts = &experts;
  const auto add = [&](int32_t expert, const char* caller, int32_t priority) {
    auto sequence = std::make_unique<SimSequence>(std::vector<int32_t>(20, 1), 5, 0, false, experts.claim({expert}));
    sequence->caller = caller;
    sequence->priority = priority;
    return sim.add(std::move(sequence));
  };
  add(0, "stream", 1);
  for (int i = 0; i < 20; ++i) sim.step();
  SimSequence* patient = add(1, "patient", 0);
  bool ended = false;
  sim.on_end = [&](SimSequence& sequence) { ended |= &sequence == patient; };
  int steps = 0;
  for (; steps < 2000 && !ended; ++steps) {
    while (sim.scheduler.waiting() < 8) add(0, "stream", 1);
    sim.now += 50ms;
    sim.step();
  }
  CHECK(ended);
  CHECK(steps < 200);  // one level of a second, two readings, and the work of those before it
}

TEST_CASE("experts are read in the order of the line, and whoever has no expert overtakes") {
  SimExperts experts(100);
  for (int32_t i = 0; i < 4; ++i) experts.define(i, 1);
  experts.fastest = experts.slowest = 5;
  Simulator sim({.kv_blocks = 64, .max_batch = 4});
  sim.experts = &experts;
  std::map<const SimSequence*, std::string> names;
  std::string order;
  sim.on_end = [&](SimSequence& sequence) { order += names[&sequence] + " "; };
  const auto add = [&](const char* name, std::vector<int32_t> needs, int32_t priority) {
    auto sequence = std::make_unique<SimSequence>(std::vector<int32_t>(16, 1), 2, 0, false,
                                                  needs.empty() ? nullptr : experts.claim(needs));
    sequence->priority = priority;
    names[sim.add(std::move(sequence))] = name;
  };
  add("first", {0}, 0);
  sim.step();  // its reading begins
  add("low", {1}, 0);
  add("high", {2}, 2);
  add("middle", {3}, 1);
  add("base", {}, -5);
  while (!sim.scheduler.idle()) {
    sim.now += 1ms;
    sim.step();
  }
  CHECK(experts.order == std::vector<std::string>{"0", "2", "3", "1"});
  CHECK(order == "base first high middle low ");
}

TEST_CASE("nobody starves: requests of low priority get through a stream of urgent ones") {
  Simulator sim({.kv_blocks = 64, .max_batch = 2, .ageing = 1s});
  SimSequence* low = sim.add(plain(20, 5, "patient", -2));
  bool low_ended = false;
  sim.on_end = [&](SimSequence& sequence) { low_ended |= &sequence == low; };
  Clock::time_point ended{};
  for (int i = 0; i < 2000 && !low_ended; ++i) {
    while (sim.scheduler.waiting() < 10) sim.add(plain(20, 5, "urgent", 3));
    sim.now += 50ms;
    sim.step();
    ended = sim.now;
  }
  CHECK(low_ended);
  CHECK(ended.time_since_epoch() < 10s);  // five levels of a second each, and its own work
}

TEST_CASE("callers share alike, whatever the length of their queues") {
  Simulator sim({.kv_blocks = 256, .max_batch = 4, .ageing = 10s});
  std::map<std::string, int> ended;
  sim.on_end = [&](SimSequence& sequence) { ++ended[sequence.caller]; };
  for (int i = 0; i < 300; ++i) sim.add(plain(16, 4, "greedy"));
  sim.now += 100s;  // the backlog is old
  for (int i = 0; i < 40; ++i) sim.add(plain(16, 4, "modest"));
  for (int i = 0; i < 60; ++i) {
    sim.now += 20ms;
    sim.step();
  }
  CHECK(ended["modest"] >= ended["greedy"] - 4);
  CHECK(ended["greedy"] >= ended["modest"] - 4);
  CHECK(ended["modest"] >= 20);
}

TEST_CASE("among equals the nearer deadline goes first") {
  Simulator sim({.kv_blocks = 64, .max_batch = 1});
  SimSequence* late = sim.add(plain(16, 2));
  SimSequence* soon = sim.add(plain(16, 2));
  late->deadline = sim.now + 10s;
  soon->deadline = sim.now + 1s;
  sim.step();
  CHECK(soon->admitted);
  CHECK_FALSE(late->admitted);
}

TEST_CASE("a dry pool preempts the last in rank, who computes on from what is kept and ends the same") {
  Simulator sim({.kv_blocks = 8, .max_batch = 4});
  const auto add = [&](uint64_t set, int32_t priority) {
    auto sequence = std::make_unique<SimSequence>(std::vector<int32_t>(30, 2), 66, set, true);
    sequence->priority = priority;
    return sim.add(std::move(sequence));
  };
  SimSequence* second = add(1, 0);
  SimSequence* first = add(2, 1);
  std::vector<const SimSequence*> order;
  sim.on_end = [&](SimSequence& sequence) { order.push_back(&sequence); };
  while (!sim.scheduler.idle()) {
    sim.now += 1ms;
    sim.step();
  }
  CHECK(order == std::vector<const SimSequence*>{first, second});
  const SchedulerStats& stats = sim.scheduler.stats();
  CHECK(stats.preemptions >= 1);
  CHECK(sim.rows < 2 * 96 + 80);  // most of it was still there
}

TEST_CASE("higher priority takes the seat of a lower one, which comes back") {
  Simulator sim({.kv_blocks = 64, .max_batch = 1});
  SimSequence* low = sim.add(plain(16, 30));
  sim.step();
  CHECK(low->admitted);
  SimSequence* equal = sim.add(plain(16, 3));
  sim.step();
  CHECK_FALSE(equal->admitted);
  std::vector<const SimSequence*> order;
  sim.on_end = [&](SimSequence& sequence) { order.push_back(&sequence); };
  SimSequence* high = sim.add(plain(16, 3, "", 1));
  while (!sim.scheduler.idle()) {
    sim.now += 1ms;
    sim.step();
  }
  CHECK(order == std::vector<const SimSequence*>{high, low, equal});
}

TEST_CASE("a long prompt does not stop those that decode") {
  Simulator sim({.kv_blocks = 512, .max_batch = 4, .prefill_tokens = 64});
  SimSequence* decoder = sim.add(plain(10, 100));
  sim.step();
  sim.add(plain(3000, 1));
  for (int i = 0; i < 40; ++i) {
    const size_t before = decoder->tokens().size();
    sim.step();
    CHECK(decoder->tokens().size() == before + 1);
  }
}
