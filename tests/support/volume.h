// How many of its cases a test runs.
#pragma once

#include <cstdlib>
#include <string_view>

namespace expert::test {

// False where a case takes long, so that fewer do: on an emulated device, and under sanitizers unless EXPERT_TEST_VOLUME is
// "full" (tests/full sets it).
inline bool thorough() {
#if defined(EXPERT_EMULATED_CUDA)
  return false;
#elif defined(EXPERT_SANITIZED)
  const char* volume = std::getenv("EXPERT_TEST_VOLUME");
  return volume != nullptr && std::string_view(volume) == "full";
#else
  return true;
#endif
}

// Of `full` cases those to run.
inline int volume(int full) { return thorough() ? full : (full + 3) / 4; }

}  // namespace expert::test
