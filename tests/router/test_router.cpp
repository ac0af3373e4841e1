#include "router/router.h"

#include <doctest/doctest.h>

#include "router/words.h"

using namespace expert;

namespace {

RouteCandidate candidate(const std::string& name, std::vector<std::string> capabilities, std::vector<std::string> keywords,
                         std::vector<std::string> excluded = {}, double priority = 0.5) {
  RouteCandidate result;
  result.name = name;
  result.version = "1.0.0";
  result.capabilities = std::move(capabilities);
  result.routing.keywords = std::move(keywords);
  result.routing.exclude_keywords = std::move(excluded);
  result.routing.priority = priority;
  return result;
}

// Names that mean nothing, so that no rule can be tied to a name.
const std::vector<RouteCandidate> kExperts = {
    candidate("expert-alpha", {"task:text2sql", "format:sql"},
              {"sql", "query", "table", "users", "find all", "group by", "older than", "get", "show", "from"},
              {"what is", "explain", "poem"}, 0.85),
    candidate("expert-beta", {"task:commands", "tech:shell"}, {"shell", "files", "folder", "directory", "bash"}),
    candidate("expert-gamma", {"format:json"}, {"as json", "json object", "in json"}),
    candidate("expert-delta", {"task:extraction", "format:json"}, {"extract", "fields"}),
};

std::vector<std::string> chosen(std::string_view prompt, std::string_view schema = {},
                                const std::vector<RouteCandidate>& experts = kExperts) {
  std::vector<std::string> names;
  for (const RoutedExpert& expert : route(prompt, experts, {.schema = schema}).experts) names.push_back(expert.name.substr(7));
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("words are whole, folded and Unicode-aware") {
  auto texts = [](std::string_view text) {
    std::vector<std::string> result;
    for (const Word& word : split_words(text)) result.push_back(word.text);
    return result;
  };
  CHECK(texts("Find ALL users, older-than 25!") == Names{"find", "all", "users", "older", "than", "25"});
  CHECK(texts("describe_text C++ and C# a+b") == Names{"describe_text", "c++", "and", "c#", "a", "b"});
  CHECK(texts("USUÁRIOS «Größe» ПРИВЕТ ΑΒΓ") == Names{"usuários", "größe", "привет", "αβγ"});
  CHECK(texts("查询 users") == Names{"查", "询", "users"});
  CHECK(texts("a\xff" "b \xed\xa0\x80 c") == Names{"a", "b", "c"});
  CHECK(texts("").empty());
  CHECK(split_words("group by")[1].follows);
  CHECK(split_words("group\n  by")[1].follows);
  CHECK_FALSE(split_words("group. by")[1].follows);
}

TEST_CASE("content experts by keywords with word boundaries") {
  CHECK(chosen("Find all users older than 25") == Names{"alpha"});
  CHECK(chosen("find   all\n customers") == Names{"alpha"});
  CHECK(chosen("FIND ALL CUSTOMERS") == Names{"alpha"});
  CHECK(chosen("list the files of this folder") == Names{"beta"});
  CHECK(chosen("my tablet is broken").empty());         // not "table"
  CHECK(chosen("we met the target; groups by").empty());  // not "get", not "group by"
  CHECK(chosen("group. By the way").empty());
  CHECK(chosen("").empty());
  CHECK(chosen("get the show from me").size() <= 1);
  CHECK(chosen("get it").empty());  // everyday words alone say nothing
}

TEST_CASE("general questions go to the base, but only when they open the prompt") {
  CHECK(chosen("What is a table?").empty());
  CHECK(chosen("Please, can you explain SQL").empty());
  CHECK(chosen("Who's the author of bash?").empty());
  CHECK(chosen("Find all users who are active") == Names{"alpha"});
  CHECK(chosen("query the column describe_text of the table") == Names{"alpha"});
  CHECK(chosen("Show why the query on table users is slow") == Names{"alpha"});
  CHECK(chosen("What is the sql query that counts the rows of table users") == Names{"alpha"});  // clear evidence
  CHECK(chosen("What is the oldest user's name?", "users(id,name,age)") == Names{"alpha"});    // a schema is evidence
}

TEST_CASE("a schema counts for experts that query one") {
  CHECK(chosen("everybody above 30", "users(id,name,age)") == Names{"alpha"});
  CHECK(chosen("everybody above 30").empty());
  CHECK(chosen("list the files of this folder in the bash shell", "users(id)") == Names{"beta"});
}

TEST_CASE("exclusions") {
  CHECK(chosen("a poem on the users table").empty());
  CHECK(chosen("an sql query: table users, group by poem") == Names{"alpha"});  // 4 hits against one exclusion
}

TEST_CASE("format experts join by their own keywords") {
  CHECK(chosen("Find all users older than 25 as JSON") == Names{"alpha", "gamma"});
  CHECK(chosen("list the files of this folder, in json") == Names{"beta", "gamma"});
  CHECK(chosen("hello there, as json") == Names{"gamma"});
  CHECK(chosen("What is json?").empty());
  // delta answers in JSON anyway
  CHECK(chosen("extract the fields as json") == Names{"delta"});
}

TEST_CASE("scores are bounded, grow with evidence and are not lowered by a long keyword list") {
  std::vector<std::string> many = {"sql"};
  for (int i = 0; i < 500; ++i) many.push_back("unused" + std::to_string(i));
  const std::vector<RouteCandidate> experts = {candidate("expert-few", {"task:a"}, {"sql"}), candidate("expert-many", {"task:b"}, many)};
  const RoutePlan plan = route("some sql", experts);
  REQUIRE(plan.considered.size() == 2);
  CHECK(plan.considered[0].score == doctest::Approx(0.375));  // 1/(1+1) · (0.5 + 0.5·0.5)
  CHECK(plan.considered[1].score == doctest::Approx(0.375));
  CHECK(plan.experts.size() == 1);
  CHECK(plan.experts[0].name == "expert-few");  // the tie goes by name
  CHECK(plan.confidence == doctest::Approx(0.375 - 0.1875));

  std::string prompt;
  for (int i = 0; i < 500; ++i) prompt += "unused" + std::to_string(i) + " ";
  const RoutePlan full = route(prompt, {candidate("expert-x", {}, many, {}, 1.0)});
  CHECK(full.experts.at(0).score == doctest::Approx(500.0 / 501.0));
  const RoutePlan twice = route("sql SQL sql", {candidate("expert-x", {}, {"sql", "SQL", " sql "})});
  CHECK(twice.experts.at(0).score == doctest::Approx(0.375));  // one distinct keyword
}

TEST_CASE("priority decides between equal evidence") {
  const std::vector<RouteCandidate> experts = {candidate("expert-a", {"task:a"}, {"sql"}, {}, 0.5),
                                               candidate("expert-b", {"task:b"}, {"sql"}, {}, 0.9)};
  CHECK(route("sql", experts).experts.at(0).name == "expert-b");
}

TEST_CASE("the plan carries reasons, rejected candidates and parameters") {
  std::vector<RouteCandidate> experts = kExperts;
  experts[0].decoding.temperature = 0.1;
  experts[0].decoding.stop_sequences = {";"};
  experts[2].decoding.temperature = 0.9;
  experts[2].decoding.stop_sequences = {"}", ";"};
  const RoutePlan plan = route("Find all users older than 25 as JSON", experts);
  CHECK(plan.experts.at(0).reason == "matched users, find all, older than");
  CHECK(plan.experts.at(0).weight == 1.0);
  CHECK(plan.considered.size() == 4);
  CHECK(plan.considered.back().reason == "no keyword matched");
  CHECK(plan.considered.back().weight == 0.0);
  CHECK(plan.explanation == "expert-alpha (matched users, find all, older than) + expert-gamma (matched as json)");
  CHECK(plan.parameters == Json{{"temperature", 0.1}, {"stop", {";", "}"}}});
  const RoutePlan base = route("What is love?", experts);
  CHECK(base.explanation == "base: a general question");
  CHECK(base.parameters == Json::object());
  CHECK(base.confidence == 1.0);
}

TEST_CASE("incompatible experts and chain limits") {
  std::vector<RouteCandidate> experts = kExperts;
  experts[2].constraints.incompatible_with = {"alpha@>=1.0.0"};
  CHECK(chosen("Find all users as json", {}, experts) == Names{"alpha"});
  experts[2].constraints.incompatible_with.clear();
  experts[0].constraints.max_chain = 1;
  CHECK(chosen("Find all users as json", {}, experts) == Names{"alpha"});
}

TEST_CASE("the order of candidates does not matter") {
  std::vector<RouteCandidate> reversed(kExperts.rbegin(), kExperts.rend());
  for (const char* prompt : {"Find all users as json", "files and tables: query the folder", "hello", "extract sql files"}) {
    CHECK(chosen(prompt) == chosen(prompt, {}, reversed));
  }
}

TEST_CASE("long and hostile prompts are only slow in proportion") {
  std::string prompt;
  for (int i = 0; i < 200'000; ++i) prompt += "get get ";
  CHECK(route(prompt, kExperts).considered.size() == 4);
  CHECK(route(std::string(1'000'000, '\xff'), kExperts).experts.empty());
}
