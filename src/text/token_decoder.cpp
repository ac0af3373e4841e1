#include "text/token_decoder.h"

#include <optional>
#include <utility>
#include <vector>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace expert {
namespace {

// A stage that passes tokens on to the next.
class Stage : public TokenSink {
 public:
  explicit Stage(std::unique_ptr<TokenSink> next) : next_(std::move(next)) {}

 protected:
  std::unique_ptr<TokenSink> next_;
};

// A stage that needs tokens whole.
class WholeTokenStage : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view fragment, bool last) final {
    if (last && held_.empty()) return put_token(fragment);
    held_ += fragment;
    if (!last) return;
    put_token(held_);
    held_.clear();
  }

 protected:
  virtual void put_token(std::string_view token) = 0;

 private:
  std::string held_;
};

// All tokens' bytes form one text; what is not UTF-8 becomes U+FFFD.
class ByteLevelStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;
  void put_token(std::string_view token) override {
    byte_level::append_bytes(bytes_, token);
    std::string text;
    bytes_.erase(0, unicode::append_lossy(text, bytes_));
    if (!text.empty()) next_->put(text, false);
  }
  void finish() override {
    std::string text;
    if (!bytes_.empty()) unicode::append_utf8(text, 0xFFFD);  // a character cut off by the end
    next_->put(text, true);
    next_->finish();
  }

 private:
  std::string bytes_;
};

// The byte of a token "<0x0A>". The digits are read as Rust's from_str_radix does, which takes "+A" too.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  int value = 0;
  for (size_t i = token[3] == '+' ? 4 : 3; i < 5; ++i) {
    const char c = token[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

// A run of byte tokens is one text, or one U+FFFD per byte where the run as a whole is not UTF-8: so nothing of it is
// certain before it ends.
class ByteFallbackStage final : public WholeTokenStage {
 public:
  using WholeTokenStage::WholeTokenStage;
  void put_token(std::string_view token) override {
    if (const auto byte = byte_of(token)) {
      run_ += *byte;
      return;
    }
    end_run();
    next_->put(token, true);
  }
  void finish() override {
    end_run();
    next_->finish();
  }

 private:
  void end_run() {
    if (unicode::find_invalid_utf8(run_) == std::string_view::npos) {
      if (!run_.empty()) next_->put(run_, true);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next_->put("\uFFFD", true);
    }
    run_.clear();
  }
  std::string run_;
};

class ReplaceStage final : public Stage {
 public:
  ReplaceStage(std::unique_ptr<TokenSink> next, std::string_view pattern, std::string_view content)
      : Stage(std::move(next)), pattern_(pattern), content_(content) {}
  void put(std::string_view fragment, bool last) override {
    held_ += fragment;
    std::string text;
    size_t pos = 0;
    for (size_t hit; (hit = held_.find(pattern_, pos)) != std::string::npos; pos = hit + pattern_.size())
      text.append(held_, pos, hit - pos).append(content_);
    const size_t keep = last ? held_.size() : begin_of_possible_match(pos);
    text.append(held_, pos, keep - pos);
    held_.erase(0, keep);
    if (last || !text.empty()) next_->put(text, last);
  }
  void finish() override { next_->finish(); }

 private:
  // First position from which the rest of held_ could grow into the pattern.
  size_t begin_of_possible_match(size_t pos) const {
    if (held_.size() - pos >= pattern_.size()) pos = held_.size() - (pattern_.size() - 1);
    while (!pattern_.starts_with(std::string_view(held_).substr(pos))) ++pos;
    return pos;
  }
  std::string_view pattern_, content_;
  std::string held_;
};

// Every token becomes a part of a single one.
class FuseStage final : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view fragment, bool) override {
    if (!fragment.empty()) next_->put(fragment, false);
  }
  void finish() override {
    next_->put({}, true);
    next_->finish();
  }
};

// Takes up to `left` characters from the front of each token and up to `right` from its end where they are `content`.
class StripStage final : public Stage {
 public:
  StripStage(std::unique_ptr<TokenSink> next, std::string_view content, uint64_t left, uint64_t right)
      : Stage(std::move(next)), content_(content), left_(left), right_(right), to_strip_(left) {}
  void put(std::string_view fragment, bool last) override {
    std::string text;
    for (size_t pos = 0; pos < fragment.size();) {
      const size_t begin = pos;
      unicode::next_char(fragment, pos);
      put_char(fragment.substr(begin, pos - begin), text);
    }
    if (last) {
      for (; held_ > right_; --held_) text += content_;
      held_ = 0;
      to_strip_ = left_;
    }
    if (last || !text.empty()) next_->put(text, last);
  }
  void finish() override { next_->finish(); }

 private:
  void put_char(std::string_view c, std::string& text) {
    if (c == content_) {
      if (to_strip_ > 0) {
        --to_strip_;
        return;
      }
      if (right_ > 0) {
        ++held_;
        if (held_ <= right_) return;
        --held_;  // more than right_ at the end: the first of them stays
      }
    } else {
      to_strip_ = 0;
      for (; held_ > 0; --held_) text += content_;
    }
    text += c;
  }
  std::string_view content_;
  uint64_t left_, right_, to_strip_;
  uint64_t held_ = 0;  // contents at the end so far, which the token's end would take
};

class MetaspaceStage final : public WholeTokenStage {
 public:
  MetaspaceStage(std::unique_ptr<TokenSink> next, std::string_view replacement, bool drop_first)
      : WholeTokenStage(std::move(next)), replacement_(replacement), dropping_(drop_first) {}
  void put_token(std::string_view token) override {
    next_->put(replace_all(token, replacement_, dropping_ ? "" : " "), true);
    dropping_ = false;
  }
  void finish() override { next_->finish(); }

 private:
  std::string_view replacement_;
  bool dropping_;  // in the first token the replacement stands for nothing
};

class SpaceJoinStage final : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view fragment, bool last) override {
    if (std::exchange(ended_, false)) next_->put(" ", false);
    next_->put(fragment, false);
    ended_ = last;
  }
  void finish() override {
    next_->put({}, true);
    next_->finish();
  }

 private:
  bool ended_ = false;
};

class ByteLevelDecoder final : public TokenDecoder {
 public:
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<ByteLevelStage>(std::move(next));
  }
  std::string token_bytes(std::string token) const override {
    std::string bytes;
    byte_level::append_bytes(bytes, token);
    return bytes;
  }
};

class ByteFallbackDecoder final : public TokenDecoder {
 public:
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<ByteFallbackStage>(std::move(next));
  }
  std::string token_bytes(std::string token) const override {
    const auto byte = byte_of(token);
    return byte ? std::string(1, *byte) : token;
  }
};

class FuseDecoder final : public TokenDecoder {
 public:
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<FuseStage>(std::move(next));
  }
  std::string token_bytes(std::string token) const override { return token; }
};

class SpaceJoinDecoder final : public TokenDecoder {
 public:
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<SpaceJoinStage>(std::move(next));
  }
  std::string token_bytes(std::string token) const override { return token; }
};

class ReplaceDecoder final : public TokenDecoder {
 public:
  ReplaceDecoder(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<ReplaceStage>(std::move(next), pattern_, content_);
  }
  std::string token_bytes(std::string token) const override { return replace_all(token, pattern_, content_); }

 private:
  std::string pattern_, content_;
};

class StripDecoder final : public TokenDecoder {
 public:
  StripDecoder(std::string content, uint64_t left, uint64_t right)
      : content_(std::move(content)), left_(left), right_(right) {}
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<StripStage>(std::move(next), content_, left_, right_);
  }
  std::string token_bytes(std::string token) const override { return token; }

 private:
  std::string content_;
  uint64_t left_, right_;
};

class MetaspaceDecoder final : public TokenDecoder {
 public:
  MetaspaceDecoder(std::string replacement, bool drop_first)
      : replacement_(std::move(replacement)), drop_first_(drop_first) {}
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    return std::make_unique<MetaspaceStage>(std::move(next), replacement_, drop_first_);
  }
  std::string token_bytes(std::string token) const override { return replace_all(token, replacement_, " "); }

 private:
  std::string replacement_;
  bool drop_first_;
};

class DecoderSequence final : public TokenDecoder {
 public:
  explicit DecoderSequence(std::vector<std::unique_ptr<TokenDecoder>> steps) : steps_(std::move(steps)) {}
  std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const override {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) next = (*step)->open(std::move(next));
    return next;
  }
  std::string token_bytes(std::string token) const override {
    for (const auto& step : steps_) token = step->token_bytes(std::move(token));
    return token;
  }

 private:
  std::vector<std::unique_ptr<TokenDecoder>> steps_;
};

uint64_t need_count(const Json& config, const char* name) {
  const int64_t value = fields::integer(fields::need(config, name), name);
  if (value < 0) fail(ErrorCode::load, "field '{}' must not be negative, is {}", name, value);
  return static_cast<uint64_t>(value);
}

std::unique_ptr<TokenDecoder> make_sequence(const Json& config) {
  std::vector<std::unique_ptr<TokenDecoder>> steps;
  for (const auto& step : fields::list(config, "decoders")) {
    if (step.is_null()) fail(ErrorCode::load, "a decoder of a Sequence is null");
    steps.push_back(make_token_decoder(step));
  }
  return std::make_unique<DecoderSequence>(std::move(steps));
}

}  // namespace

std::unique_ptr<TokenDecoder> make_byte_level_decoder() { return std::make_unique<ByteLevelDecoder>(); }

std::unique_ptr<TokenDecoder> make_token_decoder(const Json& config) {
  if (config.is_null()) return std::make_unique<SpaceJoinDecoder>();
  const std::string& type = fields::need_text(config, "type");
  if (type == "ByteLevel") return make_byte_level_decoder();
  if (type == "ByteFallback") return std::make_unique<ByteFallbackDecoder>();
  if (type == "Fuse") return std::make_unique<FuseDecoder>();
  if (type == "Replace")
    return std::make_unique<ReplaceDecoder>(fields::literal_pattern(config), fields::need_text(config, "content"));
  if (type == "Strip")
    return std::make_unique<StripDecoder>(fields::need_character(config, "content"), need_count(config, "start"),
                                          need_count(config, "stop"));
  if (type == "Metaspace")
    return std::make_unique<MetaspaceDecoder>(fields::need_character(config, "replacement"),
                                              fields::prepend_scheme(config) != fields::PrependScheme::never);
  if (type == "Sequence") return make_sequence(config);
  fail(ErrorCode::unsupported, "decoder '{}' is not supported", type);
}

}  // namespace expert
