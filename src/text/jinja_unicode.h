// Strings of a template are sequences of Unicode code points, as in Python; they are stored as valid UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/utf8.h"

namespace expert::jinja {

using unicode::append_utf8;
using unicode::is_utf8;
using unicode::next_char;

size_t code_points(std::string_view text);
std::u32string to_utf32(std::string_view text);
std::string to_utf8(std::u32string_view text);

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
bool is_printable(char32_t c);

// str.upper(), str.lower(), ...: full mappings (one code point may become three), final sigma included.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_title(std::string_view text);
std::string to_fold(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

// The text without leading and trailing white space (both true), or on one side only.
std::string_view strip_space(std::string_view text, bool left = true, bool right = true);

}  // namespace expert::jinja
