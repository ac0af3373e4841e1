#include "router/words.h"

#include <array>
#include <cstdint>

#include "core/utf8.h"

namespace expert {
namespace {

constexpr char32_t kInvalid = 0xffffffff;

// The code point at `at`, which moves behind it. What is not UTF-8 is kInvalid, byte by byte.
char32_t next_code_point(std::string_view text, size_t& at) {
  if (unicode::character_length(text.substr(at)) > 0) return unicode::next_char(text, at);
  ++at;
  return kInvalid;
}

struct Range {
  char32_t first, last;
};

bool in_any(char32_t code, const Range* ranges, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (code >= ranges[i].first && code <= ranges[i].last) return true;
  }
  return false;
}

// Beyond ASCII everything is a letter but these blocks of spaces, punctuation and symbols.
bool is_sign(char32_t code) {
  static constexpr Range kSigns[] = {
      {0x80, 0xa9},     {0xab, 0xb4},     {0xb6, 0xb9},     {0xbb, 0xbf},      {0xd7, 0xd7},     {0xf7, 0xf7},
      {0x1680, 0x1680}, {0x2000, 0x206f}, {0x20a0, 0x20cf}, {0x2190, 0x2bff},  {0x2e00, 0x2e7f}, {0x3000, 0x3004},
      {0x3008, 0x3020}, {0x3030, 0x3030}, {0xfe10, 0xfe6f}, {0xfeff, 0xfeff},  {0xff00, 0xff0f}, {0xff1a, 0xff20},
      {0xff3b, 0xff40}, {0xff5b, 0xff65}, {0xfff0, 0xffff}, {0x1f000, 0x1faff}};
  return in_any(code, kSigns, std::size(kSigns));
}

bool is_unspaced_script(char32_t code) {
  static constexpr Range kScripts[] = {{0x3005, 0x3007}, {0x3021, 0x302f}, {0x3040, 0x30ff},  {0x3400, 0x9fff},
                                       {0xf900, 0xfaff}, {0xff66, 0xff9d}, {0x20000, 0x3ffff}};
  return in_any(code, kScripts, std::size(kScripts));
}

bool is_word(char32_t code) {
  if (code < 0x80) {
    return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || code == '_';
  }
  return code != kInvalid && !is_sign(code);
}

bool is_space_or_hyphen(char32_t code) {
  return code == ' ' || (code >= '\t' && code <= '\r') || code == '-' || code == 0xa0 ||
         (code >= 0x2000 && code <= 0x200b) || code == 0x2010 || code == 0x2011 || code == 0x3000;
}

// Simple lower case of Latin, Greek and Cyrillic.
char32_t to_lower(char32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  if (code >= 0xc0 && code <= 0xde && code != 0xd7) return code + 32;
  const bool odd_pairs = (code >= 0x139 && code <= 0x148) || (code >= 0x179 && code <= 0x17e);
  if (odd_pairs) return (code & 1) != 0 ? code + 1 : code;
  if (code == 0x130) return 'i';
  if (code == 0x178) return 0xff;
  if (code >= 0x100 && code <= 0x177 && code != 0x131 && code != 0x138) return code | 1;
  if (code >= 0x391 && code <= 0x3a9) return code + 32;
  if (code >= 0x410 && code <= 0x42f) return code + 32;
  if (code >= 0x400 && code <= 0x40f) return code + 80;
  if (code >= 0x1e00 && code <= 0x1eff) return code | 1;
  return code;
}

// "c++", "c#": signs that belong to the word before them unless another word follows at once.
size_t trailing_signs(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && (text[end] == '+' || text[end] == '#')) ++end;
  if (end == at || end == text.size()) return end - at;
  size_t next = end;
  return is_word(next_code_point(text, next)) ? 0 : end - at;
}

}  // namespace

std::vector<Word> split_words(std::string_view text) {
  std::vector<Word> words;
  bool inside = false;    // the last word is still growing
  bool adjacent = false;  // only space or hyphens since the last word
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t code = next_code_point(text, at);
    if (is_word(code)) {
      const bool alone = is_unspaced_script(code);
      if (!inside || alone) words.push_back({.text = {}, .follows = adjacent && !words.empty()});
      unicode::append_utf8(words.back().text, to_lower(code));
      inside = !alone;
      adjacent = true;
      continue;
    }
    if (const size_t signs = inside ? trailing_signs(text, begin) : 0; signs > 0) {
      words.back().text += text.substr(begin, signs);
      at = begin + signs;
    } else if (!is_space_or_hyphen(code)) {
      adjacent = false;
    }
    inside = false;
  }
  return words;
}

}  // namespace expert
