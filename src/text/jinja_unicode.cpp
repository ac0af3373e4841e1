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
  for (size_t at = 0; at < text.size();) map_into(table, next_char(text, at), out);
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

size_t code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }));
}

std::u32string to_utf32(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) out.push_back(next_char(text, at));
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
    if (!is_space(next_char(text, next))) break;
    text.remove_prefix(next);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while ((static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    size_t next = start;
    if (!is_space(next_char(text, next))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

}  // namespace expert::jinja
