// Text to token ids and back, equal to Hugging Face `tokenizers` and Transformers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace expert {

struct TokenizerParts;
class TokenSink;

struct EncodeOptions {
  // false: the strings of special tokens are plain text; added tokens that are not special stay tokens.
  bool special_in_text = true;
  // What the file's post-processor adds (BOS, EOS): Transformers' add_special_tokens.
  bool add_post_processor = false;
};

// Contents of the files that may describe a tokenizer; an absent file is nullopt.
struct TokenizerFiles {
  std::optional<std::string> tokenizer_json;
  std::optional<std::string> vocab_json, merges_txt;  // read only where tokenizer_json is absent
  std::optional<std::string> tokenizer_config_json, special_tokens_map_json, added_tokens_json;
  std::optional<std::string> config_json;  // the model's: its model_type stands in for a missing tokenizer_class
};

// Immutable; every const method may be called from any number of threads. Token ids are 0 … size() - 1, perhaps with
// gaps, and may lie above the model's vocab_size where a configuration adds tokens the model never had.
class Tokenizer {
 public:
  // Reads tokenizer.json, or vocab.json + merges.txt, and beside them tokenizer_config.json, special_tokens_map.json,
  // added_tokens.json, as Transformers does. tokenizer.json is the truth where it exists: its parts are never replaced
  // by what a tokenizer_class would build.
  // Errors: load (missing, unreadable or malformed file; says which), unsupported (names the part that is not built).
  static std::shared_ptr<const Tokenizer> load(const std::filesystem::path& model_dir);
  // The same from memory. `name` stands for the directory in messages.
  static std::shared_ptr<const Tokenizer> parse(const TokenizerFiles& files, const std::string& name = "tokenizer");

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Errors: invalid_request for text that is not UTF-8.
  std::vector<int32_t> encode(std::string_view utf8, EncodeOptions options = {}) const;

  // Always valid UTF-8: bytes that form no character become U+FFFD. Errors: invalid_request for an unknown id.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // The bytes that a token adds to a text wherever it stands, not always UTF-8; a leading blank that decode() strips
  // from the front of a text is included. Errors: invalid_request for an unknown id.
  std::string token_bytes(int32_t id) const;

  // As written in the vocabulary ("Ġthe", "▁the"). Errors: invalid_request for an unknown id.
  std::string_view token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  bool has_id(int32_t id) const;
  // False for unknown ids.
  bool is_special(int32_t id) const;
  // Highest id + 1.
  int32_t size() const;

 private:
  friend class TokenStream;
  explicit Tokenizer(std::unique_ptr<const TokenizerParts> parts);
  std::unique_ptr<const TokenizerParts> parts_;
};

// Detokenises ids one at a time; the pieces joined equal decode() of all ids. Text is given out as soon as no later id
// can change it: never half a character, never a U+FFFD that would have become one. One thread at a time; keeps its
// tokenizer alive.
class TokenStream {
 public:
  explicit TokenStream(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  ~TokenStream();
  TokenStream(TokenStream&&) noexcept;
  TokenStream& operator=(TokenStream&&) noexcept;

  // The text that became certain, often empty. Errors: invalid_request for an unknown id, which changes nothing.
  std::string push(int32_t id);
  // The rest. No push may follow.
  std::string flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::unique_ptr<std::string> text_;  // where the last stage writes
  std::unique_ptr<TokenSink> stages_;
};

}  // namespace expert
