// Hints that lines of memory are wanted soon.
#pragma once

#include <cstddef>

namespace expert {

// To be read.
inline void ask_for(const void* first, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(first) + at);
}

// To be written. What another core has read or written it keeps until each line is asked back: stores wait for that one by
// one. (The compiler's own hint is one to read, where it is not told that the processor has both; those without ignore this one.)
inline void claim(const void* first, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) {
    const char* line = static_cast<const char*>(first) + at;
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*line));
#else
    __builtin_prefetch(line, 1);
#endif
  }
}

}  // namespace expert
