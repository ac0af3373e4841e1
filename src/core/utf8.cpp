#include "core/utf8.h"

namespace expert::unicode {

int character_length(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < size; ++i) {
    if (static_cast<size_t>(i) == bytes.size()) return 0;
    const unsigned char c = byte(static_cast<size_t>(i));
    if (c < (i == 1 ? low : 0x80) || c > (i == 1 ? high : 0xBF)) return -i;
  }
  return size;
}

char32_t previous_char(std::string_view text, size_t end) {
  size_t pos = end - 1;
  while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  return next_char(text, pos);
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const int size = character_length(text.substr(pos));
    if (size <= 0) return pos;
    pos += static_cast<size_t>(size);
  }
  return std::string_view::npos;
}

size_t append_lossy(std::string& out, std::string_view bytes) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const int size = character_length(bytes.substr(pos));
    if (size == 0) break;
    if (size > 0) {
      out.append(bytes, pos, static_cast<size_t>(size));
      pos += static_cast<size_t>(size);
    } else {
      append_utf8(out, 0xFFFD);
      pos += static_cast<size_t>(-size);
    }
  }
  return pos;
}

}  // namespace expert::unicode
