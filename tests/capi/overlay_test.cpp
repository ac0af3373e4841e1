// Option structs of other releases: an older program's shorter one, a newer program's longer one.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <new>

#include "capi/convert.h"

using namespace expert;
using expert::capi::give_struct;
using expert::capi::overlay;

namespace {

struct First {
  size_t struct_size;
  const char* name;
};

struct Second {
  size_t struct_size;
  const char* name;
  int64_t added;
};

struct Third {
  size_t struct_size;
  const char* name;
  int64_t added;
  int64_t later;
};

template <typename T>
const Second* as_second(const T& given) {
  return reinterpret_cast<const Second*>(&given);
}

constexpr Second kDefaults = {sizeof(Second), "default", 7};

}  // namespace

TEST_CASE("a program built against an older header gets the default of the new field") {
  const First given = {sizeof(First), "mine"};
  const Second seen = overlay(as_second(given), kDefaults, sizeof(First), "options");
  CHECK(std::string(seen.name) == "mine");
  CHECK(seen.added == 7);
}

TEST_CASE("an equal header passes everything through") {
  const Second given = {sizeof(Second), "mine", 3};
  CHECK(overlay(&given, kDefaults, sizeof(First), "options").added == 3);
}

TEST_CASE("a newer program may leave the fields unset that we do not know, but not set them") {
  Third given = {sizeof(Third), "mine", 3, 0};
  CHECK(overlay(as_second(given), kDefaults, sizeof(First), "options").added == 3);
  given.later = 1;
  try {
    overlay(as_second(given), kDefaults, sizeof(First), "options");
    FAIL("a field that would be ignored was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
  }
}

TEST_CASE("an older program's struct is read and written within its own bytes") {
  // On the heap and exactly as long as the caller says, so that a sanitizer sees one byte too many.
  const auto own = std::make_unique<char[]>(sizeof(First));
  new (own.get()) First{sizeof(First), "mine"};
  const auto* given = reinterpret_cast<const Second*>(own.get());
  CHECK(overlay(given, kDefaults, sizeof(First), "options").added == 7);

  give_struct(Second{0, "theirs", 9}, reinterpret_cast<Second*>(own.get()), sizeof(First));
  CHECK(reinterpret_cast<const First*>(own.get())->struct_size == sizeof(First));
  CHECK(std::string(reinterpret_cast<const First*>(own.get())->name) == "theirs");

  // Nor need it lie where ours would have to.
  const auto shifted = std::make_unique<char[]>(sizeof(First) + 1);
  std::memcpy(shifted.get() + 1, own.get(), sizeof(First));
  CHECK(overlay(reinterpret_cast<const Second*>(shifted.get() + 1), kDefaults, sizeof(First), "options").added == 7);
}

TEST_CASE("a result struct of a newer program keeps what we do not know") {
  Third out = {sizeof(Third), "", 0, 5};
  give_struct(Second{0, "ours", 9}, reinterpret_cast<Second*>(&out), sizeof(First));
  CHECK(out.added == 9);
  CHECK(out.later == 5);
  CHECK(out.struct_size == sizeof(Third));
}

TEST_CASE("a struct_size that is not one of ours is refused before anything is read") {
  for (size_t size : {size_t{0}, size_t{1}, sizeof(size_t), sizeof(First) - 1}) {
    const First given = {size, "mine"};
    CHECK_THROWS_AS(overlay(as_second(given), kDefaults, sizeof(First), "options"), Error);
  }
}
