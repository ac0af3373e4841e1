// Jinja2's built-in filters, tests and global functions, with the changes Transformers makes to them.
#pragma once

#include "text/jinja_runtime.h"

namespace expert::jinja {

using Filter = Value (*)(Runtime&, const Value& input, const Arguments&);
using Test = bool (*)(Runtime&, const Value& input, const Arguments&);

Filter find_filter(std::string_view name);  // null when there is none
Test find_test(std::string_view name);
bool is_refused_filter(std::string_view name);  // Jinja2 has it, we do not

void add_globals(Runtime& runtime);

}  // namespace expert::jinja
