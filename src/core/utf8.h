// UTF-8 and code points: the one place that knows how they are written.
// Every function here is pure. Unless it says otherwise, text must be valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace expert::unicode {

// Reads the code point at text[pos] and moves pos behind it.
inline char32_t next_char(std::string_view text, size_t& pos) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const char32_t lead = byte(pos);
  if (lead < 0x80) return pos += 1, lead;
  if (lead < 0xE0) return pos += 2, (lead & 0x1F) << 6 | (byte(pos - 1) & 0x3Fu);
  if (lead < 0xF0) return pos += 3, (lead & 0x0F) << 12 | (byte(pos - 2) & 0x3Fu) << 6 | (byte(pos - 1) & 0x3Fu);
  pos += 4;
  return (lead & 0x07) << 18 | (byte(pos - 3) & 0x3Fu) << 12 | (byte(pos - 2) & 0x3Fu) << 6 | (byte(pos - 1) & 0x3Fu);
}

// The code point that ends at `end` (> 0).
char32_t previous_char(std::string_view text, size_t end);

void append_utf8(std::string& out, char32_t c);

// Length of the valid character at the start of `bytes` (not empty); 0 if it is cut off by the end; minus the length of
// the maximal invalid part otherwise (Unicode standard, table 3-7 and section "U+FFFD Substitution of Maximal Subparts").
int character_length(std::string_view bytes);

// First position that is not valid UTF-8, or npos. Surrogates and code points above U+10FFFF are invalid.
size_t find_invalid_utf8(std::string_view text);
inline bool is_utf8(std::string_view text) { return find_invalid_utf8(text) == std::string_view::npos; }

// Appends `bytes` (any bytes) to out with each maximal invalid part as one U+FFFD, as Rust's from_utf8_lossy and WHATWG
// do. An incomplete character at the end is left alone: the return value is how many bytes were consumed.
size_t append_lossy(std::string& out, std::string_view bytes);

}  // namespace expert::unicode
