// What the engine's tests share.
#pragma once

#include <chrono>

namespace expert::test {

// How long a test waits for what is sure to come, however slow the machine and the sanitizer.
inline constexpr auto kSoon = std::chrono::minutes(20);

}  // namespace expert::test
