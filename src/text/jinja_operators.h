// Python's operators.
#pragma once

#include "text/jinja_ast.h"

namespace expert::jinja {

// kind: add, subtract, ..., power
Value binary(Runtime& runtime, Kind kind, const Value& left, const Value& right);
Value negate(const Value& value);
Value plus(const Value& value);
bool contains(Runtime& runtime, const Value& container, const Value& item);
bool compare_with(Runtime& runtime, Comparison op, const Value& left, const Value& right);
// value[start:stop:step]; each bound an integer or none.
bool sliceable(const Value& value);
Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step);
// The item at an index counted from the end when negative; missing when out of range.
Value at_index(Runtime& runtime, const Value& sequence, int64_t index);

int64_t checked_add(int64_t a, int64_t b);
int64_t checked_multiply(int64_t a, int64_t b);

}  // namespace expert::jinja
