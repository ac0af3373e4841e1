#include "io/bytes.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

namespace expert {
namespace {

constexpr size_t kMost = std::numeric_limits<size_t>::max() / 4;

}  // namespace

Bytes::Memory Bytes::allocate(size_t size) {
  if (size >= kHugePage) {
    const Pages pages = Pages::allocate(size, Pages::Content::any);
    return {pages.start, Free{pages}};
  }
  auto* memory = static_cast<std::byte*>(std::malloc(size));
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, Free{}};
}

void Bytes::Free::operator()(std::byte* memory) noexcept {
  if (pages.start == nullptr) return std::free(memory);
  pages.release();
}

Bytes Bytes::unfilled(size_t size) {
  Bytes bytes;
  bytes.reserve(size);
  bytes.size_ = size;
  return bytes;
}

void Bytes::reserve(size_t capacity) {
  if (capacity <= capacity_) return;
  if (capacity > kMost) throw std::bad_alloc();
  Memory memory = allocate(capacity);
  if (size_ != 0) std::memcpy(memory.get(), memory_.get(), size_);
  memory_ = std::move(memory);
  capacity_ = capacity;
}

void Bytes::make_room(size_t more) {
  if (more > kMost - size_) throw std::bad_alloc();
  if (size_ + more > capacity_) reserve(std::max(size_ + more, std::min(kMost, 2 * capacity_)));
}

void Bytes::resize(size_t size, std::byte value) {
  if (size > size_) {
    make_room(size - size_);
    std::memset(data() + size_, std::to_integer<int>(value), size - size_);
  }
  size_ = size;
}

void Bytes::append(std::span<const std::byte> more) {
  if (more.empty()) return;
  make_room(more.size());
  std::memcpy(data() + size_, more.data(), more.size());
  size_ += more.size();
}

}  // namespace expert
