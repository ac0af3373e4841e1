#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "io/file.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

namespace expert {
namespace {

// The end of the stages: text is complete here.
class TextSink final : public TokenSink {
 public:
  explicit TextSink(std::string& text) : text_(text) {}
  void put(std::string_view fragment, bool) override { text_ += fragment; }
  void finish() override {}

 private:
  std::string& text_;
};

std::string_view token_text(const TokenizerParts& parts, int32_t id) {
  if (const auto token = parts.added.token(id)) return *token;
  if (const auto token = parts.model.vocab().token(id)) return *token;
  fail(ErrorCode::invalid_request, "{} is not a token id of this model", id);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::filesystem::path& model_dir) {
  const auto read_optional = [](const std::filesystem::path& path) { return read_text_if_present(path.string()); };
  TokenizerFiles files;
  files.tokenizer_json = read_optional(model_dir / "tokenizer.json");
  if (!files.tokenizer_json) {
    files.vocab_json = read_optional(model_dir / "vocab.json");
    files.merges_txt = read_optional(model_dir / "merges.txt");
    files.config_json = read_optional(model_dir / "config.json");
  }
  files.tokenizer_config_json = read_optional(model_dir / "tokenizer_config.json");
  files.special_tokens_map_json = read_optional(model_dir / "special_tokens_map.json");
  files.added_tokens_json = read_optional(model_dir / "added_tokens.json");
  return parse(files, model_dir.string());
}

std::shared_ptr<const Tokenizer> Tokenizer::parse(const TokenizerFiles& files, const std::string& name) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(read_tokenizer(files, name)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  if (const size_t invalid = unicode::find_invalid_utf8(utf8); invalid != std::string_view::npos)
    fail(ErrorCode::invalid_request, "the text is not UTF-8: byte {}", invalid);
  Pieces pieces(utf8);
  parts_->added.extract(pieces, false, options.special_in_text);
  if (parts_->normalizer) {
    pieces.rewrite([&](std::string_view text, Piece& piece, std::string& out) {
      out += parts_->normalizer->normalize(std::string(text), piece.at_text_start);
    });
  }
  parts_->added.extract(pieces, true, options.special_in_text);
  if (parts_->pre_tokenizer) parts_->pre_tokenizer->apply(pieces);

  std::vector<int32_t> ids;
  ids.reserve(pieces.text.size() / 4 + 8);
  if (options.add_post_processor) ids = parts_->prefix;
  for (const Piece& piece : pieces.list) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
    } else {
      parts_->model.encode(pieces.view(piece), ids);
    }
  }
  if (options.add_post_processor) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  const auto stages = parts_->decoder->open(std::make_unique<TextSink>(text));
  for (const int32_t id : ids) {
    const std::string_view token = token_text(*parts_, id);
    if (skip_special && parts_->added.is_special(token)) continue;
    stages->put(token, true);
  }
  stages->finish();
  return text;
}

std::string Tokenizer::token_bytes(int32_t id) const {
  return parts_->decoder->token_bytes(std::string(token_text(*parts_, id)));
}

std::string_view Tokenizer::token(int32_t id) const { return token_text(*parts_, id); }

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  if (const auto id = parts_->added.find(token)) return id;
  return parts_->model.vocab().find(token);
}

bool Tokenizer::has_id(int32_t id) const {
  return parts_->added.token(id).has_value() || parts_->model.vocab().token(id).has_value();
}

bool Tokenizer::is_special(int32_t id) const { return has_id(id) && parts_->added.is_special(token(id)); }

int32_t Tokenizer::size() const { return std::max(parts_->model.vocab().end_id(), parts_->added.end_id()); }

TokenStream::TokenStream(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      text_(std::make_unique<std::string>()),
      stages_(tokenizer_->parts_->decoder->open(std::make_unique<TextSink>(*text_))) {}
TokenStream::~TokenStream() = default;
TokenStream::TokenStream(TokenStream&&) noexcept = default;
TokenStream& TokenStream::operator=(TokenStream&&) noexcept = default;

std::string TokenStream::push(int32_t id) {
  const std::string_view token = token_text(*tokenizer_->parts_, id);
  if (!skip_special_ || !tokenizer_->parts_->added.is_special(token)) stages_->put(token, true);
  return std::exchange(*text_, {});
}

std::string TokenStream::flush() {
  stages_->finish();
  return std::exchange(*text_, {});
}

}  // namespace expert
