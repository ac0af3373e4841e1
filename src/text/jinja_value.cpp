#include "text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "text/jinja_runtime.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

constexpr int kNestingLimit = 200;  // of values within values, where they are walked

// One level of a walk through a value. Shared parts are walked as often as they are reached, so each visit is a step.
struct Nesting {
  explicit Nesting(int& depth) : depth_(depth) {
    if (Heap::running() != nullptr) Heap::running()->step();
    if (++depth_ > kNestingLimit) {
      --depth_;
      raise("a value nests deeper than {} levels", kNestingLimit);
    }
  }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  int& depth_;
};

bool equal_at(const Value& a, const Value& b, int& depth);

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b, int& depth) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!identical(a[i], b[i]) && !equal_at(a[i], b[i], depth)) return false;
  }
  return true;
}

bool equal_dicts(const Dict& a, const Dict& b, int& depth) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (other == nullptr || (!identical(value, *other) && !equal_at(value, *other, depth))) return false;
  }
  return true;
}

bool equal_ranges(const Range& a, const Range& b) {
  if (a.length() != b.length()) return false;
  if (a.length() == 0) return true;
  return a.start == b.start && (a.length() == 1 || a.step == b.step);
}

// Exact, where a conversion of the integer to double would round.
int compare_mixed(int64_t whole, double real) {
  if (std::isnan(real)) return 2;
  if (real >= 9223372036854775808.0) return -1;
  if (real < -9223372036854775808.0) return 1;
  const double floor = std::floor(real);
  const auto truncated = static_cast<int64_t>(floor);
  if (whole != truncated) return whole < truncated ? -1 : 1;
  return floor < real ? -1 : 0;
}

// 2 where either is not a number
int compare_numbers(const Value& a, const Value& b) {
  if (a.is_whole() && b.is_whole()) {
    const int64_t x = a.as_integer(), y = b.as_integer();
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (a.is_whole()) return compare_mixed(a.as_integer(), b.as_double());
  if (b.is_whole()) {
    const int reversed = compare_mixed(b.as_integer(), a.as_double());
    return reversed == 2 ? 2 : -reversed;
  }
  const double x = a.as_double(), y = b.as_double();
  if (std::isnan(x) || std::isnan(y)) return 2;
  return x < y ? -1 : x > y ? 1 : 0;
}

bool equal_at(const Value& a, const Value& b, int& depth) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.type() != b.type()) return false;
  Nesting nesting(depth);
  switch (a.type()) {
    case Type::missing:
    case Type::undefined:
    case Type::none:
      return true;
    case Type::string:
      return a.text() == b.text();
    case Type::list:
    case Type::tuple:
      return equal_items(a.items(), b.items(), depth);
    case Type::dict:
      return equal_dicts(a.dict(), b.dict(), depth);
    case Type::range:
      return equal_ranges(a.object<Range>(), b.object<Range>());
    default:
      return a.identity() == b.identity();
  }
}

int compare_at(const Value& a, const Value& b, std::string_view op, int& depth) {
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is_string() && b.is_string()) {  // UTF-8 sorts as its code points do
    const int order = a.text().compare(b.text());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.is_sequence() && a.type() == b.type()) {
    Nesting nesting(depth);
    const auto& x = a.items();
    const auto& y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!identical(x[i], y[i]) && !equal(x[i], y[i])) return compare_at(x[i], y[i], op, depth);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  raise("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b));
}

size_t hash_at(const Value& value, int& depth) {
  switch (value.type()) {
    case Type::boolean:
    case Type::integer:
      return std::hash<int64_t>()(value.as_integer());
    case Type::floating: {
      const double real = value.as_double();
      const bool whole = std::floor(real) == real && std::abs(real) < 9e18;
      return whole ? std::hash<int64_t>()(static_cast<int64_t>(real)) : std::hash<double>()(real);
    }
    case Type::string:
      return std::hash<std::string>()(value.text());
    case Type::tuple: {
      Nesting nesting(depth);
      size_t hash = 17;
      for (const Value& item : value.items()) hash = hash * 1000003 ^ hash_at(item, depth);
      return hash;
    }
    case Type::missing:
    case Type::undefined:
    case Type::none:
      return static_cast<size_t>(value.type());
    case Type::range:
      return static_cast<size_t>(value.object<Range>().length());
    default:
      return std::hash<const void*>()(value.identity());
  }
}

void repr_into(const Value& value, std::string& out, int& depth);

void repr_items(const std::vector<Value>& items, std::string& out, int& depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out += ", ";
    repr_into(items[i], out, depth);
  }
}

void repr_dict(const Dict& dict, std::string& out, int& depth) {
  out += '{';
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i != 0) out += ", ";
    repr_into(dict.entries[i].first, out, depth);
    out += ": ";
    repr_into(dict.entries[i].second, out, depth);
  }
  out += '}';
}

void repr_view(const DictView& view, std::string& out, int& depth) {
  const bool keys = view.part == DictView::Part::keys, pairs = view.part == DictView::Part::items;
  out += keys ? "dict_keys([" : pairs ? "dict_items([" : "dict_values([";
  bool first = true;
  for (const auto& [key, value] : view.dict->entries) {
    if (!first) out += ", ";
    first = false;
    if (pairs) out += '(';
    if (keys || pairs) repr_into(key, out, depth);
    if (pairs) out += ", ";
    if (!keys) repr_into(value, out, depth);
    if (pairs) out += ')';
  }
  out += "])";
}

void repr_range(const Range& range, std::string& out) {
  out += range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                         : fmt::format("range({}, {}, {})", range.start, range.stop, range.step);
}

void check_length(const std::string& out) {
  const size_t most = Heap::running() != nullptr ? Heap::running()->limits().string_bytes : Limits().string_bytes;
  if (out.size() > most) raise("a value's text exceeds {} bytes", most);
}

void repr_into(const Value& value, std::string& out, int& depth) {
  Nesting nesting(depth);
  check_length(out);
  switch (value.type()) {
    case Type::undefined:
      out += "Undefined";
      return;
    case Type::none:
      out += "None";
      return;
    case Type::boolean:
      out += value.as_boolean() ? "True" : "False";
      return;
    case Type::integer:
      out += std::to_string(value.as_integer());
      return;
    case Type::floating:
      out += format_double(value.as_double());
      return;
    case Type::string:
      out += value.string().markup ? "Markup(" + in_quotes(value.text()) + ")" : in_quotes(value.text());
      return;
    case Type::list:
      out += '[', repr_items(value.items(), out, depth), out += ']';
      return;
    case Type::tuple:
      out += '(', repr_items(value.items(), out, depth), out += value.items().size() == 1 ? ",)" : ")";
      return;
    case Type::dict:
      return repr_dict(value.dict(), out, depth);
    case Type::range:
      return repr_range(value.object<Range>(), out);
    case Type::dict_view:
      return repr_view(value.object<DictView>(), out, depth);
    case Type::name_space:
      out += "<Namespace ", repr_dict(*value.object<Namespace>().attributes, out, depth), out += '>';
      return;
    case Type::macro: {
      const auto& name = value.object<Macro>().name;
      out += "<Macro " + (name.empty() ? "anonymous" : in_quotes(name)) + ">";
      return;
    }
    case Type::loop: {
      auto& loop = value.object<Loop>();
      out += fmt::format("<LoopContext {}/{}>", loop.index0 + 1, loop.length());
      return;
    }
    default:
      raise("a {} has no text that could be printed", type_name(value));
  }
}

}  // namespace

Value Value::boolean(bool b) {
  Value value(Type::boolean);
  value.integer_ = 0;
  value.boolean_ = b;
  return value;
}

Value Value::integer(int64_t i) {
  Value value(Type::integer);
  value.integer_ = i;
  return value;
}

Value Value::floating(double d) {
  Value value(Type::floating);
  value.floating_ = d;
  return value;
}

Value Value::undefined(const String* message) {
  return of(Type::undefined, const_cast<String*>(message));  // only ever read again
}

Value Value::of(Type type, Object* object) {
  Value value(type);
  value.object_ = object;
  return value;
}

const std::string& Value::text() const { return string().text; }
const String& Value::string() const { return object<String>(); }
const std::vector<Value>& Value::items() const { return object<List>().items; }
Dict& Value::dict() const { return object<Dict>(); }

size_t ValueHash::operator()(const Value& value) const {
  int depth = 0;
  return hash_at(value, depth);
}

bool ValueEqual::operator()(const Value& a, const Value& b) const { return identical(a, b) || equal(a, b); }

const Value* Dict::find(const Value& key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &entries[found->second].second;
}

const Value* Dict::find(std::string_view key) const {
  String text;
  text.text = key;
  return find(Value::of(Type::string, &text));
}

void Dict::set(const Value& key, const Value& value) {
  const auto [place, added] = index_.try_emplace(key, entries.size());
  if (added) {
    entries.emplace_back(key, value);
  } else {
    entries[place->second].second = value;
  }
}

int64_t Range::length() const {
  const auto distance = [](int64_t low, int64_t high, uint64_t by) -> int64_t {
    if (low >= high) return 0;
    const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
    return static_cast<int64_t>(std::min<uint64_t>((span - 1) / by + 1, std::numeric_limits<int64_t>::max()));
  };
  return step > 0 ? distance(start, stop, static_cast<uint64_t>(step))
                  : distance(stop, start, uint64_t{0} - static_cast<uint64_t>(step));
}

std::vector<Value> Arguments::bind(std::string_view function, std::initializer_list<std::string_view> names,
                                   size_t required) const {
  if (positional.size() > names.size()) {
    raise("{}() takes at most {} arguments ({} given)", function, names.size(), positional.size());
  }
  std::vector<Value> bound(positional);
  bound.resize(names.size());
  for (const auto& [name, value] : keyword) {
    const auto place = std::find(names.begin(), names.end(), name);
    if (name.empty() || place == names.end()) raise("{}() got an unexpected keyword argument '{}'", function, name);
    Value& slot = bound[static_cast<size_t>(place - names.begin())];
    if (!slot.is_missing()) raise("{}() got multiple values for argument '{}'", function, name);
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i].is_missing()) raise("{}() is missing argument {}", function, i + 1);
  }
  return bound;
}

void Arguments::refuse_keywords(std::string_view function) const {
  if (!keyword.empty()) raise("{}() got an unexpected keyword argument '{}'", function, keyword[0].first);
}

Heap*& Heap::running() {
  thread_local Heap* heap = nullptr;
  return heap;
}

Value Heap::string(std::string text, bool markup) {
  if (text.size() > limits_.string_bytes)
    raise("a string of {} bytes exceeds the limit of {}", text.size(), limits_.string_bytes);
  charge(text.size());
  auto& string = make<String>();
  string.length = code_points(text);
  string.text = std::move(text);
  string.markup = markup;
  return Value::of(Type::string, &string);
}

Value Heap::list(std::vector<Value> items) {
  charge(items.size() * sizeof(Value));
  auto& list = make<List>();
  list.items = std::move(items);
  return Value::of(Type::list, &list);
}

Value Heap::tuple(std::vector<Value> items) { return Value::of(Type::tuple, &list(std::move(items)).object<List>()); }

Value Heap::dict() { return Value::of(Type::dict, &make<Dict>()); }

Value Heap::iterator(std::function<bool(Value&)> next) {
  auto& iterator = make<Iterator>();
  iterator.next = std::move(next);
  return Value::of(Type::iterator, &iterator);
}

Value Heap::undefined(std::string message) { return Value::undefined(&string(std::move(message)).string()); }

Value Heap::function(std::string name, std::function<Value(Runtime&, const Arguments&)> call) {
  auto& function = make<Function>();
  function.name = std::move(name);
  function.call = std::move(call);
  return Value::of(Type::function, &function);
}

void Heap::charge(uint64_t bytes) {
  if (bytes > limits_.bytes - bytes_) raise("the template needs more than {} bytes", limits_.bytes);
  bytes_ += bytes;
}

void Heap::step(uint64_t count) {
  if (count > limits_.steps - steps_) raise("the template takes more than {} steps", limits_.steps);
  steps_ += count;
}

std::string_view type_name(const Value& value) {
  switch (value.type()) {
    case Type::missing:
      return "missing";
    case Type::undefined:
      return "Undefined";
    case Type::none:
      return "NoneType";
    case Type::boolean:
      return "bool";
    case Type::integer:
      return "int";
    case Type::floating:
      return "float";
    case Type::string:
      return "str";
    case Type::list:
      return "list";
    case Type::tuple:
      return "tuple";
    case Type::dict:
      return "dict";
    case Type::range:
      return "range";
    case Type::iterator:
      return "generator";
    case Type::dict_view:
      return "dict view";
    case Type::name_space:
      return "Namespace";
    case Type::macro:
      return "Macro";
    case Type::function:
      return "function";
    case Type::loop:
      return "LoopContext";
    case Type::cycler:
      return "Cycler";
    case Type::joiner:
      return "Joiner";
  }
  return "?";
}

bool truthy(const Value& value) {
  switch (value.type()) {
    case Type::missing:
    case Type::undefined:
    case Type::none:
      return false;
    case Type::boolean:
    case Type::integer:
      return value.as_integer() != 0;
    case Type::floating:
      return value.as_double() != 0;
    case Type::string:
      return !value.text().empty();
    case Type::list:
    case Type::tuple:
      return !value.items().empty();
    case Type::dict:
      return !value.dict().entries.empty();
    case Type::range:
      return value.object<Range>().length() != 0;
    case Type::dict_view:
      return !value.object<DictView>().dict->entries.empty();
    case Type::loop:
      return value.object<Loop>().length() != 0;
    default:
      return true;
  }
}

bool equal(const Value& a, const Value& b) {
  int depth = 0;
  return equal_at(a, b, depth);
}

bool hashable(const Value& value) {
  if (value.is(Type::tuple)) return std::all_of(value.items().begin(), value.items().end(), hashable);
  return !value.is(Type::list) && !value.is(Type::dict) && !value.is(Type::dict_view);
}

bool identical(const Value& a, const Value& b) {
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::missing:
    case Type::none:
      return true;
    case Type::boolean:
    case Type::integer:
      return a.as_integer() == b.as_integer();
    case Type::floating:
      return false;
    default:
      return a.identity() == b.identity();
  }
}

int compare(const Value& a, const Value& b, std::string_view op) {
  int depth = 0;
  return compare_at(a, b, op, depth);
}

bool less(const Value& a, const Value& b) { return compare(a, b) < 0; }

std::string to_string(const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return {};
  return repr(value);
}

std::string repr(const Value& value) {
  std::string out;
  int depth = 0;
  repr_into(value, out, depth);
  return out;
}

std::string in_quotes(std::string_view text) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char32_t quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, static_cast<char>(quote));
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c == quote || c == '\\') {
      out += '\\';
      append_utf8(out, c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else {
      const auto code = static_cast<uint32_t>(c);
      out += c < 0x100     ? fmt::format("\\x{:02x}", code)
             : c < 0x10000 ? fmt::format("\\u{:04x}", code)
                           : fmt::format("\\U{:08x}", code);
    }
  }
  out += static_cast<char>(quote);
  return out;
}

// The shortest digits that read back as the same number, laid out as CPython's float_repr does.
std::string format_double(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto digits = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string scientific(buffer, digits.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) {
    const std::string mantissa = scientific.substr(0, e);
    return fmt::format("{}e{}{:02d}", mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string fixed(buffer, end.ptr);
  if (fixed.find('.') == fixed.npos) fixed += ".0";
  return fixed;
}

void raise_undefined(const Value& value) { raise("{}", static_cast<const String*>(value.identity())->text); }

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace expert::jinja
