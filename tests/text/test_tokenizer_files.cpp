// Files that are missing, broken, hostile or of a kind that is not built: each refused with what, where and why.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "text/tokenizer.h"

using namespace expert;
using nlohmann::json;

namespace {

json small() {
  return json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
              "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}})");
}

std::shared_ptr<const Tokenizer> parse(const std::string& text) {
  TokenizerFiles files;
  files.tokenizer_json = text;
  return Tokenizer::parse(files, "dir");
}

// The small tokenizer with one value changed.
std::shared_ptr<const Tokenizer> with(const char* pointer, const json& value) {
  json data = small();
  data[json::json_pointer(pointer)] = value;
  return parse(data.dump());
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

}  // namespace

TEST_CASE("the smallest tokenizer works") {
  const auto tokenizer = parse(small().dump());
  CHECK(tokenizer->encode("abcba<s>x") == std::vector<int32_t>{2, 3, 1, 0, 4});  // x has no token and no unk
  CHECK(tokenizer->size() == 5);
  CHECK(with("/model/merges", json::parse(R"([["a", "b"]])"))->encode("ab") == std::vector<int32_t>{2});
  CHECK(with("/model/dropout", 0.0)->encode("ab") == std::vector<int32_t>{2});
}

TEST_CASE("space around an added token belongs to one token") {
  json data = small();
  data["added_tokens"][0]["content"] = "\n";
  data["added_tokens"][0]["lstrip"] = true;
  data["added_tokens"][0]["rstrip"] = true;
  const auto tokenizer = parse(data.dump());
  CHECK(tokenizer->encode("a\n\n") == std::vector<int32_t>{0, 4});  // as `tokenizers` 0.23
  CHECK(tokenizer->encode("a \n b\n\n\n c") == std::vector<int32_t>{0, 4, 1, 4, 3});
}

TEST_CASE("broken JSON says where") {
  EXPECT_ERROR(load, "dir/tokenizer.json: not valid JSON", parse(""));
  EXPECT_ERROR(load, "not valid JSON at line 1, column", parse(small().dump().substr(0, 100)));
  EXPECT_ERROR(load, "not valid JSON", parse(small().dump() + "x"));
  EXPECT_ERROR(load, "nested deeper than", parse(std::string(1'000'000, '[')));
  std::string deep = R"({"model": )";
  for (int i = 0; i < 100'000; ++i) deep += R"({"a":)";
  EXPECT_ERROR(load, "nested deeper than", parse(deep));
  EXPECT_ERROR(load, "an object with field", parse("[]"));
  EXPECT_ERROR(load, "given twice", parse(R"({"decoder": null, "decoder": null})"));
  EXPECT_ERROR(load, "occurs twice", parse(R"({"model": {"vocab": {}, "vocab": {}}})"));
}

TEST_CASE("vocabularies that lie") {
  EXPECT_ERROR(load, "field 'model' is missing", parse("{}"));
  EXPECT_ERROR(load, "needs 'vocab'", with("/model/vocab", nullptr));
  EXPECT_ERROR(load, "needs 'vocab'", with("/model/merges", 7));
  EXPECT_ERROR(load, "is not a token id", with("/model/vocab/c", -1));
  EXPECT_ERROR(load, "is not a token id", with("/model/vocab/c", 2147483647));
  EXPECT_ERROR(load, "too large", with("/model/vocab/c", 18446744073709551615u));
  EXPECT_ERROR(load, "far beyond", with("/model/vocab/c", 2000000000));
  EXPECT_ERROR(load, "number", with("/model/vocab/c", 1.5));
  EXPECT_ERROR(load, "string", with("/model/vocab/c", "3"));
  EXPECT_ERROR(load, "list", with("/model/vocab/c", json::array()));
  EXPECT_ERROR(load, "share id 2", with("/model/vocab/c", 2));
  EXPECT_ERROR(load, "lists token 'a' twice", parse(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})"));
}

TEST_CASE("more merges than are looked up at once: each is found, a wrong one is named by its own rank") {
  const auto character = [](int code) {  // of three bytes
    return std::string{static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
                       static_cast<char>(0x80 | (code & 63))};
  };
  const auto left = [&](int i) { return character(0x4E00 + i); };
  const auto right = [&](int i) { return character(0x5E00 + i); };
  json data = small();
  json& model = data["model"];
  data["added_tokens"] = json::array();
  model["vocab"] = json::object();
  model["merges"] = json::array();
  for (int i = 0; i < 150; ++i) {
    model["vocab"][left(i)] = 3 * i;
    model["vocab"][right(i)] = 3 * i + 1;
    model["vocab"][left(i) + right(i)] = 3 * i + 2;
    model["merges"].push_back(left(i) + " " + right(i));
  }
  const auto tokenizer = parse(data.dump());
  for (int i = 0; i < 150; ++i) {
    CHECK(tokenizer->encode(left(i) + right(i)) == std::vector<int32_t>{3 * i + 2});
    CHECK(tokenizer->encode(right(i) + left(i)) == std::vector<int32_t>{3 * i + 1, 3 * i});
  }
  model["merges"][131] = left(0) + " x";
  EXPECT_ERROR(load, "merge 131 needs token 'x'", parse(data.dump()));
}

TEST_CASE("merges that lie") {
  EXPECT_ERROR(load, "needs token 'x'", with("/model/merges/0", "x b"));
  EXPECT_ERROR(load, "needs token 'ba'", with("/model/merges/0", "b a"));
  EXPECT_ERROR(load, "not two tokens", with("/model/merges/0", "ab"));
  EXPECT_ERROR(load, "not two tokens", with("/model/merges/0", "a b c"));
  EXPECT_ERROR(load, "has 3 tokens", with("/model/merges/0", json::parse(R"(["a", "b", "c"])")));
  EXPECT_ERROR(load, "a list where none may be", with("/model/merges/0", json::parse(R"([["a"], "b"])")));
  EXPECT_ERROR(load, "number", with("/model/merges/0", 3));
}

TEST_CASE("added tokens that lie") {
  EXPECT_ERROR(load, "its place in the vocabulary is 4", with("/added_tokens/0/id", 7));
  EXPECT_ERROR(load, "its place in the vocabulary is 0", with("/added_tokens/0/content", "a"));
  EXPECT_ERROR(load, "added token is empty", with("/added_tokens/0/content", ""));
  EXPECT_ERROR(load, "at most 4096", with("/added_tokens/0/content", std::string(5000, 'x')));
  EXPECT_ERROR(load, "'special' must be true or false", with("/added_tokens/0/special", 1));
  EXPECT_ERROR(load, "must be a list", with("/added_tokens", 1));
}

TEST_CASE("what is not built is refused by name") {
  EXPECT_ERROR(unsupported, "'Unigram'", with("/model/type", "Unigram"));
  EXPECT_ERROR(unsupported, "dropout", with("/model/dropout", 0.1));
  EXPECT_ERROR(unsupported, "end_of_word_suffix '</w>'", with("/model/end_of_word_suffix", "</w>"));
  EXPECT_ERROR(unsupported, "normalizer 'NFKC'", with("/normalizer", {{"type", "NFKC"}}));
  EXPECT_ERROR(unsupported, "pre-tokenizer 'Whitespace'", with("/pre_tokenizer", {{"type", "Whitespace"}}));
  EXPECT_ERROR(unsupported, "decoder 'WordPiece'", with("/decoder", {{"type", "WordPiece"}}));
  EXPECT_ERROR(unsupported, "post-processor 'BertProcessing'", with("/post_processor", {{"type", "BertProcessing"}}));
  EXPECT_ERROR(
      unsupported, "\\p{Greek}",
      with("/pre_tokenizer",
           {{"type", "Split"}, {"behavior", "Isolated"}, {"invert", false}, {"pattern", {{"Regex", "\\p{Greek}+"}}}}));
  EXPECT_ERROR(unsupported, "regular expression",
               with("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", ""}}));
}

TEST_CASE("steps that would blow a text up are refused") {
  const json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}};
  CHECK(with("/normalizer", twice)->encode("a") == std::vector<int32_t>{0, 0, 0, 0});
  const json steps = json::array({twice, twice, twice, twice, twice, twice});
  EXPECT_ERROR(unsupported, "1024 times longer", with("/normalizer", {{"type", "Sequence"}, {"normalizers", steps}}));
  EXPECT_ERROR(unsupported, "1024 times longer", with("/decoder", {{"type", "Sequence"}, {"decoders", steps}}));
  json bytes = json::array();
  for (int i = 0; i < 11; ++i) bytes.push_back({{"type", "ByteLevel"}});
  EXPECT_ERROR(unsupported, "1024 times longer",
               with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", bytes}}));
}

TEST_CASE("templates") {
  json processor = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}})");
  const auto tokenizer = with("/post_processor", processor);
  CHECK(tokenizer->encode("c") == std::vector<int32_t>{3});
  CHECK(tokenizer->encode("c", {true, true}) == std::vector<int32_t>{4, 3});
  CHECK(tokenizer->encode("", {true, true}) == std::vector<int32_t>{4});
  EXPECT_ERROR(unsupported, "two TemplateProcessing",
               with("/post_processor", {{"type", "Sequence"}, {"processors", {processor, processor}}}));
  processor["special_tokens"]["<s>"]["ids"] = {99};
  EXPECT_ERROR(load, "unknown id 99", with("/post_processor", processor));
  processor["special_tokens"] = json::object();
  EXPECT_ERROR(load, "field '<s>' is missing", with("/post_processor", processor));
  processor["single"] = json::array();
  EXPECT_ERROR(unsupported, "sequence A once", with("/post_processor", processor));
}

TEST_CASE("directories") {
  test::TempDir dir;
  EXPECT_ERROR(load, "neither tokenizer.json nor vocab.json", Tokenizer::load(dir.path()));
  std::filesystem::create_directory(dir / "tokenizer.json");
  EXPECT_ERROR(load, "not a file", Tokenizer::load(dir.path()));
  std::filesystem::remove(dir / "tokenizer.json");
  REQUIRE(mkfifo((dir / "tokenizer.json").c_str(), 0600) == 0);
  EXPECT_ERROR(load, "not a file", Tokenizer::load(dir.path()));
  std::filesystem::remove(dir / "tokenizer.json");

  write(dir / "vocab.json", R"({"a": 0, "b": 1, "ab": 2})");
  write(dir / "merges.txt", "#version: 0.2\na b\n");
  EXPECT_ERROR(unsupported, "tokenizer_class ''", Tokenizer::load(dir.path()));
  write(dir / "tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_ERROR(unsupported, "LlamaTokenizer", Tokenizer::load(dir.path()));
  write(dir / "tokenizer_config.json", R"({"model_max_length": 1})");
  write(dir / "config.json", R"({"model_type": "qwen3"})");
  CHECK(Tokenizer::load(dir.path())->encode("ab<|endoftext|>") == std::vector<int32_t>{2, 3});
  write(dir / "tokenizer_config.json", R"({"tokenizer_class": "GPT2TokenizerFast"})");
  CHECK(Tokenizer::load(dir.path())->encode("abb") == std::vector<int32_t>{2, 1});
  write(dir / "merges.txt", "a b\n\n");
  EXPECT_ERROR(load, "merges.txt: merge 1", Tokenizer::load(dir.path()));
  write(dir / "merges.txt", "a \xFF\n");
  EXPECT_ERROR(load, "merges.txt: byte 2 is not UTF-8", Tokenizer::load(dir.path()));
  write(dir / "merges.txt", "");
  write(dir / "vocab.json", "[]");
  EXPECT_ERROR(load, "vocab.json: an object", Tokenizer::load(dir.path()));
  write(dir / "tokenizer_config.json", R"({"tokenizer_class": 5})");
  EXPECT_ERROR(load, "tokenizer_config.json: field 'tokenizer_class'", Tokenizer::load(dir.path()));
  write(dir / "tokenizer_config.json", R"({"split_special_tokens": true})");
  EXPECT_ERROR(unsupported, "split_special_tokens", Tokenizer::load(dir.path()));
}
