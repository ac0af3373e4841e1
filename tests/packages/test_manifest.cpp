#include <doctest/doctest.h>

#include "packages/manifest.h"
#include "packages/manifests.h"
#include "packages/semver.h"
#include "support/expect_error.h"

using namespace expert;

namespace {

// The published manifest with one JSON pointer changed.
Manifest changed(const std::string& pointer, const Json& value) {
  Json json = Json::parse(test::kPublished);
  json[Json::json_pointer(pointer)] = value;
  return parse_manifest(json.dump());
}

}  // namespace

TEST_CASE("a manifest as published is read as it is") {
  const Manifest manifest = parse_manifest(test::kPublished);
  CHECK(manifest.schema_version == "2.0");
  CHECK(manifest.name == "expert-sql");
  CHECK(manifest.version == "0.3.0");
  CHECK(manifest.license == "cc-by-4.0");
  REQUIRE(manifest.base_models.size() == 1);
  const ManifestBaseModel& base = manifest.base_models[0];
  CHECK(base_name_matches(base.name, "Qwen3-0.6B"));
  CHECK(base_name_matches(base.name, "/models/qwen3_0.6b/"));
  CHECK_FALSE(base_name_matches(base.name, "Qwen3-1.7B"));
  CHECK_FALSE(base_name_matches("", ""));
  CHECK_FALSE(base.sha256);
  CHECK(base.prompt_template == "qwen3");
  CHECK(base.rope_scaling["factor"] == 8.0);
  REQUIRE(base.adapters.size() == 1);
  CHECK(base.adapters[0].type == "dora");
  CHECK(base.adapters[0].r == 12);
  CHECK_FALSE(base.adapters[0].sha256);
  CHECK(manifest.routing.priority == 0.85);
  CHECK(manifest.routing.keywords == std::vector<std::string>{"sql", "find all"});
  CHECK(manifest.constraints.load_order == 6);
  CHECK(manifest.decoding.temperature == 0.7);
  CHECK(manifest.decoding.top_k == 20);
  CHECK(manifest.decoding.min_p == 0.0);
  CHECK(manifest.decoding.use_grammar);
  CHECK(manifest.decoding.grammar_file == "grammar.gbnf");
  CHECK(manifest.decoding.stop_sequences == std::vector<std::string>{";", "\n\n"});
  CHECK(manifest.dialect() == "sql");
  CHECK(manifest.raw["unknown_key"]["kept"] == Json{1, 2});
  CHECK(manifest.raw["_comment"] == "free text");
  CHECK(manifest.warnings.size() == 1);  // rope_scaling
}

TEST_CASE("the first schema, names without prefix, older places of keys") {
  const Manifest manifest = parse_manifest(test::kFirstSchema);
  CHECK(manifest.schema_version == "1.0");
  CHECK(manifest.name == "expert-json");
  CHECK(manifest.version == "1.0.0-alpha.1");
  CHECK(manifest.base_models[0].sha256 == "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
  CHECK(manifest.base_models[0].adapters[0].path == "weights/adapter.safetensors");
  CHECK(manifest.constraints.load_order == 2);
  CHECK(manifest.constraints.required == std::vector<std::string>{"other@>=1.0.0"});
  CHECK(manifest.routing.priority == 0.5);
  CHECK(manifest.dialect() == "json");
}

TEST_CASE("names and versions are checked before they can form a path") {
  for (const char* name :
       {"../evil", "expert-../x", "Expert-SQL", "sql_x", "", "expert-", "-a", "expert--a", "a/b", "a b", "café"}) {
    CAPTURE(name);
    EXPECT_ERROR(manifest, "must be lower-case", changed("/name", name));
  }
  EXPECT_ERROR(manifest, "must be lower-case", changed("/name", std::string(65, 'a')));
  for (const char* version : {"1.0", "../1.0.0", "1.0.0/..", "01.0.0", "1.0.0-", "1.0.0-a..b", "1.0.0-01", "v1.0.0", "",
                              "99999999999999999999.0.0", "1.0.0+"}) {
    CAPTURE(version);
    EXPECT_ERROR(manifest, "no semantic version", changed("/version", version));
  }
  EXPECT_ERROR(manifest, "\"name\" must be a string", changed("/name", 3));
  EXPECT_ERROR(manifest, "\"version\" is missing", changed("/version", nullptr));
}

TEST_CASE("schemas that contradict themselves") {
  EXPECT_ERROR(manifest, "needs either", changed("/base_model", Json{{"name", "x"}}));
  EXPECT_ERROR(manifest, "\"3.0\" is not known", changed("/schema_version", "3.0"));
  EXPECT_ERROR(manifest, "does not go with", changed("/schema_version", "1.0"));
  EXPECT_ERROR(manifest, "\"base_models\" is empty", changed("/base_models", Json::array()));
  EXPECT_ERROR(manifest, "must be a list", changed("/base_models", "x"));
  EXPECT_ERROR(manifest, "base_models[0]: must be a JSON object", changed("/base_models/0", 3));
  EXPECT_ERROR(manifest, "\"name\" is empty", changed("/base_models/0/name", "///"));
  EXPECT_ERROR(manifest, "given twice", parse_manifest(R"({"name":"a","name":"b"})"));
  EXPECT_ERROR(manifest, "nested deeper", parse_manifest(std::string(10'000, '[')));
  EXPECT_ERROR(manifest, "must be a JSON object", parse_manifest("[]"));
}

TEST_CASE("values out of range are refused, unknown ones are not") {
  EXPECT_ERROR(manifest, "\"priority\" is 1.5", changed("/routing/priority", 1.5));
  EXPECT_ERROR(manifest, "\"top_p\"", changed("/training/decoding/top_p", 0));
  EXPECT_ERROR(manifest, "\"temperature\"", changed("/training/decoding/temperature", -1));
  EXPECT_ERROR(manifest, "\"top_k\"", changed("/training/decoding/top_k", -1));
  EXPECT_ERROR(manifest, "must be a list of strings", changed("/capabilities", Json{1}));
  EXPECT_ERROR(manifest, "is no SHA-256", changed("/base_models/0/sha256", "abc"));
  EXPECT_ERROR(manifest, "\"..\"", changed("/training/decoding/grammar_file", "../x"));
  CHECK(changed("/base_models/0/prompt_template", "unheard-of").warnings.size() == 2);
  CHECK(changed("/routing", nullptr).routing.keywords.empty());
}

TEST_CASE("dialects follow the capabilities in a fixed order") {
  auto dialect = [](std::vector<std::string> capabilities) { return changed("/capabilities", capabilities).dialect(); };
  CHECK(dialect({"format:sql", "tech:neo4j"}) == "cypher");
  CHECK(dialect({"format:json", "database:postgres"}) == "sql");
  CHECK(dialect({"task:text2sql"}) == "sql");
  CHECK(dialect({"tech:javascript"}) == "typescript");
  CHECK(dialect({"language:en", "task:jsonish"}) == "");
}

TEST_CASE("decoding defaults of a composition") {
  ManifestDecoding a, b;
  a.temperature = 0.1, a.stop_sequences = {"x", ";"};
  b.temperature = 0.9, b.stop_sequences = {";", "y"};
  CHECK(merge_decoding({{"b", 1, &b}, {"a", 1, &a}}).temperature == 0.1);
  CHECK(merge_decoding({{"a", 1, &a}, {"b", -2, &b}}).temperature == 0.9);
  CHECK(merge_decoding({{"b", 1, &b}, {"a", 1, &a}}).stop_sequences == std::vector<std::string>{"x", ";", "y"});
  CHECK_FALSE(merge_decoding({{"a", 2, nullptr}, {"b", 1, &b}}).temperature);
  CHECK(to_parameters(a) == Json{{"temperature", 0.1}, {"stop", {"x", ";"}}});
  CHECK(to_parameters({}) == Json::object());
}

TEST_CASE("versions compare as semver.org orders them") {
  const char* ordered[] = {"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta",
                           "1.0.0-beta",  "1.0.0-beta.2",  "1.0.0-beta.11",
                           "1.0.0-rc.1",  "1.0.0",         "2.0.0",
                           "2.1.0",       "2.1.1",         "10.0.0"};
  for (size_t i = 0; i < std::size(ordered); ++i) {
    for (size_t j = 0; j < std::size(ordered); ++j) {
      CHECK(((Version::parse(ordered[i]) <=> Version::parse(ordered[j])) < 0) == (i < j));
    }
  }
  CHECK(Version::parse("1.0.0+a") == Version::parse("1.0.0+b"));
  CHECK(Version::parse("1.2.3-a.b+c.d").str() == "1.2.3-a.b+c.d");
}
