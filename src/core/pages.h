// Memory of whole pages for large blocks: huge pages where the system grants them, so that filling 20 MB takes ten page
// faults instead of five thousand, and a scan needs few page-table entries.
#pragma once

#include <cstddef>
#include <span>
#include <stop_token>

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

// For a file that is mapped for reading on a huge page's boundary. Where the system held it in huge pages and has taken some
// away meanwhile, it reads them back one small page at a time; this has those pieces read again as a whole. Other threads
// may read the memory all the while, and wait for a piece now and then. False: asking again is of no use, because the
// system does not tell (before Linux 6.7) or does not hold such files in huge pages.
bool restore_huge_pages(std::span<const std::byte> mapped, const std::stop_token& stop);

}  // namespace expert
