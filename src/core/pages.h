// Memory of whole pages for large blocks: huge pages where the system grants them, so that filling 20 MB takes ten page
// faults instead of five thousand, and a scan needs few page-table entries.
#pragma once

#include <cstddef>

namespace expert {

inline constexpr size_t kHugePage = size_t{2} << 20;

// At least `bytes`, which is not 0, on a huge page's boundary. Thread-safe.
struct Pages {
  std::byte* start = nullptr;
  size_t bytes = 0;

  enum class Content { any, zero };
  // Throws std::bad_alloc.
  static Pages allocate(size_t bytes, Content content);
  void release() noexcept;

  // What was mapped, which begins up to a huge page before.
  std::byte* base = nullptr;
  size_t mapped = 0;
  size_t capacity() const { return mapped - kHugePage; }
};

}  // namespace expert
