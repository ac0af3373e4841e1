#include "core/thread_pool.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/cores.h"
#include "core/work_ranges.h"

using expert::ThreadPool;

TEST_CASE("every task runs once, whatever the number of threads and tasks") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<int> done(static_cast<size_t>(count));
      pool.run(count, [&](int64_t i, int worker) {
        REQUIRE(worker >= 0);
        REQUIRE(worker < threads);
        done[static_cast<size_t>(i)] += 1;
      });
      CHECK(std::accumulate(done.begin(), done.end(), int64_t{0}) == count);
    }
  }
}

TEST_CASE("regions in quick succession see what the one before wrote") {
  ThreadPool pool(3);
  std::vector<int64_t> before(64);
  std::vector<int64_t> after(64);
  for (int region = 0; region < 3000; ++region) {
    pool.run(64, [&](int64_t i, int) { after[static_cast<size_t>(i)] = before[static_cast<size_t>(63 - i)] + 1; });
    before.swap(after);
    REQUIRE(before == std::vector<int64_t>(64, region + 1));
  }
}

TEST_CASE("workers that fell asleep wake up") {
  ThreadPool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> arrived{0};
    // Ends only when both threads take part.
    pool.run(2, [&](int64_t, int) {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
    });
    CHECK(arrived == 2);
  }
}

TEST_CASE("an exception reaches the caller, and the pool goes on") {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      CHECK_THROWS_WITH_AS(pool.run(100,
                                    [](int64_t i, int) {
                                      if (i % 10 == 3) throw std::runtime_error("three");
                                    }),
                           "three", std::runtime_error);
      std::atomic<int> done{0};
      pool.run(100, [&](int64_t, int) { ++done; });
      REQUIRE(done == 100);
    }
  }
}

TEST_CASE("a call from inside a task, or from another thread meanwhile, still does all its tasks") {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  pool.run(10, [&](int64_t, int) { pool.run(10, [&](int64_t, int) { ++done; }); });
  CHECK(done == 100);
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) pool.run(5, [&](int64_t, int) { ++done; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(done == 100 + 4 * 200 * 5);
}

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("a child made by fork computes alone and ends") {
  ThreadPool pool(3);
  pool.run(8, [](int64_t, int) {});
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int64_t sum = 0;
    pool.run(8, [&](int64_t i, int) { sum += i; });
    pool.~ThreadPool();
    _exit(sum == 28 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

TEST_CASE("ranges give every number once, neighbours to a worker, and the rest to whoever asks") {
  expert::WorkRanges alone(3);
  alone.fill(7);  // [0, 2) [2, 4) [4, 7)
  for (const int64_t expected : {2, 3, 6, 5, 4, 1, 0, -1, -1}) CHECK(alone.next(1) == expected);
  alone.fill(0);
  CHECK(alone.next(0) == -1);

  constexpr int kThreads = 4;
  expert::WorkRanges ranges(kThreads);
  for (const int64_t count : {1, 3, 1000, 20'000}) {
    ranges.fill(count);
    std::vector<std::atomic<int>> given(static_cast<size_t>(count));
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      // Two of them are the same worker.
      threads.emplace_back([&, worker = t % 3] {
        for (int64_t i = ranges.next(worker); i >= 0; i = ranges.next(worker)) given[static_cast<size_t>(i)] += 1;
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(std::all_of(given.begin(), given.end(), [](const std::atomic<int>& times) { return times == 1; }));
  }
}

TEST_CASE("cores are counted within the quota") {
  CHECK(expert::cores_of_quota("max 100000") == std::nullopt);
  CHECK(expert::cores_of_quota("200000 100000") == 2);
  CHECK(expert::cores_of_quota("150000 100000") == 2);
  CHECK(expert::cores_of_quota("1000 100000") == 1);
  CHECK(expert::cores_of_quota("-1 100000") == std::nullopt);
  CHECK(expert::cores_of_quota("") == std::nullopt);
  CHECK(expert::cores_of_quota(" ") == std::nullopt);
  CHECK(expert::cores_of_quota("100000 0") == std::nullopt);
  CHECK(expert::cores_of_quota("x y") == std::nullopt);
  CHECK(expert::usable_cores() >= 1);
}
