#include "text/jinja_unicode.h"

#include <algorithm>
#include <iterator>

#include "text/jinja_unicode_tables.h"

namespace expert::jinja {
namespace {

using unicode_tables::Mapping;
using unicode_tables::Range;

template <size_t N>
bool contains(const Range (&table)[N], char32_t c) {
  const Range* row = std::upper_bound(std::begin(table), std::end(table), c,
                                      [](char32_t value, const Range& range) { return value < range.first; });
  return row != std::begin(table) && c <= std::prev(row)->last;
}

template <size_t N>
void map_into(const Mapping (&table)[N], char32_t c, std::string& out) {
  const Mapping* row = std::lower_bound(std::begin(table), std::end(table), c,
                                        [](const Mapping& entry, char32_t value) { return entry.from < value; });
  if (row == std::end(table) || row->from != c) return append_utf8(out, c);
  for (char32_t to : row->to) {
    if (to != 0) append_utf8(out, to);
  }
}

template <size_t N>
std::string map_all(const Mapping (&table)[N], std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) map_into(table, next_code_point(text, at), out);
  return out;
}

constexpr char32_t kCapitalSigma = 0x3a3;

// The Final_Sigma condition of the Unicode standard, section 3.13: a cased letter before it and none after it.
bool is_final_sigma(const std::u32string& text, size_t at) {
  using unicode_tables::kCased;
  using unicode_tables::kCaseIgnorable;
  size_t before = at;
  while (before > 0 && contains(kCaseIgnorable, text[before - 1])) --before;
  if (before == 0 || !contains(kCased, text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && contains(kCaseIgnorable, text[after])) ++after;
  return after == text.size() || !contains(kCased, text[after]);
}

void lower_into(const std::u32string& text, size_t at, std::string& out) {
  if (text[at] == kCapitalSigma) {
    append_utf8(out, is_final_sigma(text, at) ? 0x3c2 : 0x3c3);
  } else {
    map_into(unicode_tables::kToLower, text[at], out);
  }
}

}  // namespace

bool valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    if (lead < 0x80) {
      ++at;
      continue;
    }
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || at + length > text.size()) return false;
    for (size_t i = 1; i < length; ++i) {
      if ((static_cast<unsigned char>(text[at + i]) & 0xc0) != 0x80) return false;
    }
    size_t next = at;
    const char32_t c = next_code_point(text, next);
    const bool overlong = (length == 3 && c < 0x800) || (length == 4 && c < 0x10000);
    if (overlong || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return false;
    at = next;
  }
  return true;
}

size_t code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }));
}

char32_t next_code_point(std::string_view text, size_t& offset) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[offset + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return ++offset, lead;
  char32_t c = 0;
  if (lead < 0xe0) {
    c = (lead & 0x1f) << 6 | (byte(1) & 0x3f);
    offset += 2;
  } else if (lead < 0xf0) {
    c = (lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    offset += 3;
  } else {
    c = (lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    offset += 4;
  }
  return c;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  }
}

std::u32string to_utf32(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) out.push_back(next_code_point(text, at));
  return out;
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : text) append_utf8(out, c);
  return out;
}

bool is_space(char32_t c) { return contains(unicode_tables::kSpace, c); }
bool is_alpha(char32_t c) { return contains(unicode_tables::kAlpha, c); }
bool is_decimal(char32_t c) { return contains(unicode_tables::kDecimal, c); }
bool is_digit(char32_t c) { return contains(unicode_tables::kDigit, c); }
bool is_numeric(char32_t c) { return contains(unicode_tables::kNumeric, c); }
bool is_alnum(char32_t c) { return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }
bool is_lower(char32_t c) { return contains(unicode_tables::kLower, c); }
bool is_upper(char32_t c) { return contains(unicode_tables::kUpper, c); }
bool is_title(char32_t c) { return contains(unicode_tables::kTitle, c); }
bool is_printable(char32_t c) { return contains(unicode_tables::kPrintable, c); }

std::string to_upper(std::string_view text) { return map_all(unicode_tables::kToUpper, text); }
std::string to_fold(std::string_view text) { return map_all(unicode_tables::kToFold, text); }

std::string to_lower(std::string_view text) {
  const std::u32string points = to_utf32(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < points.size(); ++i) lower_into(points, i, out);
  return out;
}

std::string to_title(std::string_view text) {
  const std::u32string points = to_utf32(text);
  std::string out;
  bool inside_word = false;
  for (size_t i = 0; i < points.size(); ++i) {
    if (inside_word) {
      lower_into(points, i, out);
    } else {
      map_into(unicode_tables::kToTitle, points[i], out);
    }
    inside_word = contains(unicode_tables::kCased, points[i]);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  const std::u32string points = to_utf32(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (i == 0) {
      map_into(unicode_tables::kToTitle, points[i], out);
    } else {
      lower_into(points, i, out);
    }
  }
  return out;
}

std::string swap_case(std::string_view text) {
  const std::u32string points = to_utf32(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (is_upper(points[i])) {
      lower_into(points, i, out);
    } else if (is_lower(points[i])) {
      map_into(unicode_tables::kToUpper, points[i], out);
    } else {
      append_utf8(out, points[i]);
    }
  }
  return out;
}

std::string_view strip_space(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    size_t next = 0;
    if (!is_space(next_code_point(text, next))) break;
    text.remove_prefix(next);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while ((static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    size_t next = start;
    if (!is_space(next_code_point(text, next))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

}  // namespace expert::jinja
