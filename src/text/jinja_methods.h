// Attributes and methods of Python's own types, as far as Jinja2's immutable sandbox lets a template use them.
#pragma once

#include "text/jinja_value.h"

namespace expert::jinja {

// getattr(); missing when the object has no such attribute. What the sandbox blocks is an undefined value that fails on
// use.
Value find_attribute(Runtime& runtime, const Value& object, const std::string& name);

// str.islower() and str.isupper().
bool has_case(std::string_view value, bool upper);
// str.replace(); limit < 0: all.
std::string replaced(Runtime& runtime, std::string_view value, std::string_view old, std::string_view with,
                     int64_t limit);
// str.ljust(), rjust() and center() for side 0, 1 and 2; fill is one character.
std::string justified(Runtime& runtime, const std::string& value, int64_t width, const std::string& fill, int side);
std::vector<std::string_view> split_lines(std::string_view value);
// rsplit(separator, 1)
std::vector<std::string_view> split_last(std::string_view value, std::string_view separator);

}  // namespace expert::jinja
