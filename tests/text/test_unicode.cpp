#include <doctest/doctest.h>

#include <string>

#include "support/expect_error.h"
#include "text/regex.h"
#include "text/split_pattern.h"
#include "text/unicode.h"

using namespace expert;

TEST_CASE("classes of characters that other Unicode versions see differently") {
  using namespace unicode;
  CHECK(class_of('a') == (kLetter | kWord));
  CHECK(class_of('7') == (kNumber | kWord | kDigit));
  CHECK(class_of('_') == (kWord | kPunctuation));
  CHECK(class_of(0x00BD) == (kNumber | kDigit));  // ½ is no part of a word
  CHECK(class_of(0x180E) == 0);                   // left White_Space in Unicode 6.3
  CHECK(class_of(0x0085) == kSpace);
  CHECK(class_of(0x0301) == kWord);
  CHECK(class_of(0x1C89) == (kLetter | kWord));  // Unicode 16
  CHECK(class_of(0x2E49) == 0);                  // punctuation of Unicode 10, which Punctuation does not know
  CHECK(class_of(0x11DE0) == kDigit);            // Unicode 17, which only Rust's own tables have
  CHECK(class_of(0x10FFFF) == 0);
}

TEST_CASE("UTF-8 that is not") {
  using unicode::find_invalid_utf8;
  CHECK(find_invalid_utf8("aé東😀") == std::string::npos);
  CHECK(find_invalid_utf8("a\xC0\x80") == 1);           // overlong
  CHECK(find_invalid_utf8("\xED\xA0\x80") == 0);        // surrogate
  CHECK(find_invalid_utf8("ab\xF4\x90\x80\x80") == 2);  // above U+10FFFF
  CHECK(find_invalid_utf8("ab\xE2\x82") == 2);          // cut off
}

TEST_CASE("each maximal invalid part becomes one U+FFFD, and a cut-off end is left") {
  std::string out;
  CHECK(unicode::append_lossy(out, "a\xE2\x82z\xFF\xF0\x9F\x98") == 5);
  CHECK(out == "a\uFFFDz\uFFFD");
  out.clear();
  CHECK(unicode::append_lossy(out, "\xE0\x80\xED\xA0\xF5") == 5);
  CHECK(out == "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST_CASE("NFC") {
  using unicode::to_nfc;
  CHECK(to_nfc("plain") == "plain");
  CHECK(to_nfc("e\u0301") == "\u00E9");
  CHECK(to_nfc("\u212B") == "\u00C5");
  CHECK(to_nfc("q\u0307\u0323") == "q\u0323\u0307");   // marks in order
  CHECK(to_nfc("\u0344") == "\u0308\u0301");           // never composed
  CHECK(to_nfc("\u0958") == "\u0915\u093C");           // composition exclusion
  CHECK(to_nfc("\u1112\u1161\u11AB") == "\uD55C");     // Hangul
  CHECK(to_nfc("\u09C7\u09BE") == "\u09CB");           // two starters
  CHECK(to_nfc("a\u0301x\u0301") == "\u00E1x\u0301");  // blocked by nothing, then no composite
  CHECK(to_nfc("s\u0323\u0307") == to_nfc("s\u0307\u0323"));
}

TEST_CASE("patterns cut where the regular expressions do") {
  const auto cut = [](std::string_view regex, std::string_view text) {
    const SplitPattern pattern = find_split_pattern(regex);
    const bool known = pattern != nullptr;
    REQUIRE(known);
    std::string pieces;
    for (size_t pos = 0, size; pos < text.size(); pos += size) {
      size = pattern(text, pos);
      REQUIRE(size > 0);
      pieces.append(pieces.empty() ? "" : "|").append(text.substr(pos, size));
    }
    return pieces;
  };
  CHECK(cut(kGpt2Pattern, "it's IT'S  x 12a!?\n\n b") == "it|'s| IT|'|S| | x| 12|a|!?|\n\n| b");
  CHECK(cut(kQwen2Pattern, "it's IT'S  x 12a!?\n\n b") == "it|'s| IT|'S| | x| |1|2|a|!?\n\n| b");
  CHECK(cut(kLlama3Pattern, "12345 a\t b") == "123|45| a|\t| b");
  CHECK(cut(kQwen2Pattern, "x'\u017F\u017F") == "x|'\u017F|\u017F");
  CHECK(cut(kGpt2Pattern, "x'\u017F") == "x|'|\u017F");
  CHECK(cut(kQwen2Pattern, "  \n \n  a   ") == "  \n \n| | a|   ");
  CHECK(cut(kQwen2Pattern, "\"abc\u3000def (x)\r\n") == "\"abc|\u3000def| (|x|)\r\n");
  const bool unknown = find_split_pattern("\\p{L}+") == nullptr;
  CHECK(unknown);
}

TEST_CASE("general categories") {
  using namespace unicode;
  CHECK(category_bit('A') == category_mask("Lu"));
  CHECK(category_bit(0x1C89) == category_mask("Lu"));  // Unicode 16
  CHECK(category_bit(0x0301) == category_mask("Mn"));
  CHECK(category_bit(0x10FFFF) == category_mask("Cn"));
  CHECK((category_bit('7') & category_mask("N")) != 0);
  CHECK((category_mask("L") & category_mask("M")) == 0);
  CHECK(category_mask("") == 0);
  CHECK(category_mask("u ") == 0);
  CHECK(category_mask("Greek") == 0);
  const uint32_t letters = category_mask("L"), numbers = category_mask("N");
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const bool letter = (category_bit(c) & letters) != 0, number = (category_bit(c) & numbers) != 0;
    if (letter != ((class_of(c) & kLetter) != 0) || number != ((class_of(c) & kNumber) != 0)) FAIL(uint32_t{c});
  }
}

namespace {

// All matches, the text between them left out.
std::string matches(std::string_view expression, std::string_view text) {
  const Regex regex(expression);
  Regex::Budget budget(text);
  std::string found;
  for (size_t pos = 0; pos < text.size();) {
    const auto [begin, end] = regex.find(text, pos, budget);
    if (begin == text.size()) break;
    found.append(found.empty() ? "" : "|").append(text.substr(begin, end - begin));
    pos = std::max(end, begin + 1);
  }
  return found;
}

}  // namespace

TEST_CASE("expressions match as Ruby's would") {
  CHECK(matches("a|ab", "ab abb") == "a|a");
  CHECK(matches("a+?b|c{2}", "aab ccc") == "aab|cc");
  CHECK(matches("(?>a+)ab|x", "aab x") == "x");
  CHECK(matches("a?+ab|x", "ab aab x") == "aab|x");
  CHECK(matches("(?:ab|a){2,3}c", "abac aabab ababac") == "abac|ababac");
  CHECK(matches("(?i:'s|k)", "'S \u017F '\u017F \u212A") == "'S|'\u017F|\u212A");
  CHECK(matches("\\s+(?!\\S)|\\s+", "a   b  ") == "  | |  ");
  CHECK(matches("[^a-c\\s]+|[[xy]a]{1,2}", "abdxa") == "a|dx|a");
  CHECK(matches("\\p{^Lu}\\P{Ll}", "aB9A") == "aB|9A");
  CHECK(matches("[\\-.\\]]+|a{,2}b|x{", "-.] aaab x{") == "-.]|aab|x{");
  CHECK(matches("\\x{6771}|\\u4EAC", "東京都") == "東|京");
}

TEST_CASE("expressions that are not supported, or none, are errors that say where") {
  for (const char* bad : {"(?<=a)b", "\\bword", "\\w+", "^a", "a$", "(a)\\1", "\\p{Greek}", "[[:alpha:]]", "[a&&b]",
                          "(?:a?)*", "(?x: a)", "a{2}?", "a{2000}", "(?i:é)"}) {
    CAPTURE(bad);
    EXPECT_ERROR(unsupported, "regular expression", Regex{bad});
  }
  for (const char* bad : {"(", ")", "a)", "[a", "*", "a|+", "\\", "\\p{L", "\\pL", "[z-a]", "a{3,2}", "\\x{110000}", "\\uD800", "\xFF"}) {
    CAPTURE(bad);
    EXPECT_ERROR(load, "regular expression", Regex{bad});
  }
  EXPECT_ERROR(unsupported, "regular expression", Regex{std::string(5000, 'a')});
  EXPECT_ERROR(unsupported, "nesting", Regex{std::string(100, '(') + "a" + std::string(100, ')')});
  EXPECT_ERROR(unsupported, "of this size", Regex{"((((a{2}b){50}){50}){50}){50}"});
}

TEST_CASE("an expression that explodes is stopped") {
  const Regex regex("(?:a+)+b|(?:a|aa)+c");
  const std::string text(300, 'a');
  Regex::Budget budget(text);
  EXPECT_ERROR(invalid_request, "takes too long", regex.find(text, 0, budget));
  const std::string spaces(1 << 18, ' ');  // backs off all the way, once
  CHECK(matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", spaces).size() == spaces.size());
}
