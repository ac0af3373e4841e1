#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <vector>

namespace expert::unicode {
namespace {

struct CombiningRange {
  char32_t first, last;
  uint8_t combining_class;  // numbered in order, not the values of the standard; 0 (absent here) is a starter
};
struct CategoryRange {
  char32_t first;
  uint8_t category;
};
struct Decomposition {
  char32_t from;
  uint16_t offset;  // into kDecompositionPool
  uint8_t size;
};
struct Composition {
  char32_t first, second, composed;
};

#include "text/unicode_tables.inc"

constexpr size_t kBlock = 256;

// Hangul syllables are composed by arithmetic (Unicode standard, chapter 3.12).
constexpr char32_t kHangulBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kTailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

uint8_t combining_class(char32_t c) {
  if (c < kCombining[0].first) return 0;
  const auto* range = std::upper_bound(std::begin(kCombining), std::end(kCombining), c,
                                       [](char32_t value, const CombiningRange& r) { return value < r.first; }) -
                      1;
  return c <= range->last ? range->combining_class : 0;
}

void decompose(char32_t c, std::u32string& out) {
  if (c >= kHangulBase && c < kHangulBase + kSyllables) {
    const char32_t syllable = c - kHangulBase;
    out += kLeadBase + syllable / (kVowels * kTails);
    out += kVowelBase + syllable % (kVowels * kTails) / kTails;
    if (syllable % kTails != 0) out += kTailBase + syllable % kTails;
    return;
  }
  const auto* found = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), c,
                                       [](const Decomposition& d, char32_t value) { return d.from < value; });
  if (found != std::end(kDecompositions) && found->from == c) {
    out.append(kDecompositionPool + found->offset, found->size);
  } else {
    out += c;
  }
}

// The composed character, or 0.
char32_t compose(char32_t first, char32_t second) {
  if (first - kLeadBase < kLeads && second - kVowelBase < kVowels)
    return kHangulBase + ((first - kLeadBase) * kVowels + (second - kVowelBase)) * kTails;
  if (first - kHangulBase < kSyllables && (first - kHangulBase) % kTails == 0 && second > kTailBase &&
      second < kTailBase + kTails)
    return first + (second - kTailBase);
  const auto key = std::pair(first, second);
  const auto* found =
      std::lower_bound(std::begin(kCompositions), std::end(kCompositions), key,
                       [](const Composition& c, const auto& value) { return std::pair(c.first, c.second) < value; });
  return found != std::end(kCompositions) && std::pair(found->first, found->second) == key ? found->composed : 0;
}

// Marks between two starters are put in the order of their classes; equal classes keep their order.
void order_marks(std::u32string& text) {
  for (size_t i = 0; i < text.size();) {
    if (combining_class(text[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(i), text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

// Canonical composition in place: each character joins the last starter unless something blocks it.
void compose_all(std::u32string& text) {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t out = 0, starter = kNone;
  int previous_class = -1;  // class of the last character kept after the starter; -1: none
  for (const char32_t c : text) {
    const int mark_class = combining_class(c);
    if (starter != kNone && previous_class < (mark_class == 0 ? 0 : mark_class)) {
      if (const char32_t composed = compose(text[starter], c)) {
        text[starter] = composed;
        continue;
      }
    }
    if (mark_class == 0) {
      starter = out;
      previous_class = -1;
    } else {
      previous_class = mark_class;
    }
    text[out++] = c;
  }
  text.resize(out);
}

}  // namespace

uint8_t class_of(char32_t c) {
  const size_t at = size_t{kClassIndex[c / kBlock]} * kBlock + c % kBlock;
  const uint8_t pair = kClassBlocks[at / 2];
  return kClassSets[at % 2 == 0 ? pair & 0x0F : pair >> 4];
}

namespace {

uint32_t find_category(char32_t c) {
  const auto* range = std::upper_bound(std::begin(kCategories), std::end(kCategories), c,
                                       [](char32_t value, const CategoryRange& r) { return value < r.first; }) -
                      1;
  return uint32_t{1} << range->category;
}

}  // namespace

uint32_t category_bit(char32_t c) {
  static const auto kAscii = [] {
    std::array<uint32_t, 128> bits{};
    for (char32_t ascii = 0; ascii < bits.size(); ++ascii) bits[ascii] = find_category(ascii);
    return bits;
  }();
  return c < kAscii.size() ? kAscii[c] : find_category(c);
}

uint32_t category_mask(std::string_view name) {
  uint32_t mask = 0, bit = 1;
  for (size_t at = 0; at < kCategoryNames.size(); at += 3, bit <<= 1) {
    const std::string_view category = kCategoryNames.substr(at, 2);
    if (category == name || (name.size() == 1 && category[0] == name[0])) mask |= bit;
  }
  return mask;
}

std::string to_nfc(std::string_view text) {
  // Nothing below U+0300 composes with anything but what lies above it.
  const auto plain = [](char c) { return static_cast<unsigned char>(c) < 0xCC; };
  if (std::all_of(text.begin(), text.end(), plain)) return std::string(text);
  std::u32string chars;
  chars.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) decompose(next_char(text, pos), chars);
  order_marks(chars);
  compose_all(chars);
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : chars) append_utf8(out, c);
  return out;
}

}  // namespace expert::unicode
