#include "core/pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

namespace expert {

// The pages freed last, those of a file and of the expert made from it: what takes their place does without the
// kernel's zeroing, which is half of the time of packing. Never destroyed: memory may be freed while the process ends.
class SparePages {
 public:
  static SparePages& instance() {
    static auto* const pages = new SparePages;
    return *pages;
  }

  Pages take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (Pages& pages : pages_) {
      if (pages.start == nullptr || pages.capacity() < bytes || pages.capacity() - bytes > bytes / 4) continue;
      pages.bytes = bytes;
      return std::exchange(pages, {});
    }
    return {};
  }

  void give(Pages pages) noexcept {
    if (pages.capacity() <= kMost) {
      const std::lock_guard lock(mutex_);
      std::swap(pages, place());
    }
    if (pages.start != nullptr) ::munmap(pages.base, pages.mapped);
  }

 private:
  static constexpr size_t kMost = size_t{32} << 20;
  static constexpr size_t kCount = 2;

  // One that is free, else that of the pages given longest ago.
  Pages& place() {
    for (size_t i = 0; i < kCount; ++i) {
      if (pages_[i].start == nullptr) {
        next_ = (i + 1) % kCount;
        return pages_[i];
      }
    }
    return pages_[std::exchange(next_, (next_ + 1) % kCount)];
  }

  std::mutex mutex_;
  Pages pages_[kCount];
  size_t next_ = 0;
};

Pages Pages::allocate(size_t bytes, Content content) {
  if (content == Content::any) {
    if (const Pages spare = SparePages::instance().take(bytes); spare.start != nullptr) return spare;
  }
  if (bytes > static_cast<size_t>(std::numeric_limits<int64_t>::max()) - kHugePage) throw std::bad_alloc();
  Pages pages;
  pages.bytes = bytes;
  pages.mapped = bytes + kHugePage;
  void* base = ::mmap(nullptr, pages.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  pages.base = static_cast<std::byte*>(base);
  pages.start = pages.base + (kHugePage - reinterpret_cast<uintptr_t>(base) % kHugePage) % kHugePage;
#if defined(MADV_HUGEPAGE)
  static_cast<void>(::madvise(pages.start, bytes, MADV_HUGEPAGE));  // only advice
#endif
  return pages;
}

void Pages::release() noexcept { SparePages::instance().give(std::exchange(*this, {})); }

}  // namespace expert
