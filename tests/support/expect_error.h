// EXPECT_ERROR(code, "part of the message", expression): the expression throws this typed error saying this.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "core/error.h"

namespace expert::test {

template <typename Action>
void expect_error(ErrorCode code, const std::string& part, Action&& action, const char* file, int line) {
  try {
    action();
  } catch (const Error& error) {
    INFO("message: ", std::string(error.what()));
    if (error.code() != code || std::string(error.what()).find(part) == std::string::npos) {
      DOCTEST_ADD_FAIL_CHECK_AT(file, line,
                                "wrong error " << static_cast<int>(error.code()) << ": " << std::string(error.what())
                                               << " (wanted " << static_cast<int>(code) << ": …" << part << "…)");
    }
    return;
  } catch (const std::exception& error) {
    DOCTEST_ADD_FAIL_CHECK_AT(file, line, "untyped exception: " << std::string(error.what()));
    return;
  }
  DOCTEST_ADD_FAIL_CHECK_AT(file, line, "no error, wanted …" << part << "…");
}

}  // namespace expert::test

#define EXPECT_ERROR(code, part, ...)                                                       \
  do {                                                                                      \
    CHECK(true);                                                                            \
    ::expert::test::expect_error(                                                           \
        ::expert::ErrorCode::code, part, [&] { (void)(__VA_ARGS__); }, __FILE__, __LINE__); \
  } while (false)
