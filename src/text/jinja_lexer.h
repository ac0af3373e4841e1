// Cuts a template into tokens as Jinja2 does with trim_blocks and lstrip_blocks on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace expert::jinja {

enum class TokenKind : uint8_t {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  floating,
  op,
  eof
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;  // data and strings: the value, escapes resolved; integers and floats: without underscores
};

// Fails with ErrorCode::load. The source is UTF-8.
std::vector<Token> tokenize(std::string_view source);

[[noreturn]] void syntax_error(int line, std::string_view message);

}  // namespace expert::jinja
