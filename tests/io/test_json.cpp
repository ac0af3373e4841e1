#include <doctest/doctest.h>

#include "io/json.h"
#include "support/expect_error.h"

using namespace expert;

TEST_CASE("documents keep their values and the order of their keys") {
  const Json json = parse_json("\xef\xbb\xbf{\"b\": [1, -2, 3.5, true, null, \"\\u00e9\"], \"a\": {\"c\": {}}}", "x");
  CHECK(json.dump() == "{\"b\":[1,-2,3.5,true,null,\"é\"],\"a\":{\"c\":{}}}");
  CHECK(parse_json("3", "x") == 3);
  CHECK(parse_json("[[],{},[{}]]", "x").dump() == "[[],{},[{}]]");
}

TEST_CASE("broken documents say where") {
  EXPECT_ERROR(load, "x.json: not valid JSON at line 2, column", parse_json("{\n  \"a\": }", "x.json"));
  EXPECT_ERROR(load, "not valid JSON", parse_json("", "x"));
  EXPECT_ERROR(load, "not valid JSON", parse_json("{} {}", "x"));
  EXPECT_ERROR(load, "not valid JSON", parse_json("\"\xc3\"", "x"));
  EXPECT_ERROR(load, "not valid JSON", parse_json("[1e999]", "x"));
  EXPECT_ERROR(load, "not valid JSON", parse_json("[NaN]", "x"));
  EXPECT_ERROR(load, "not valid JSON", parse_json(std::string("[\0]", 3), "x"));
  EXPECT_ERROR(manifest, "not valid JSON", parse_json("{", "x", {}, ErrorCode::manifest));
}

TEST_CASE("duplicate keys are refused at every level") {
  EXPECT_ERROR(load, "key \"a\" is given twice", parse_json(R"({"a":1,"b":2,"a":1})", "x"));
  EXPECT_ERROR(load, "key \"a\" is given twice", parse_json(R"({"x":[{"a":1,"\u0061":2}]})", "x"));
  CHECK(parse_json(R"({"a":{"a":{"a":1}},"b":{"a":1}})", "x").size() == 2);
}

TEST_CASE("depth and size are limited") {
  const std::string deep = std::string(128, '[') + std::string(128, ']');
  CHECK(parse_json(deep, "x").is_array());
  EXPECT_ERROR(load, "nested deeper than 128 levels", parse_json("[" + deep + "]", "x"));
  EXPECT_ERROR(load, "nested deeper", parse_json(std::string(5'000'000, '['), "x"));
  std::string objects;
  for (int i = 0; i < 200; ++i) objects += "{\"a\":";
  EXPECT_ERROR(load, "nested deeper", parse_json(objects, "x"));
  EXPECT_ERROR(load, "more than the limit of 3", parse_json("[1,2]", "x", {.max_bytes = 3}));
}

TEST_CASE("a large object is read in reasonable time") {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += "\"token" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  text.back() = '}';
  CHECK(parse_json(text, "x").size() == 200'000);
}

TEST_CASE("typed fields") {
  const Json json = parse_json(R"({"s":"t","i":3,"f":3.0,"h":3.5,"b":true,"n":null,"l":["a","b"],"m":[1],"o":{"s":1},
      "big":18446744073709551615})",
                               "x");
  const JsonFields fields(json, "x");
  CHECK(fields.string("s") == "t");
  CHECK(fields.integer("i") == 3);
  CHECK(fields.integer("f") == 3);
  CHECK(fields.number("h") == 3.5);
  CHECK(fields.boolean("b"));
  CHECK_FALSE(fields.has("n"));
  CHECK(fields.integer_or("n", 7) == 7);
  CHECK(fields.strings("l") == std::vector<std::string>{"a", "b"});
  CHECK(fields.strings_or_empty("absent").empty());
  CHECK_FALSE(fields.optional_string("absent"));
  EXPECT_ERROR(load, "x: \"absent\" is missing", fields.string("absent"));
  EXPECT_ERROR(load, "\"i\" must be a string, is 3", fields.string("i"));
  EXPECT_ERROR(load, "\"h\" must be an integer, is 3.5", fields.integer("h"));
  EXPECT_ERROR(load, "\"big\" must be a 64-bit integer", fields.integer("big"));
  EXPECT_ERROR(load, "\"s\" must be a number", fields.number_or("s", 1));
  EXPECT_ERROR(load, "\"i\" must be true or false", fields.boolean("i"));
  EXPECT_ERROR(load, "\"m\" must be a list of strings", fields.strings("m"));
  EXPECT_ERROR(load, "\"s\" must be an object", fields.object("s"));
  EXPECT_ERROR(load, "x: o: \"s\" must be a string", fields.object("o").string("s"));
  EXPECT_ERROR(load, "must be a JSON object", JsonFields(json["l"], "x"));
}
