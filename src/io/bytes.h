// Owned bytes, which can be made without filling them; large ones are whole pages (core/pages.h).
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <span>
#include <utility>

#include "core/pages.h"

namespace expert {

class Bytes {  // throws std::bad_alloc
 public:
  Bytes() = default;
  explicit Bytes(size_t size, std::byte value = {}) { resize(size, value); }
  template <std::contiguous_iterator Iterator>
  Bytes(Iterator first, Iterator last) {
    append(std::as_bytes(std::span(first, last)));
  }
  Bytes(const Bytes& other) : Bytes(other.begin(), other.end()) {}
  Bytes(Bytes&& other) noexcept { swap(other); }
  Bytes& operator=(Bytes other) noexcept {
    swap(other);
    return *this;
  }
  ~Bytes() = default;

  // `size` bytes of no particular value.
  static Bytes unfilled(size_t size);

  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  std::byte* data() noexcept { return memory_.get(); }
  const std::byte* data() const noexcept { return memory_.get(); }
  std::byte* begin() noexcept { return data(); }
  std::byte* end() noexcept { return data() + size_; }
  const std::byte* begin() const noexcept { return data(); }
  const std::byte* end() const noexcept { return data() + size_; }
  std::byte& operator[](size_t i) { return data()[i]; }
  const std::byte& operator[](size_t i) const { return data()[i]; }

  void reserve(size_t capacity);
  void resize(size_t size, std::byte value = {});
  void append(std::span<const std::byte> more);  // not of this object's own bytes

  bool operator==(const Bytes& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

 private:
  struct Free {
    Pages pages;  // empty: from malloc()
    void operator()(std::byte* memory) noexcept;
  };
  using Memory = std::unique_ptr<std::byte, Free>;
  static Memory allocate(size_t size);

  void swap(Bytes& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }
  void make_room(size_t more);

  Memory memory_;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace expert
