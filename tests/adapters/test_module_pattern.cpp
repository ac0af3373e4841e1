#include <doctest/doctest.h>

#include "adapters/module_pattern.h"
#include "support/expect_error.h"

namespace {

using namespace expert;

bool matches(std::string_view regex, std::string_view name) { return ModulePattern(regex, "test").matches(name); }
bool suffix(std::string_view key, std::string_view name) { return SuffixPattern(key, "test").matches(name); }

constexpr std::string_view kName = "model.layers.17.self_attn.q_proj";

}  // namespace

TEST_CASE("patterns match whole names as Python's re.fullmatch") {
  CHECK(matches(".*q_proj", kName));
  CHECK_FALSE(matches("q_proj", kName));
  CHECK_FALSE(matches(".*q_pro", kName));
  CHECK(matches(R"(model\.layers\.\d+\.(self_attn|mlp)\.(q|k)_proj)", kName));
  CHECK(matches(R"(model\.layers\.1[0-9]\..*)", kName));
  CHECK_FALSE(matches(R"(model\.layers\.[^1]\d\..*)", kName));
  CHECK(matches(R"(.*\.\d{2}\..*)", kName));
  CHECK_FALSE(matches(R"(.*\.\d{3,}\..*)", kName));
  CHECK(matches(R"(.*\.\d{1,3}?\..*)", kName));
  CHECK(matches(R"((?:model\.)?layers.*|^model\b.*\bq_proj$)", kName));
  CHECK(matches(R"((?P<part>model).(\w+\.)+\w+)", kName));
  CHECK_FALSE(matches(R"(model\B\..*)", kName));
  CHECK(matches("", ""));
  CHECK(matches("a{,2}b{0}", "aa"));
  CHECK(matches("a{x", "a{x"));
  CHECK(matches("[]a]-", "]-"));
  CHECK(matches("[a-c-]+", "b-"));
  CHECK(matches("(a*)*", "aaaa"));
  CHECK(matches("(a|b|)+c", "abac"));
}

TEST_CASE("patterns look ahead and behind as Python's do") {
  CHECK(matches("(?!mlp).*", kName));
  CHECK_FALSE(matches("(?!model).*", kName));
  CHECK(matches(R"(model\.layers\.(?!0\.|1\.)\d+\..*)", kName));
  CHECK_FALSE(matches(R"(model\.layers\.(?!17\.)\d+\..*)", kName));
  CHECK(matches(R"((?=.*q_proj$)model.*)", kName));
  CHECK_FALSE(matches(R"((?=.*k_proj$)model.*)", kName));
  CHECK(matches(R"(.*(?<=self_attn\.)[qk]_proj)", kName));
  CHECK(matches(R"(.*(?<!mlp\.)q_proj)", kName));
  CHECK_FALSE(matches(R"(.*(?<!attn\.)q_proj)", kName));
  CHECK(matches(R"((?!(?=x)x).*(?<=(?:q|k)_pro)j)", kName));
  CHECK_FALSE(matches("(?<=a)b", "b"));
  CHECK(matches("a(?=b)(?!c)b", "ab"));
  CHECK(matches("(?=a*b)a{2}(?<=^aa)b(?=$)", "aab"));
}

TEST_CASE("patterns without case") {
  CHECK(matches("(?i)MODEL.*Q_PROJ", kName));
  CHECK(matches("(?is)model.*[P-R]_proj", kName));
  CHECK(matches("(?i:MODEL).*q_proj", kName));
  CHECK_FALSE(matches("(?i:MODEL).*Q_proj", kName));
  CHECK_FALSE(matches("(?i)[^M]odel.*", kName));
  CHECK_FALSE(matches("(?i)(?-i:MODEL).*", kName));
}

TEST_CASE("keys of rank_pattern match a suffix at a dot") {
  CHECK(suffix("q_proj", kName));
  CHECK(suffix("self_attn.q_proj", kName));
  CHECK(suffix(std::string(kName), kName));
  CHECK_FALSE(suffix("proj", kName));
  CHECK_FALSE(suffix("attn.q_proj", kName));
  CHECK(suffix("selfXattn.q_proj", "model.selfXattn.q_proj"));
  CHECK(suffix("layers.17.*", kName));
  CHECK(suffix("^model.layers.17.self_attn.q_proj", kName));
  CHECK_FALSE(suffix("^layers.17.self_attn.q_proj", kName));
  CHECK(suffix("(q|k)_proj", kName));
}

TEST_CASE("what is malformed or not supported is refused") {
  for (const char* regex : {"(", ")", "(a", "[a", "a)", "*a", "a**", "\\", "a{3,2}", "[z-a]", "[\\d-z]", "(?P<x"}) {
    INFO(regex);
    EXPECT_ERROR(load, "pattern", ModulePattern(regex, "test"));
  }
  EXPECT_ERROR(load, "different lengths", ModulePattern("(?<=a|bc)d", "test"));
  EXPECT_ERROR(load, "different lengths", ModulePattern("(?<=a*)d", "test"));
  EXPECT_ERROR(load, "not at its start", ModulePattern("a(?i)b", "test"));
  EXPECT_ERROR(load, "flag", ModulePattern("(?x)a", "test"));
  EXPECT_ERROR(load, "back-reference", ModulePattern("(?P<a>b)(?P=a)", "test"));
  EXPECT_ERROR(load, "escape", ModulePattern("(a)\\1", "test"));
  EXPECT_ERROR(load, "possessive", ModulePattern("a++", "test"));
}

TEST_CASE("hostile patterns cost little") {
  std::string nested = "a";
  for (int i = 0; i < 40; ++i) nested = "(" + nested + ")*";
  CHECK_FALSE(matches(nested, std::string(200, 'a') + "b"));
  EXPECT_ERROR(load, "too large", ModulePattern("((((a{999}){999}){999}){999})", "test"));
  EXPECT_ERROR(load, "too large", ModulePattern("(((((){999}){999}){999}){999})", "test"));
  std::string looks = "a";
  for (int i = 0; i < 40; ++i) looks = "(?=.*" + looks + ").*";
  CHECK(matches(looks, std::string(200, 'a')));
  EXPECT_ERROR(load, "looks around", ModulePattern("((?=a)a){65}", "test"));
  EXPECT_ERROR(load, "nests", ModulePattern(std::string(2000, '(') + std::string(2000, ')'), "test"));
  EXPECT_ERROR(load, "longer", ModulePattern(std::string(5000, 'a'), "test"));
}
