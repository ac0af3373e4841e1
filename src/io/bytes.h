// Owned bytes. Large ones start on a huge page where the system grants them, so that filling 20 MB takes ten page
// faults instead of five thousand.
#pragma once

#include <cstddef>
#include <vector>

namespace expert {

void* allocate_bytes(size_t size);  // throws std::bad_alloc
void free_bytes(void* memory) noexcept;

template <typename T>
struct BytesAllocator {
  using value_type = T;
  BytesAllocator() = default;
  template <typename U>
  BytesAllocator(const BytesAllocator<U>&) noexcept {}
  T* allocate(size_t count) { return static_cast<T*>(allocate_bytes(count * sizeof(T))); }
  void deallocate(T* memory, size_t) noexcept { free_bytes(memory); }
  bool operator==(const BytesAllocator&) const = default;
};

using Bytes = std::vector<std::byte, BytesAllocator<std::byte>>;

}  // namespace expert
