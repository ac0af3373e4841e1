#include "core/pages.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

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

#if defined(__linux__) && defined(MADV_PAGEOUT) && defined(MADV_POPULATE_READ)

namespace {

// linux/fs.h of 6.7 and newer.
struct PageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
struct PageScan {
  uint64_t size = sizeof(PageScan);
  uint64_t flags = 0;
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t walk_end = 0;
  uint64_t regions = 0;
  uint64_t region_count = 0;
  uint64_t max_pages = 0;
  uint64_t category_inverted = 0;
  uint64_t category_mask = 0;
  uint64_t category_anyof_mask = 0;
  uint64_t return_mask = 0;
};
constexpr uint64_t kPageIsHuge = uint64_t{1} << 6;

// The pieces of [first, first + count * kHugePage) that are not mapped by a huge page, by number. Empty optional: the system
// does not say.
std::optional<std::vector<size_t>> small_pieces(const std::byte* first, size_t count) {
  const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return std::nullopt;
  std::vector<PageRegion> regions(count);
  PageScan scan;
  scan.start = reinterpret_cast<uintptr_t>(first);
  scan.end = scan.start + count * kHugePage;
  scan.regions = reinterpret_cast<uintptr_t>(regions.data());
  scan.region_count = count;
  scan.category_mask = kPageIsHuge;
  scan.return_mask = kPageIsHuge;
  const int found = ::ioctl(pagemap, _IOWR('f', 16, PageScan), &scan);
  ::close(pagemap);
  if (found < 0) return std::nullopt;
  std::vector<bool> huge(count, false);
  for (size_t i = 0; i < static_cast<size_t>(found); ++i) {
    const size_t last = (regions[i].end - scan.start) / kHugePage;
    for (size_t piece = (regions[i].start - scan.start) / kHugePage; piece < std::min(last, count); ++piece) huge[piece] = true;
  }
  std::vector<size_t> pieces;
  for (size_t piece = 0; piece < count; ++piece) {
    if (!huge[piece]) pieces.push_back(piece);
  }
  return pieces;
}

// Out of memory, out of the page table, and in again. Each is only advice, and a page in use elsewhere stays.
void read_again(const std::byte* piece) {
  auto* memory = const_cast<std::byte*>(piece);
  static_cast<void>(::madvise(memory, kHugePage, MADV_PAGEOUT));
  static_cast<void>(::madvise(memory, kHugePage, MADV_DONTNEED));
  static_cast<void>(::madvise(memory, kHugePage, MADV_POPULATE_READ));
}

}  // namespace

bool restore_huge_pages(std::span<const std::byte> mapped, const std::stop_token& stop) {
  constexpr size_t kAtOnce = 8;  // pieces, after which it looks whether that helped
  const size_t count = mapped.size() / kHugePage;
  if (count == 0) return false;
  for (size_t begun = 0; !stop.stop_requested();) {
    const auto pieces = small_pieces(mapped.data(), count);
    if (!pieces) return false;
    const auto next = std::ranges::lower_bound(*pieces, begun);
    const size_t size = std::min(kAtOnce, static_cast<size_t>(pieces->end() - next));
    if (size == 0) return true;
    for (size_t i = 0; i < size && !stop.stop_requested(); ++i) read_again(mapped.data() + next[static_cast<ptrdiff_t>(i)] * kHugePage);
    begun = next[static_cast<ptrdiff_t>(size) - 1] + 1;
    const auto left = small_pieces(mapped.data(), count);
    if (!left || (size == kAtOnce && left->size() + size / 2 > pieces->size())) return false;
  }
  return true;
}

#else

bool restore_huge_pages(std::span<const std::byte>, const std::stop_token&) { return false; }

#endif

}  // namespace expert
