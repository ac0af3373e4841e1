#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/expect_error.h"
#include "support/volume.h"
#include "text/tokenizer.h"

using namespace expert;
using nlohmann::json;

namespace {

const std::string kGolden = std::string(EXPERT_SOURCE_DIR) + "/tests/golden/tokenizer/";

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<const Tokenizer> golden_tokenizer(const std::string& name) {
  static std::map<std::string, std::shared_ptr<const Tokenizer>> loaded;
  auto& tokenizer = loaded[name];
  if (!tokenizer && name == "qwen3")
    tokenizer = Tokenizer::load(std::string(EXPERT_SOURCE_DIR) + "/tests/data/qwen3-tokenizer");
  if (!tokenizer) {
    TokenizerFiles files;
    files.tokenizer_json = contents(kGolden + name);
    tokenizer = Tokenizer::parse(files, name);
  }
  return tokenizer;
}

std::vector<std::string> stream_pieces(const std::shared_ptr<const Tokenizer>& tokenizer,
                                       const std::vector<int32_t>& ids, bool skip_special = false) {
  TokenStream stream(tokenizer, skip_special);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(stream.push(id));
  pieces.push_back(stream.flush());
  return pieces;
}

std::string join(const std::vector<std::string>& pieces) {
  std::string text;
  for (const auto& piece : pieces) text += piece;
  return text;
}

std::vector<int32_t> ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  std::vector<int32_t> ids;
  for (const auto& token : tokens) {
    REQUIRE(tokenizer.id_of(token).has_value());
    ids.push_back(*tokenizer.id_of(token));
  }
  return ids;
}

}  // namespace

TEST_CASE("golden cases: ids, texts and streams equal those of tokenizers") {
  const json golden = json::parse(contents(kGolden + "cases.json"));
  REQUIRE(golden.size() == 3);
  for (const auto& [key, cases] : golden.items()) {
    const std::string name = key;
    const auto tokenizer = golden_tokenizer(name);
    REQUIRE(cases.size() >= 14);
    for (const json& expected : cases) {
      const std::string text = expected["text"];
      CAPTURE(name);
      CAPTURE(text);
      const auto ids = tokenizer->encode(text);
      CHECK(ids == expected["ids"].get<std::vector<int32_t>>());
      CHECK(tokenizer->encode(text, {false, false}) == expected["plain_ids"].get<std::vector<int32_t>>());
      CHECK(tokenizer->encode(text, {true, true}) == expected["with_post_processor"].get<std::vector<int32_t>>());
      CHECK(tokenizer->decode(ids) == expected["decoded"].get<std::string>());
      CHECK(tokenizer->decode(ids, true) == expected["skipped"].get<std::string>());
      CHECK(join(stream_pieces(tokenizer, ids)) == expected["decoded"].get<std::string>());
      CHECK(join(stream_pieces(tokenizer, ids, true)) == expected["skipped"].get<std::string>());
    }
  }
}

TEST_CASE("looking tokens up") {
  const auto tokenizer = golden_tokenizer("qwen3");
  CHECK(tokenizer->size() == 151669);
  CHECK(tokenizer->id_of("<|im_start|>") == 151644);
  CHECK(tokenizer->id_of("Ġthe") == 279);
  CHECK_FALSE(tokenizer->id_of("no such token").has_value());
  CHECK(tokenizer->token(279) == "Ġthe");
  CHECK(tokenizer->token_bytes(279) == " the");
  CHECK(tokenizer->token_bytes(151644) == "<|im_start|>");
  CHECK(tokenizer->token_bytes(*tokenizer->id_of("Ģ")) == "\x80");
  CHECK(tokenizer->is_special(151645));
  CHECK_FALSE(tokenizer->is_special(151667));  // <think> is an added token, but not special
  CHECK_FALSE(tokenizer->is_special(279));
  CHECK_FALSE(tokenizer->has_id(151669));
  CHECK_FALSE(tokenizer->is_special(-1));
  EXPECT_ERROR(invalid_request, "151669", tokenizer->token_bytes(151669));
  EXPECT_ERROR(invalid_request, "-1", tokenizer->decode(std::vector<int32_t>{-1}));

  const auto llama2 = golden_tokenizer("llama2.json");
  CHECK(llama2->token_bytes(*llama2->id_of("<0x0A>")) == "\n");
  CHECK(llama2->token_bytes(*llama2->id_of("\u2581the")) == " the");
}

TEST_CASE("special tokens in the text are plain text on request, other added tokens stay") {
  const auto tokenizer = golden_tokenizer("qwen3");
  const auto with = tokenizer->encode("<|im_end|><think>");
  CHECK(with == std::vector<int32_t>{151645, 151667});
  const auto without = tokenizer->encode("<|im_end|><think>", {false, false});
  CHECK(without.size() > 3);
  CHECK(without.back() == 151667);
  for (const int32_t id : without) CHECK_FALSE(tokenizer->is_special(id));
  CHECK(tokenizer->decode(without) == "<|im_end|><think>");
}

TEST_CASE("text that is not UTF-8 is refused") {
  const auto tokenizer = golden_tokenizer("qwen3");
  EXPECT_ERROR(invalid_request, "not UTF-8: byte 2", tokenizer->encode("ab\xFFz"));
  EXPECT_ERROR(invalid_request, "not UTF-8", tokenizer->encode("\xE2\x82"));
}

TEST_CASE("a stream never gives out half a character or a U+FFFD too early") {
  const auto tokenizer = golden_tokenizer("qwen3");
  const auto bytes = ids_of(*tokenizer, {"ð", "Ł", "ĺ", "Ģ", "!"});  // F0 9F 98 80: 😀
  using Pieces = std::vector<std::string>;
  CHECK(stream_pieces(tokenizer, bytes) == Pieces{"", "", "", "😀", "!", ""});
  CHECK(stream_pieces(tokenizer, {bytes[0], bytes[1]}) == Pieces{"", "", "\uFFFD"});
  CHECK(stream_pieces(tokenizer, {bytes[0], bytes[1], bytes[4]}) == Pieces{"", "", "\uFFFD!", ""});
  CHECK(stream_pieces(tokenizer, {bytes[3], bytes[4]}) == Pieces{"\uFFFD", "!", ""});
}

TEST_CASE("a run of byte tokens is certain only at its end, and the first blank of a text is dropped") {
  const auto tokenizer = golden_tokenizer("llama2.json");
  using Pieces = std::vector<std::string>;
  const auto ids = ids_of(*tokenizer, {"\u2581the", "\u2581the", "<0xC3>", "<0xA9>", "\u2581"});
  CHECK(stream_pieces(tokenizer, ids) == Pieces{"the", " the", "", "", "\u00E9 ", ""});
  // One stray byte makes every byte of its run a U+FFFD.
  const auto broken = ids_of(*tokenizer, {"<0xC3>", "<0xA9>", "<0xC3>", "a"});
  CHECK(stream_pieces(tokenizer, broken) == Pieces{"", "", "", "\uFFFD\uFFFD\uFFFDa", ""});
  CHECK(join(stream_pieces(tokenizer, {broken[0]})) == "\uFFFD");
}

TEST_CASE("a refused id leaves a stream as it was") {
  const auto tokenizer = golden_tokenizer("qwen3");
  const auto bytes = ids_of(*tokenizer, {"Ã", "©"});
  TokenStream stream(tokenizer);
  CHECK(stream.push(bytes[0]).empty());
  EXPECT_ERROR(invalid_request, "999999", stream.push(999999));
  CHECK(stream.push(bytes[1]) == "é");
}

TEST_CASE("long pieces take no quadratic time and equal short ones") {
  const auto tokenizer = golden_tokenizer("qwen3");
  for (const std::string& text : {std::string(static_cast<size_t>(test::volume(1'000'000)), 'a'),
                                  std::string(static_cast<size_t>(test::volume(300'000)), ' ') + "x"}) {
    CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  }
  // The heap (pieces above 48 bytes) and the scan (below) are two ways to the same merges.
  const auto llama3 = golden_tokenizer("llama3.json");
  std::string word;
  for (int i = 0; i < 60; ++i) {
    word += "theinganderstion"[static_cast<size_t>(i * 7 % 16)];
    CHECK(llama3->decode(llama3->encode(word)) == word);
  }
}

TEST_CASE("one tokenizer serves many threads") {
  const auto tokenizer = golden_tokenizer("qwen3");
  const auto expected = tokenizer->encode("It's we'll, 12 東京 <|im_end|>\n\n");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i)
        if (tokenizer->encode("It's we'll, 12 東京 <|im_end|>\n\n") != expected) ++wrong[t];
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
