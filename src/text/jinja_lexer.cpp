#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_char(char c) { return is_name_start(c) || is_digit_char(c); }
bool is_hex_char(char c) { return is_digit_char(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// \r\n and \r become \n; a single newline at the very end goes.
std::string normalized(std::string_view source, bool drop_last_newline) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (drop_last_newline && !out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class StringLiteral {
 public:
  StringLiteral(std::string_view text, int line) : text_(text), line_(line) {}

  std::string unescape() {
    while (at_ < text_.size()) {
      if (text_[at_] != '\\') {
        out_ += text_[at_++];
      } else {
        ++at_;
        escape();
      }
    }
    return std::move(out_);
  }

 private:
  void escape() {
    const char c = text_[at_];
    static constexpr std::string_view kNames = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t i = kNames.find(c); i != kNames.npos) {
      out_ += kValues[i];
      ++at_;
    } else if (c == '\n') {
      ++at_;
    } else if (c >= '0' && c <= '7') {
      octal();
    } else if (c == 'x' || c == 'u' || c == 'U') {
      ++at_;
      hex(c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N') {
      syntax_error(line_, "the escape \\N{...} is not supported");
    } else {
      out_ += '\\';
      if (static_cast<unsigned char>(c) >= 0x80) escaped_non_ascii();
    }
  }

  void octal() {
    char32_t value = 0;
    for (int i = 0; i < 3 && at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '7'; ++i) {
      value = value * 8 + static_cast<char32_t>(text_[at_++] - '0');
    }
    append_utf8(out_, value);
  }

  void hex(size_t digits) {
    if (at_ + digits > text_.size() || !std::all_of(text_.begin() + at_, text_.begin() + at_ + digits, is_hex_char)) {
      syntax_error(line_, "truncated \\x, \\u or \\U escape in a string");
    }
    const auto value = static_cast<char32_t>(std::stoul(std::string(text_.substr(at_, digits)), nullptr, 16));
    if (value > 0x10ffff) syntax_error(line_, "a \\U escape beyond U+10FFFF");
    if (value >= 0xd800 && value <= 0xdfff) syntax_error(line_, "a surrogate escape in a string is not supported");
    append_utf8(out_, value);
    at_ += digits;
  }

  // Jinja2 turns characters beyond ASCII into escapes before it resolves them, so a backslash before one shows its
  // code.
  void escaped_non_ascii() {
    const auto c = static_cast<uint32_t>(next_char(text_, at_));
    out_ += c < 0x100 ? fmt::format("x{:02x}", c) : c < 0x10000 ? fmt::format("u{:04x}", c) : fmt::format("U{:08x}", c);
  }

  std::string_view text_;
  int line_;
  size_t at_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source, true)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) root();
    push(TokenKind::eof, {});
    return std::move(tokens_);
  }

 private:
  bool starts(std::string_view text) const { return starts_at(at_, text); }
  bool starts_at(size_t at, std::string_view text) const {
    return std::string_view(source_).substr(at, text.size()) == text;
  }
  void push(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + to, '\n'));
    if (to > at_) line_starting_ = source_[to - 1] == '\n';
    at_ = to;
  }

  size_t after_space(size_t at) const {
    return source_.size() - strip_space(std::string_view(source_).substr(at), true, false).size();
  }

  size_t find_tag(size_t from) const {
    for (size_t i = source_.find('{', from); i != source_.npos; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() && std::string_view("%{#").find(source_[i + 1]) != std::string_view::npos) return i;
    }
    return source_.npos;
  }

  // Text up to the next tag, cut as the tag's sign or lstrip_blocks asks.
  void data(size_t end, char sign, bool variable) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      text = strip_space(text, false, true);
    } else if (sign != '+' && !variable) {
      const size_t newline = text.rfind('\n');
      const size_t start = newline == text.npos ? 0 : newline + 1;
      const bool at_line_start = start > 0 || line_starting_;
      if (at_line_start && start < text.size() && strip_space(text.substr(start)).empty()) text = text.substr(0, start);
    }
    if (!text.empty()) push(TokenKind::data, std::string(text));
  }

  void root() {
    const size_t tag = find_tag(at_);
    if (tag == source_.npos) {
      push(TokenKind::data, source_.substr(at_));
      advance(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    size_t inside = tag + 2;
    char sign = 0;
    if (inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+')) sign = source_[inside++];
    data(tag, sign, kind == '{');
    if (kind == '%') {
      if (const size_t body = raw_begin(inside); body != source_.npos) {
        advance(body);
        raw();
        return;
      }
    }
    advance(inside);
    if (kind == '#') {
      comment();
    } else {
      push(kind == '{' ? TokenKind::variable_begin : TokenKind::block_begin, {});
      expression(kind == '%');
    }
  }

  // The end of `raw %}` at this place, or npos.
  size_t raw_begin(size_t at) const {
    at = after_space(at);
    if (!starts_at(at, "raw")) return source_.npos;
    at = after_space(at + 3);
    if (starts_at(at, "-%}")) return after_space(at + 3);
    return starts_at(at, "%}") ? at + 2 : source_.npos;
  }

  // The end of a tag's closing mark at this place, or npos: "+%}", "-%}" with the space after it, "%}" with one
  // newline.
  size_t closing(size_t at, std::string_view mark) const {
    if (at < source_.size() && (source_[at] == '+' || source_[at] == '-') && starts_at(at + 1, mark)) {
      return source_[at] == '-' ? after_space(at + 1 + mark.size()) : at + 1 + mark.size();
    }
    if (!starts_at(at, mark)) return source_.npos;
    at += mark.size();
    return at < source_.size() && source_[at] == '\n' ? at + 1 : at;
  }

  void raw() {
    for (size_t tag = source_.find("{%", at_); tag != source_.npos; tag = source_.find("{%", tag + 1)) {
      size_t at = tag + 2;
      char sign = 0;
      if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) sign = source_[at++];
      at = after_space(at);
      if (!starts_at(at, "endraw")) continue;
      const size_t end = closing(after_space(at + 6), "%}");
      if (end == source_.npos) continue;
      data(tag, sign, false);
      advance(end);
      return;
    }
    syntax_error(line_, "missing end of raw directive");
  }

  void comment() {
    for (size_t at = at_; at < source_.size(); ++at) {
      const size_t end = closing(at, "#}");
      if (end == source_.npos) continue;
      advance(end);
      return;
    }
    syntax_error(line_, "missing end of comment tag");
  }

  // The tokens of one tag, its end included.
  void expression(bool block) {
    std::string brackets;
    while (at_ < source_.size()) {
      if (brackets.empty() && tag_end(block)) return;
      if (const size_t next = after_space(at_); next != at_) {
        advance(next);
      } else if (is_digit_char(source_[at_])) {
        number();
      } else if (is_name_start(source_[at_])) {
        name();
      } else if (source_[at_] == '\'' || source_[at_] == '"') {
        string();
      } else {
        operation(brackets);
      }
    }
  }

  bool tag_end(bool block) {
    size_t end = source_.npos;
    if (block) {
      end = closing(at_, "%}");
    } else if (starts("-}}")) {
      end = after_space(at_ + 3);
    } else if (starts("}}")) {
      end = at_ + 2;
    }
    if (end == source_.npos) return false;
    push(block ? TokenKind::block_end : TokenKind::variable_end, {});
    advance(end);
    return true;
  }

  // digits with single underscores between them; npos when there is none here
  template <typename Digit>
  size_t digits(size_t at, Digit is_one) const {
    if (at >= source_.size() || !is_one(source_[at])) return source_.npos;
    while (at < source_.size()) {
      if (is_one(source_[at])) {
        ++at;
      } else if (source_[at] == '_' && at + 1 < source_.size() && is_one(source_[at + 1])) {
        at += 2;
      } else {
        break;
      }
    }
    return at;
  }

  size_t float_end() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return source_.npos;
    const size_t whole = digits(at_, is_digit_char);
    size_t end = source_.npos, at = whole;
    if (starts_at(at, ".")) {
      const size_t fraction = digits(at + 1, is_digit_char);
      if (fraction != source_.npos) end = at = fraction;
    }
    if (starts_at(at, "e") || starts_at(at, "E")) {
      size_t sign = at + 1;
      if (starts_at(sign, "+") || starts_at(sign, "-")) ++sign;
      const size_t exponent = digits(sign, is_digit_char);
      if (exponent != source_.npos) end = exponent;
    }
    return end;
  }

  size_t integer_end() const {
    const auto prefixed = [&](char letter, auto is_one) {
      if (!starts_at(at_, "0") || at_ + 1 >= source_.size() || (source_[at_ + 1] | 0x20) != letter) return source_.npos;
      size_t at = at_ + 2;
      if (starts_at(at, "_")) ++at;
      return digits(at, is_one);
    };
    const size_t based =
        std::min({prefixed('b', [](char c) { return c == '0' || c == '1'; }),
                  prefixed('o', [](char c) { return c >= '0' && c <= '7'; }), prefixed('x', is_hex_char)});
    if (based != source_.npos) return based;
    return source_[at_] == '0' ? digits(at_, [](char c) { return c == '0'; }) : digits(at_, is_digit_char);
  }

  void number() {
    size_t end = float_end();
    const TokenKind kind = end != source_.npos ? TokenKind::floating : TokenKind::integer;
    if (kind == TokenKind::integer) end = integer_end();
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    push(kind, std::move(text));
    advance(end);
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && is_name_char(source_[end])) ++end;
    if (end < source_.size() && static_cast<unsigned char>(source_[end]) >= 0x80) {
      syntax_error(line_, "a name with characters beyond ASCII is not supported");
    }
    push(TokenKind::name, source_.substr(at_, end - at_));
    advance(end);
  }

  void string() {
    const char quote = source_[at_];
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) syntax_error(line_, "a string that does not end");
    push(TokenKind::string, StringLiteral(std::string_view(source_).substr(at_ + 1, end - at_ - 1), line_).unescape());
    advance(end + 1);
  }

  void operation(std::string& brackets) {
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto* found =
        std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view op) { return starts(op); });
    if (found == kOperators.end()) {
      size_t next = at_;
      next_char(source_, next);
      syntax_error(line_, fmt::format("unexpected character '{}'", source_.substr(at_, next - at_)));
    }
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) syntax_error(line_, fmt::format("unexpected '{}'", c));
      brackets.pop_back();
    }
    push(TokenKind::op, std::string(*found));
    advance(at_ + found->size());
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

void syntax_error(int line, std::string_view message) { fail(ErrorCode::load, "line {}: {}", line, message); }

}  // namespace expert::jinja
