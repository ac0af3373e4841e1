// Hints that lines of memory are wanted soon.
#pragma once

#include <cstddef>

namespace expert {

// GCC takes a function that only hints for one without effect, and drops calls of it.
inline void keep_hints() { __asm__ volatile(""); }

// To be read, soon. Of more than some two dozen lines at once a processor forgets the rest (measured on Zen 4; of those for the
// second level a hundred are kept).
inline void ask_for(const void* first, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(first) + at);
  keep_hints();
}

// To be read, later: into the second level. The first has room for few requests at a time.
inline void ask_for_ahead(const void* first, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(first) + at, 0, 2);
  keep_hints();
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
