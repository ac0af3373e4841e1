// UTF-8, the character classes of the pre-tokenizers, and canonical composition (NFC), all as Hugging Face `tokenizers`
// has them: classes of Unicode 16.0, NFC of the older tables it carries (see tools/unicode/generate_tables.py).
// Every function here is pure. Unless it says otherwise, text must be valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace expert::unicode {

enum CharClass : uint8_t {
  kLetter = 1,  // \p{L}
  kNumber = 2,  // \p{N}
  kSpace = 4,   // \s, White_Space
  kWord = 8,    // \w of Rust's regex crate: Alphabetic, M, Nd, Pc, Join_Control
  kDigit = 16,  // char::is_numeric of Rust's standard library (Unicode 17), for the Digits pre-tokenizer
};

// Bit set of CharClass.
uint8_t class_of(char32_t c);

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

// First position that is not valid UTF-8, or npos. Surrogates and code points above U+10FFFF are invalid.
size_t find_invalid_utf8(std::string_view text);

// Appends `bytes` (any bytes) to out with each maximal invalid part as one U+FFFD, as Rust's from_utf8_lossy and WHATWG
// do. An incomplete character at the end is left alone: the return value is how many bytes were consumed.
size_t append_lossy(std::string& out, std::string_view bytes);

std::string to_nfc(std::string_view text);

}  // namespace expert::unicode
