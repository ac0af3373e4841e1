// The byte-level alphabet of GPT-2: every byte has a printable character of its own. Printable Latin-1 bytes stand for
// themselves, the others, in order, for U+0100 onwards.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/unicode.h"

namespace expert::byte_level {

constexpr char32_t kEnd = 0x144;  // all characters of the alphabet are below

struct Alphabet {
  std::array<char32_t, 256> char_of{};
  std::array<int16_t, kEnd> byte_of{};  // -1: not of the alphabet

  constexpr Alphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      char_of[byte] = printable ? byte : next++;
      byte_of[char_of[byte]] = static_cast<int16_t>(byte);
    }
  }
};
inline constexpr Alphabet kAlphabet;

inline void append_chars(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) unicode::append_utf8(out, kAlphabet.char_of[static_cast<unsigned char>(byte)]);
}

// Appends the bytes that `token` stands for; a token with any other character in it stands for its own UTF-8.
inline void append_bytes(std::string& out, std::string_view token) {
  const size_t begin = out.size();
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = unicode::next_char(token, pos);
    if (c >= kEnd || kAlphabet.byte_of[c] < 0) {
      out.resize(begin);
      out.append(token);
      return;
    }
    out += static_cast<char>(kAlphabet.byte_of[c]);
  }
}

}  // namespace expert::byte_level
