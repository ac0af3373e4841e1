#include "core/crew.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/work_ranges.h"

using expert::Crew;
using expert::ThreadPool;
using expert::WorkRanges;

namespace {

// Walks as soon as it may: with more threads than cores a walk is long, and the next ones are not begun.
template <typename Walk>
void walk(Crew& crew, const Walk& task) {
  for (int tries = 0; tries < 100'000; ++tries) {
    if (crew.walk(task)) return;
  }
  FAIL("no walk was begun");
}

}  // namespace

TEST_CASE("on a walk every member sees after a meeting what the others wrote before it") {
  for (const int threads : {2, 3, 5}) {
    ThreadPool pool(threads);
    Crew crew(pool);
    REQUIRE(crew.size() == threads);
    for (int round = 0; round < 20; ++round) {
      std::vector<int> written(static_cast<size_t>(threads), -1);
      std::atomic<int> wrong{0};
      walk(crew, [&](int index) {
        for (int step = 0; step < 30; ++step) {
          written[static_cast<size_t>(index)] = step;
          crew.member(index).meet();
          for (const int value : written) wrong += value != step ? 1 : 0;
          crew.member(index).meet();
        }
      });
      CHECK(wrong == 0);
      CHECK(written == std::vector<int>(static_cast<size_t>(threads), 29));
    }
  }
}

TEST_CASE("members divide what they share, and do for themselves the rest") {
  constexpr int64_t kCount = 101;
  ThreadPool pool(3);
  Crew crew(pool);
  WorkRanges ranges(3);
  std::vector<std::atomic<int>> shared(kCount);
  std::atomic<int> alone{0};
  std::atomic<int> changes{0};
  const auto operation = [&](int index) {
    expert::CrewMember& member = crew.member(index);
    member.walks() ? ranges.fill_part(kCount, index) : ranges.fill(kCount);
    member.by_itself(5, [&](int64_t) { ++alone; });
    member.once(true, [&] { ++changes; });
    member.once(false, [&] { changes = 1000; });
    member.share(kCount, [&](int worker) {
      for (int64_t i = ranges.next(worker); i >= 0; i = ranges.next(worker)) shared[static_cast<size_t>(i)] += 1;
    });
  };
  ranges.fill(0);
  walk(crew, [&](int index) {
    for (int i = 0; i < 50; ++i) operation(index);
  });
  for (const std::atomic<int>& times : shared) CHECK(times == 50);
  CHECK(alone == 50 * 5 * 3);
  CHECK(changes == 50);

  operation(0);  // between walks one thread calls it, and the pool does it
  for (const std::atomic<int>& times : shared) CHECK(times == 51);
  CHECK(alone == 50 * 5 * 3 + 5);
  CHECK(changes == 51);
}

TEST_CASE("what one member throws ends the walk of all, and the next goes on") {
  ThreadPool pool(3);
  Crew crew(pool);
  for (int round = 0; round < 20; ++round) {
    for (int failing = 0; failing < 3; ++failing) {
      CHECK_THROWS_WITH_AS(walk(crew,
                                [&](int index) {
                                  for (int step = 0; step < 10; ++step) {
                                    if (step == 4 && index == failing) throw std::runtime_error("four");
                                    crew.member(index).meet();
                                  }
                                }),
                           "four", std::runtime_error);
      std::atomic<int> done{0};
      walk(crew, [&](int index) {
        crew.member(index).meet();
        ++done;
      });
      CHECK(done == 3);
    }
  }
}

TEST_CASE("no walk is begun without threads for it") {
  ThreadPool one(1);
  Crew alone(one);
  CHECK_FALSE(alone.walk([](int) { FAIL("begun"); }));

  ThreadPool pool(2);
  Crew crew(pool);
  std::atomic<int> begun{0};
  pool.run(2, [&](int64_t i, int) {
    if (i == 0) begun += crew.walk([](int) {}) ? 1 : 0;
  });
  CHECK(begun == 0);
#if !defined(__SANITIZE_THREAD__)
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(crew.walk([](int) {}) ? 1 : 0);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
#endif
}

TEST_CASE("where members have to wait for one another long, no walk is begun for a while") {
  ThreadPool pool(2);
  Crew crew(pool);
  const auto held_up = [&](int index) {
    for (int step = 0; step < 12; ++step) {
      if (index == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      crew.member(index).meet();
    }
  };
  walk(crew, held_up);
  int refused = 0;
  while (!crew.walk(held_up)) ++refused;
  CHECK(refused >= 64);
  int then = 0;
  while (!crew.walk([](int) {})) ++then;
  CHECK(then >= 2 * refused);
}
