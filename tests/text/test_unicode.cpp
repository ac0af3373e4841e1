#include <doctest/doctest.h>

#include <string>

#include "text/split_pattern.h"
#include "text/unicode.h"

using namespace expert;

TEST_CASE("classes of characters that other Unicode versions see differently") {
  using namespace unicode;
  CHECK(class_of('a') == (kLetter | kWord));
  CHECK(class_of('7') == (kNumber | kWord | kDigit));
  CHECK(class_of('_') == kWord);
  CHECK(class_of(0x00BD) == (kNumber | kDigit));  // ½ is no part of a word
  CHECK(class_of(0x180E) == 0);                   // left White_Space in Unicode 6.3
  CHECK(class_of(0x0085) == kSpace);
  CHECK(class_of(0x0301) == kWord);
  CHECK(class_of(0x1C89) == (kLetter | kWord));  // Unicode 16
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
