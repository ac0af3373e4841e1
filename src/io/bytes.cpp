#include "io/bytes.h"

#include <sys/mman.h>

#include <cstdlib>
#include <limits>
#include <new>

namespace expert {

void* allocate_bytes(size_t size) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const bool large = size >= kHugePage && size <= std::numeric_limits<size_t>::max() - 2 * kHugePage;
  const size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = large ? std::aligned_alloc(kHugePage, rounded) : std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (large) static_cast<void>(::madvise(memory, rounded, MADV_HUGEPAGE));  // only advice
#endif
  return memory;
}

void free_bytes(void* memory) noexcept { std::free(memory); }

}  // namespace expert
