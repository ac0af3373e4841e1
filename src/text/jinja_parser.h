// Source text → syntax tree. Fails with ErrorCode::load on a syntax error and on what is not supported, by name and
// line.
#pragma once

#include <string_view>

#include "text/jinja_ast.h"

namespace expert::jinja {

// Literals live in `constants`, which must outlive the tree.
Nodes parse(std::string_view source, Heap& constants);

}  // namespace expert::jinja
