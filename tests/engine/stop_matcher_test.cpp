#include "engine/stop_matcher.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using expert::StopMatcher;

namespace {

// The whole text is known: it ends before the stop string that begins first.
std::string plain_cut(const std::string& text, const std::vector<std::string>& stops) {
  size_t cut = text.size();
  for (const std::string& stop : stops) cut = std::min(cut, text.find(stop));
  return text.substr(0, cut);
}

struct Streamed {
  std::string text;
  bool found = false;
};

Streamed stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopMatcher matcher(stops);
  Streamed result;
  for (const std::string& piece : pieces) {
    result.text += matcher.push(piece);
    if (matcher.found()) break;
  }
  result.text += matcher.finish();
  result.found = matcher.found();
  return result;
}

}  // namespace

TEST_CASE("text without stop strings passes at once") {
  StopMatcher matcher({});
  CHECK(matcher.push("abc") == "abc");
  CHECK(matcher.finish().empty());
  CHECK_FALSE(matcher.found());
}

TEST_CASE("what may become a stop string is held back, and released when it does not") {
  StopMatcher matcher({"END"});
  CHECK(matcher.push("the E") == "the ");
  CHECK(matcher.push("N") == "");
  CHECK(matcher.push("Emy") == "ENEmy");
  CHECK(matcher.push(" END of") == " ");
  CHECK(matcher.found());
  CHECK(matcher.push("more").empty());
  CHECK(matcher.finish().empty());
}

TEST_CASE("a stop string split over pieces and characters") {
  const std::vector<std::string> stops = {"\xF0\x9F\x8E\x89!"};  // a character of four bytes, then one
  CHECK(stream({"a\xF0\x9F\x8E\x89", "!", "b"}, stops).text == "a");
  CHECK(stream({"a\xF0\x9F\x8E\x89", "?", "b"}, stops).text == "a\xF0\x9F\x8E\x89?b");
}

TEST_CASE("the stop string that begins first wins, wherever pieces end") {
  const std::vector<std::string> stops = {"bc", "abcd"};
  CHECK(stream({"xabcdy"}, stops).text == "x");
  CHECK(stream({"x", "a", "b", "c", "d", "y"}, stops).text == "x");
  CHECK(stream({"x", "a", "b", "c", "e"}, stops).text == "xa");  // abcd did not come
  const Streamed at_end = stream({"xabc"}, stops);               // nor will it: the text has ended
  CHECK(at_end.text == "xa");
  CHECK(at_end.found);
}

TEST_CASE("a partial stop string at the end of the text is text") {
  const Streamed result = stream({"ab", "EN"}, {"END"});
  CHECK(result.text == "abEN");
  CHECK_FALSE(result.found);
}

TEST_CASE("any cut into pieces gives the plain result") {
  std::mt19937_64 rng(11);
  const auto random_text = [&](size_t longest) {
    std::string text(1 + rng() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + rng() % 2);
    return text;
  };
  int found = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string text = random_text(24);
    std::vector<std::string> stops(1 + rng() % 3);
    for (std::string& stop : stops) stop = random_text(6);
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t count = 1 + rng() % 4;
      pieces.push_back(text.substr(at, count));
      at += count;
    }
    const Streamed result = stream(pieces, stops);
    const std::string expected = plain_cut(text, stops);
    REQUIRE(result.text == expected);
    REQUIRE(result.found == (expected.size() < text.size()));
    found += result.found;
  }
  CHECK(found > 5000);
}
