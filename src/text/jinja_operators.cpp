#include "text/jinja_operators.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja_format.h"
#include "text/jinja_runtime.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

std::string_view symbol(Kind kind) {
  switch (kind) {
    case Kind::add:
      return "+";
    case Kind::subtract:
      return "-";
    case Kind::multiply:
      return "*";
    case Kind::divide:
      return "/";
    case Kind::floor_divide:
      return "//";
    case Kind::modulo:
      return "%";
    default:
      return "**";
  }
}

[[noreturn]] void overflow() { raise("an integer does not fit 64 bits"); }
[[noreturn]] void division_by_zero() { raise("division by zero"); }

int64_t checked_subtract(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_sub_overflow(a, b, &result)) overflow();
  return result;
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) division_by_zero();
  if (b == -1) return checked_subtract(0, a);
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == 0) division_by_zero();
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

// CPython's float_divmod.
void divmod(double a, double b, double& quotient, double& rest) {
  if (b == 0) division_by_zero();
  rest = std::fmod(a, b);
  double div = (a - rest) / b;
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b, div -= 1.0;
  } else {
    rest = std::copysign(0.0, b);
  }
  if (div != 0) {
    quotient = std::floor(div);
    if (div - quotient > 0.5) quotient += 1.0;
  } else {
    quotient = std::copysign(0.0, a / b);
  }
}

Value whole_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) raise("0.0 cannot be raised to a negative power");
    return Value::floating(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1) result = checked_multiply(result, base);
    exponent >>= 1;
    if (exponent > 0 && base != 0 && base != 1) base = checked_multiply(base, base);
  }
  return Value::integer(result);
}

Value float_power(double base, double exponent) {
  if (base == 0 && exponent < 0) raise("0.0 cannot be raised to a negative power");
  if (base < 0 && std::isfinite(base) && std::isfinite(exponent) && std::floor(exponent) != exponent) {
    raise("complex numbers are not supported");
  }
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) raise("float result out of range");
  return Value::floating(result);
}

double true_divide(const Value& a, const Value& b) {
  if (b.as_double() == 0) division_by_zero();
  if (!a.is_whole() || !b.is_whole()) return a.as_double() / b.as_double();
  const auto quotient = static_cast<long double>(a.as_integer()) / static_cast<long double>(b.as_integer());
  return static_cast<double>(quotient);
}

Value whole(Kind kind, int64_t a, int64_t b) {
  switch (kind) {
    case Kind::add:
      return Value::integer(checked_add(a, b));
    case Kind::subtract:
      return Value::integer(checked_subtract(a, b));
    case Kind::multiply:
      return Value::integer(checked_multiply(a, b));
    case Kind::floor_divide:
      return Value::integer(floor_divide(a, b));
    case Kind::modulo:
      return Value::integer(floor_modulo(a, b));
    default:
      return whole_power(a, b);
  }
}

Value real(Kind kind, double a, double b) {
  double quotient = 0, rest = 0;
  switch (kind) {
    case Kind::add:
      return Value::floating(a + b);
    case Kind::subtract:
      return Value::floating(a - b);
    case Kind::multiply:
      return Value::floating(a * b);
    case Kind::floor_divide:
      divmod(a, b, quotient, rest);
      return Value::floating(quotient);
    case Kind::modulo:
      divmod(a, b, quotient, rest);
      return Value::floating(rest);
    default:
      return float_power(a, b);
  }
}

Value arithmetic(Kind kind, const Value& a, const Value& b) {
  if (kind == Kind::divide) return Value::floating(true_divide(a, b));
  if (a.is_whole() && b.is_whole()) return whole(kind, a.as_integer(), b.as_integer());
  return real(kind, a.as_double(), b.as_double());
}

Value repeat(Runtime& runtime, const Value& value, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (value.is_string()) {
    const std::string& unit = value.text();
    if (!unit.empty() && count > runtime.heap().limits().string_bytes / unit.size())
      raise("a repeated string is too long");
    std::string text;
    if (!unit.empty()) {
      text.reserve(unit.size() * count);
      for (size_t i = 0; i < count; ++i) text += unit;
    }
    return runtime.heap().string(std::move(text), value.string().markup);
  }
  const auto& unit = value.items();
  if (!unit.empty() && count > (size_t{16} << 20) / unit.size()) raise("a repeated list is too long");
  runtime.heap().charge(unit.size() * count * sizeof(Value));
  std::vector<Value> items;
  if (!unit.empty()) {
    for (size_t i = 0; i < count; ++i) items.insert(items.end(), unit.begin(), unit.end());
  }
  return value.is(Type::list) ? runtime.heap().list(std::move(items)) : runtime.heap().tuple(std::move(items));
}

Value join(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string()) {
    const bool markup = a.string().markup || b.string().markup;
    if (!markup) return runtime.heap().string(a.text() + b.text());
    const auto part = [](const Value& value) {
      return value.string().markup ? value.text() : escape_html(value.text());
    };
    return runtime.heap().string(part(a) + part(b), true);
  }
  std::vector<Value> items(a.items());
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Type::list) ? runtime.heap().list(std::move(items)) : runtime.heap().tuple(std::move(items));
}

bool repeatable(const Value& value) { return value.is_string() || value.is_sequence(); }

// Slice bounds as Python's slice.indices() gives them.
struct Bounds {
  int64_t start, stop, step, count;
};

int64_t bound(const Value& value, int64_t missing) {
  if (value.is_none()) return missing;
  if (!value.is_whole()) raise("slice indices must be integers or None");
  return value.as_integer();
}

Bounds bounds(int64_t length, const Value& start_value, const Value& stop_value, const Value& step_value) {
  int64_t step = bound(step_value, 1);
  if (step == 0) raise("slice step cannot be zero");
  step = std::max(step, -std::numeric_limits<int64_t>::max());
  const auto clamp = [&](int64_t index) {
    if (index < 0)
      index = index < -length ? -1 : index + length;
    else if (index >= length)
      return step < 0 ? length - 1 : length;
    return index < 0 ? (step < 0 ? int64_t{-1} : int64_t{0}) : index;
  };
  const int64_t start = start_value.is_none() ? (step < 0 ? length - 1 : 0) : clamp(bound(start_value, 0));
  const int64_t stop = stop_value.is_none() ? (step < 0 ? -1 : length) : clamp(bound(stop_value, 0));
  int64_t count = 0;
  if (step > 0 && start < stop) count = (stop - start - 1) / step + 1;
  if (step < 0 && stop < start) count = (start - stop - 1) / (-step) + 1;
  return {start, stop, step, count};
}

Value slice_string(Runtime& runtime, const Value& value, const Bounds& cut) {
  const std::string& text = value.text();
  const bool markup = value.string().markup;
  if (value.string().ascii()) {
    if (cut.step == 1) return runtime.heap().string(cut.count == 0 ? "" : text.substr(cut.start, cut.count), markup);
    std::string out;
    for (int64_t i = 0; i < cut.count; ++i) out += text[cut.start + i * cut.step];
    return runtime.heap().string(std::move(out), markup);
  }
  const std::u32string points = to_utf32(text);
  std::string out;
  for (int64_t i = 0; i < cut.count; ++i) append_utf8(out, points[cut.start + i * cut.step]);
  return runtime.heap().string(std::move(out), markup);
}

Value slice_range(Runtime& runtime, const Range& range, const Bounds& cut) {
  auto& part = runtime.heap().make<Range>();
  part.start = checked_add(range.start, checked_multiply(cut.start, range.step));
  part.step = checked_multiply(range.step, cut.step);
  part.stop = checked_add(range.start, checked_multiply(cut.stop, range.step));
  return Value::of(Type::range, &part);
}

}  // namespace

int64_t checked_add(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) overflow();
  return result;
}

int64_t checked_multiply(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) overflow();
  return result;
}

Value binary(Runtime& runtime, Kind kind, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) return arithmetic(kind, left, right);
  if (kind == Kind::modulo && left.is_string()) {
    if (left.string().markup) raise("formatting a Markup string is not supported");
    return runtime.heap().string(format_percent(runtime, left.text(), right));
  }
  if (left.is_undefined()) raise_undefined(left);
  if (right.is_undefined()) raise_undefined(right);
  if (kind == Kind::add && left.type() == right.type() && repeatable(left)) return join(runtime, left, right);
  if (kind == Kind::multiply && repeatable(left) && right.is_whole()) return repeat(runtime, left, right.as_integer());
  if (kind == Kind::multiply && repeatable(right) && left.is_whole()) return repeat(runtime, right, left.as_integer());
  raise("unsupported operand type(s) for {}: '{}' and '{}'", symbol(kind), type_name(left), type_name(right));
}

Value negate(const Value& value) {
  if (value.is_whole()) return Value::integer(checked_subtract(0, value.as_integer()));
  if (value.is(Type::floating)) return Value::floating(-value.as_double());
  if (value.is_undefined()) raise_undefined(value);
  raise("bad operand type for unary -: '{}'", type_name(value));
}

Value plus(const Value& value) {
  if (value.is_whole()) return Value::integer(value.as_integer());
  if (value.is(Type::floating)) return value;
  if (value.is_undefined()) raise_undefined(value);
  raise("bad operand type for unary +: '{}'", type_name(value));
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) raise("'in <string>' requires string as left operand, not {}", type_name(item));
    return container.text().find(item.text()) != std::string::npos;
  }
  const bool keys = container.is(Type::dict_view) && container.object<DictView>().part == DictView::Part::keys;
  if (container.is(Type::dict) || keys) {
    if (!hashable(item)) raise("unhashable type: '{}'", type_name(item));
    const Dict& dict = keys ? *container.object<DictView>().dict : container.dict();
    return dict.find(item) != nullptr;
  }
  if (container.is(Type::range) && item.is_whole()) {
    const Range& range = container.object<Range>();
    const int64_t value = item.as_integer();
    const bool up = range.step > 0;
    if (up ? value < range.start || value >= range.stop : value > range.start || value <= range.stop) return false;
    const auto low = static_cast<uint64_t>(up ? range.start : value),
               high = static_cast<uint64_t>(up ? value : range.start);
    const uint64_t step = up ? static_cast<uint64_t>(range.step) : uint64_t{0} - static_cast<uint64_t>(range.step);
    return (high - low) % step == 0;
  }
  Source source = runtime.iterate(container);
  for (Value other; source(other);) {
    runtime.heap().step();
    if (identical(other, item) || equal(other, item)) return true;
  }
  return false;
}

bool compare_with(Runtime& runtime, Comparison op, const Value& left, const Value& right) {
  switch (op) {
    case Comparison::eq:
      return equal(left, right);
    case Comparison::ne:
      return !equal(left, right);
    case Comparison::lt:
      return compare(left, right, "<") == -1;
    case Comparison::le: {
      const int order = compare(left, right, "<=");
      return order == -1 || order == 0;
    }
    case Comparison::gt:
      return compare(left, right, ">") == 1;
    case Comparison::ge: {
      const int order = compare(left, right, ">=");
      return order == 1 || order == 0;
    }
    case Comparison::in:
      return contains(runtime, right, left);
    default:
      return !contains(runtime, right, left);
  }
}

bool sliceable(const Value& value) { return value.is_string() || value.is_sequence() || value.is(Type::range); }

Value slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.is_undefined()) raise_undefined(value);
  if (!sliceable(value)) raise("'{}' object cannot be sliced", type_name(value));
  const Bounds cut = bounds(length(value), start, stop, step);
  runtime.heap().step(1 + static_cast<uint64_t>(cut.count) / 16);
  if (value.is_string()) return slice_string(runtime, value, cut);
  if (value.is(Type::range)) return slice_range(runtime, value.object<Range>(), cut);
  std::vector<Value> items;
  for (int64_t i = 0; i < cut.count; ++i) items.push_back(value.items()[cut.start + i * cut.step]);
  return value.is(Type::list) ? runtime.heap().list(std::move(items)) : runtime.heap().tuple(std::move(items));
}

Value at_index(Runtime& runtime, const Value& sequence, int64_t index) {
  const bool indexable = sequence.is_string() || sequence.is_sequence() || sequence.is(Type::range);
  if (!indexable) return {};
  const int64_t count = length(sequence);
  if (index < 0) index = index < -count ? -1 : index + count;
  if (index < 0 || index >= count) return {};
  if (sequence.is_sequence()) return sequence.items()[index];
  if (sequence.is(Type::range))
    return Value::integer(sequence.object<Range>().start + index * sequence.object<Range>().step);
  const std::string& text = sequence.text();
  if (sequence.string().ascii()) return runtime.heap().string(text.substr(index, 1), sequence.string().markup);
  size_t at = 0;
  for (int64_t i = 0; i < index; ++i) next_char(text, at);
  runtime.heap().step(1 + static_cast<uint64_t>(index) / 64);
  const size_t start = at;
  next_char(text, at);
  return runtime.heap().string(text.substr(start, at - start), sequence.string().markup);
}

}  // namespace expert::jinja
