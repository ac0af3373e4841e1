#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <thread>
#include <vector>

#include "core/pages.h"

using namespace expert;

TEST_CASE("pages begin on a huge page, and are zero where that was asked for, used before or not") {
  const size_t size = kHugePage + 12345;
  for (int round = 0; round < 4; ++round) {
    Pages used = Pages::allocate(size, Pages::Content::any);
    CHECK(reinterpret_cast<uintptr_t>(used.start) % kHugePage == 0);
    CHECK(used.bytes == size);
    std::memset(used.start, 0x5A, size);
    used.release();
    CHECK(used.start == nullptr);
    Pages zero = Pages::allocate(size, Pages::Content::zero);
    size_t set = 0;
    for (size_t i = 0; i < size; ++i) set += zero.start[i] != std::byte{0};
    CHECK(set == 0);
    zero.release();
  }
}

TEST_CASE("what was freed serves again, one block or two at a time") {
  const size_t size = 2 * kHugePage;
  const auto take = [&](size_t count) {
    std::vector<Pages> taken;
    for (size_t i = 0; i < count; ++i) taken.push_back(Pages::allocate(size, Pages::Content::any));
    std::vector<const std::byte*> places;
    for (Pages& pages : taken) {
      places.push_back(pages.start);
      pages.release();
    }
    return places;
  };
  const std::vector<const std::byte*> kept = take(2);
  for (const size_t count : {1, 2, 1, 1, 2, 2, 1}) {
    for (const std::byte* place : take(count)) CHECK((place == kept[0] || place == kept[1]));
  }
}

TEST_CASE("pages of any size at once never overlap") {
  std::vector<std::thread> threads;
  std::vector<size_t> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 60; ++i) {
        const size_t size = kHugePage * (1 + (i * 7 + t) % 5) + i;
        Pages pages = Pages::allocate(size, Pages::Content::any);
        std::memset(pages.start, static_cast<int>(t + 1), size);
        std::this_thread::yield();
        wrong[t] += pages.start[0] != static_cast<std::byte>(t + 1) || pages.start[size - 1] != static_cast<std::byte>(t + 1);
        pages.release();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const size_t count : wrong) CHECK(count == 0);
}

TEST_CASE("more pages than there can be are an error") {
  CHECK_THROWS_AS(Pages::allocate(std::numeric_limits<size_t>::max(), Pages::Content::any), std::bad_alloc);
}
