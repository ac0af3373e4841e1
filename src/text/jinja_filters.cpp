#include "text/jinja_filters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "text/jinja_format.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

// -- arguments

bool flag(const Value& value, bool missing = false) { return value.is_missing() ? missing : truthy(value); }

int64_t whole(std::string_view filter, const Value& value, int64_t missing) {
  if (value.is_missing()) return missing;
  if (value.is_undefined()) raise_undefined(value);
  if (!value.is_whole()) raise("{}: an integer is required, not {}", filter, type_name(value));
  return value.as_integer();
}

const std::string& text_of(std::string_view filter, const Value& value) {
  if (value.is_undefined()) raise_undefined(value);
  if (!value.is_string()) raise("{}: a string is required, not {}", filter, type_name(value));
  return value.text();
}

Value make_text(Runtime& runtime, std::string text) { return runtime.heap().string(std::move(text)); }

// What a filter makes of a string stays Markup if the string was.
Value like(Runtime& runtime, const Value& input, std::string text) {
  return runtime.heap().string(std::move(text), input.is_string() && input.string().markup);
}

// "a.b.0" → the parts that lead from an item to its attribute
using Path = std::vector<Value>;

Path path_of(Runtime& runtime, const Value& attribute) {
  if (attribute.is_missing() || attribute.is_none()) return {};
  if (!attribute.is_string()) return {attribute};
  Path path;
  std::string_view rest = attribute.text();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool digits = !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    path.push_back(digits ? Value::integer(std::stoll(std::string(part))) : make_text(runtime, std::string(part)));
    if (dot == rest.npos) return path;
    rest.remove_prefix(dot + 1);
  }
}

Value follow(Runtime& runtime, Value item, const Path& path, const Value& otherwise = {}) {
  for (const Value& part : path) {
    item = runtime.item(item, part);
    if (item.is_undefined() && !otherwise.is_missing() && !otherwise.is_none()) item = otherwise;
  }
  return item;
}

Value ignore_case(Runtime& runtime, const Value& value, bool case_sensitive) {
  return case_sensitive || !value.is_string() ? value : make_text(runtime, to_lower(value.text()));
}

// -- text

template <std::string (*Map)(std::string_view)>
Value mapped(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("filter", {}, 0);
  return like(runtime, input, Map(to_string(input)));
}

// A word begins after white space or one of - ( { [ <
Value title(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("title", {}, 0);
  const std::string text = to_string(input);
  const auto separates = [](char32_t c) {
    return is_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos);
  };
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const bool separator = separates(next_char(text, at));
    size_t first_end = at;
    for (size_t next = at; at < text.size(); at = next) {
      if (separates(next_char(text, next)) != separator) break;
    }
    if (separator) first_end = start;
    if (separator) {
      out += text.substr(start, at - start);
    } else {
      out += to_upper(text.substr(start, first_end - start)) + to_lower(text.substr(first_end, at - first_end));
    }
  }
  return make_text(runtime, std::move(out));
}

Value trim(Runtime& runtime, const Value& input, const Arguments& given) {
  const Value chars = given.bind("trim", {"chars"}, 0)[0];
  const Value text = input.is_string() ? input : make_text(runtime, to_string(input));
  if (text.string().markup) return runtime.heap().string(std::string(strip_space(text.text())), true);
  Arguments strip;
  if (!chars.is_missing()) strip.positional.push_back(chars);
  return runtime.call(find_attribute(runtime, text, "strip"), strip);
}

Value replace(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("replace", {"old", "new", "count"}, 2);
  const int64_t limit = bound[2].is_none() ? -1 : whole("replace", bound[2], -1);
  return make_text(runtime, replaced(runtime, to_string(input), to_string(bound[0]), to_string(bound[1]), limit));
}

Value string(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("string", {}, 0);
  return input.is_string() ? input : make_text(runtime, to_string(input));
}

Value escape(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("escape", {}, 0);
  if (input.is_string() && input.string().markup) return input;
  return runtime.heap().string(escape_html(to_string(input)), true);
}

Value force_escape(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("forceescape", {}, 0);
  return runtime.heap().string(escape_html(to_string(input)), true);
}

Value safe(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("safe", {}, 0);
  return runtime.heap().string(to_string(input), true);
}

Value center(Runtime& runtime, const Value& input, const Arguments& given) {
  const int64_t width = whole("center", given.bind("center", {"width"}, 0)[0], 80);
  return like(runtime, input, justified(runtime, to_string(input), width, " ", 2));
}

Value indent(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("indent", {"width", "first", "blank"}, 0);
  const std::string& text = text_of("indent", input);
  std::string margin;
  if (!bound[0].is_missing() && bound[0].is_string()) {
    margin = bound[0].text();
  } else {
    const int64_t width = std::max<int64_t>(whole("indent", bound[0], 4), 0);
    if (width > 100'000) raise("indent: the width {} is too large", width);
    margin.assign(static_cast<size_t>(width), ' ');
  }
  const bool blank = flag(bound[2]);
  std::string out = flag(bound[1]) ? margin : "";
  const std::string with_end = text + "\n";
  bool first = true;
  for (std::string_view line : split_lines(with_end)) {
    if (!first) out += '\n';
    if (!first && (blank || !line.empty())) out += margin;
    first = false;
    out += line;
    if (out.size() > runtime.heap().limits().string_bytes) raise("indent: the result is too long");
  }
  return like(runtime, input, std::move(out));
}

std::string first_points(const std::string& text, int64_t count) {
  size_t at = 0;
  for (int64_t i = 0; i < count && at < text.size(); ++i) next_char(text, at);
  return text.substr(0, at);
}

Value truncate(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("truncate", {"length", "killwords", "end", "leeway"}, 0);
  const int64_t wanted = whole("truncate", bound[0], 255);
  const std::string end = bound[2].is_missing() ? "..." : text_of("truncate", bound[2]);
  const int64_t leeway = bound[3].is_none() ? 5 : whole("truncate", bound[3], 5);
  const auto end_length = static_cast<int64_t>(code_points(end));
  if (wanted < end_length) raise("truncate: expected length >= {}, got {}", end_length, wanted);
  if (leeway < 0) raise("truncate: expected leeway >= 0, got {}", leeway);
  if (length(input) <= checked_add(wanted, leeway)) return input;
  std::string cut = first_points(text_of("truncate", input), wanted - end_length);
  if (!flag(bound[1])) cut = std::string(split_last(cut, " ")[0]);
  return make_text(runtime, cut + end);
}

Value wordcount(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("wordcount", {}, 0);
  const std::string text = to_string(input);
  runtime.heap().step(text.size() / 16 + 1);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    const bool word = is_alnum(c) || c == '_';
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::integer(words);
}

Value format(Runtime& runtime, const Value& input, const Arguments& given) {
  if (!given.positional.empty() && !given.keyword.empty())
    raise("format: can't handle positional and keyword arguments at the same time");
  Value values = runtime.heap().tuple(given.positional);
  if (!given.keyword.empty()) {
    values = runtime.heap().dict();
    for (const auto& [key, value] : given.keyword) values.dict().set(make_text(runtime, key), value);
  }
  return make_text(runtime, format_percent(runtime, to_string(input), values));
}

Value urlencode(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("urlencode", {}, 0);
  const auto quote = [](const std::string& text, bool query) {
    std::string out;
    for (char c : text) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         (c != '\0' && std::string_view("_.-~").find(c) != std::string_view::npos);
      if (plain || (c == '/' && !query)) {
        out += c;
      } else if (query && c == ' ') {
        out += '+';
      } else {
        out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
      }
    }
    return out;
  };
  if (input.is_string() || !iterable(input)) return make_text(runtime, quote(to_string(input), false));
  std::string out;
  const auto pair = [&](const Value& key, const Value& value) {
    if (!out.empty()) out += '&';
    out += quote(to_string(key), true) + "=" + quote(to_string(value), true);
  };
  if (input.is(Type::dict)) {
    for (const auto& [key, value] : input.dict().entries) pair(key, value);
    return make_text(runtime, std::move(out));
  }
  for (const Value& item : runtime.collect(input)) {
    const std::vector<Value> parts = runtime.collect(item);
    if (parts.size() != 2) raise("urlencode: expected pairs");
    pair(parts[0], parts[1]);
  }
  return make_text(runtime, std::move(out));
}

// -- numbers

std::string_view without_sign(std::string_view text, bool& negative) {
  negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  return text;
}

// Digits with single underscores between them, as int() and float() read them; false when they are malformed.
bool remove_underscores(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto digit = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return false;
  }
  return true;
}

// int(text, base); false when it is no integer.
bool parse_whole(std::string_view text, int64_t base, int64_t& out) {
  bool negative = false;
  text = without_sign(strip_space(text), negative);
  const char letter = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t prefixed = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (prefixed != 0 && (base == 0 || base == prefixed)) {
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
    base = prefixed;
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) return false;
    base = 10;
  }
  std::string digits;
  if (text.empty() || !remove_underscores(text, digits)) return false;
  if (negative) digits.insert(0, 1, '-');
  if (digits.find('-', negative ? 1 : 0) != digits.npos) return false;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), out, static_cast<int>(base));
  const bool complete = result.ptr == digits.data() + digits.size();
  if (complete && result.ec == std::errc::result_out_of_range) raise("int: {} does not fit 64 bits", digits);
  return complete && result.ec == std::errc();
}

bool parse_real(std::string_view text, double& out) {
  bool negative = false;
  text = without_sign(strip_space(text), negative);
  std::string digits;
  if (text.empty() || text[0] == '-' || text[0] == '+' || !remove_underscores(text, digits)) return false;
  const std::string word = to_lower(digits);
  if (word == "inf" || word == "infinity" || word == "nan") {
    out = word == "nan" ? std::nan("") : HUGE_VAL;
  } else {
    if (digits.find_first_not_of("0123456789.eE+-") != digits.npos) return false;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    if (result.ptr != digits.data() + digits.size()) return false;
    if (result.ec == std::errc::result_out_of_range) {
      const size_t e = digits.find_first_of("eE");
      const bool tiny = e != digits.npos && digits.find('-', e) != digits.npos;
      out = tiny ? 0 : HUGE_VAL;
    } else if (result.ec != std::errc()) {
      return false;
    }
  }
  if (negative) out = -out;
  return true;
}

int64_t truncated(double value) {
  if (!(std::abs(value) < 9223372036854775808.0))
    raise("cannot convert float {} to a 64-bit integer", format_double(value));
  return static_cast<int64_t>(value);
}

Value to_integer(Runtime&, const Value& input, const Arguments& given) {
  const auto bound = given.bind("int", {"default", "base"}, 0);
  const Value otherwise = bound[0].is_missing() ? Value::integer(0) : bound[0];
  if (input.is_undefined()) raise_undefined(input);
  if (input.is_whole()) return Value::integer(input.as_integer());
  if (input.is(Type::floating)) {
    if (std::isnan(input.as_double())) return otherwise;
    return Value::integer(truncated(input.as_double()));
  }
  if (!input.is_string()) return otherwise;
  const int64_t base = whole("int", bound[1], 10);
  int64_t parsed = 0;
  if ((base == 0 || (base >= 2 && base <= 36)) && parse_whole(input.text(), base, parsed))
    return Value::integer(parsed);
  double real = 0;
  if (!parse_real(input.text(), real) || !std::isfinite(real)) return otherwise;
  return Value::integer(truncated(real));
}

Value to_real(Runtime&, const Value& input, const Arguments& given) {
  const auto bound = given.bind("float", {"default"}, 0);
  if (input.is_undefined()) raise_undefined(input);
  if (input.is_number()) return Value::floating(input.as_double());
  double real = 0;
  if (input.is_string() && parse_real(input.text(), real)) return Value::floating(real);
  return bound[0].is_missing() ? Value::floating(0) : bound[0];
}

Value absolute(Runtime&, const Value& input, const Arguments& given) {
  given.bind("abs", {}, 0);
  if (input.is_whole()) return input.as_integer() < 0 ? negate(input) : Value::integer(input.as_integer());
  if (input.is(Type::floating)) return Value::floating(std::abs(input.as_double()));
  raise("bad operand type for abs(): '{}'", type_name(input));
}

int64_t power_of_ten(int64_t exponent) {
  int64_t result = 1;
  for (int64_t i = 0; i < exponent; ++i) result = checked_multiply(result, 10);
  return result;
}

// round() of a float: the nearest decimal of that many digits to the exact binary value, ties to even.
double rounded(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 320) return value;
  if (digits >= 0) {
    const std::string text = fmt::format("{:.{}f}", value, digits);
    double nearest = value;
    std::from_chars(text.data(), text.data() + text.size(), nearest);
    return nearest;
  }
  if (digits < -310) return std::copysign(0.0, value);
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

int64_t rounded_whole(int64_t value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -18) return 0;
  const int64_t unit = power_of_ten(-digits);
  int64_t rest = value % unit;
  if (rest < 0) rest += unit;
  const int64_t low = value - rest;
  const bool up = rest > unit - rest || (rest == unit - rest && (low / unit) % 2 != 0);
  return up ? checked_add(low, unit) : low;
}

Value round(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("round", {"precision", "method"}, 0);
  const int64_t precision = bound[0].is_none() ? 0 : whole("round", bound[0], 0);
  const std::string method = bound[1].is_missing() ? "common" : text_of("round", bound[1]);
  if (method != "common" && method != "ceil" && method != "floor") raise("round: method must be common, ceil or floor");
  if (!input.is_number()) raise("type {} doesn't define __round__ method", type_name(input));
  if (method == "common") {
    if (bound[0].is_none() && !input.is_whole()) return Value::integer(truncated(std::nearbyint(input.as_double())));
    return input.is_whole() ? Value::integer(rounded_whole(input.as_integer(), precision))
                            : Value::floating(rounded(input.as_double(), precision));
  }
  if (precision > 18 || precision < -300) raise("round: the precision {} is too large", precision);
  const Value scale = precision < 0 ? Value::floating(std::pow(10.0, static_cast<double>(precision)))
                                    : Value::integer(power_of_ten(precision));
  const Value scaled = binary(runtime, Kind::multiply, input, scale);
  if (!std::isfinite(scaled.as_double()))
    raise("cannot convert float {} to integer", format_double(scaled.as_double()));
  const double edge = method == "ceil" ? std::ceil(scaled.as_double()) : std::floor(scaled.as_double());
  const Value whole_edge = scaled.is_whole() ? scaled : Value::integer(truncated(edge));
  return binary(runtime, Kind::divide, whole_edge, scale);
}

Value filesizeformat(Runtime& runtime, const Value& input, const Arguments& given) {
  const bool binary_units = flag(given.bind("filesizeformat", {"binary"}, 0)[0]);
  double bytes = 0;
  if (input.is_number()) {
    bytes = input.as_double();
  } else if (!input.is_string() || !parse_real(input.text(), bytes)) {
    raise("filesizeformat: a number is required");
  }
  if (!std::isfinite(bytes)) raise("filesizeformat: a finite number is required");
  const double base = binary_units ? 1024 : 1000;
  if (bytes == 1) return make_text(runtime, "1 Byte");
  if (bytes < base) return make_text(runtime, fmt::format("{} Bytes", truncated(bytes)));
  double unit = base;
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  for (size_t i = 0; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const char prefix = i == 0 && binary_units ? 'K' : kPrefixes[i];
    return make_text(runtime, fmt::format("{:.1f} {}{}", base * bytes / unit, prefix, binary_units ? "iB" : "B"));
  }
  return {};
}

// -- sequences

Value count(Runtime&, const Value& input, const Arguments& given) {
  given.bind("length", {}, 0);
  return Value::integer(length(input));
}

Value to_list(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("list", {}, 0);
  return runtime.heap().list(runtime.collect(input));
}

Value first(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("first", {}, 0);
  Source source = runtime.iterate(input);
  Value item;
  return source(item) ? item : runtime.heap().undefined("No first item, sequence was empty.");
}

// The items from the end; what Python cannot walk backwards is refused.
std::vector<Value> reversed(Runtime& runtime, const Value& input) {
  const bool walkable = input.is_string() || input.is_sequence() || input.is(Type::dict) || input.is(Type::dict_view) ||
                        input.is(Type::range) || input.is_undefined();
  if (!walkable) raise("'{}' object is not reversible", type_name(input));
  std::vector<Value> items = runtime.collect(input);
  std::reverse(items.begin(), items.end());
  return items;
}

Value last(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("last", {}, 0);
  if (input.is_string() || input.is_sequence()) {
    const Value item = at_index(runtime, input, -1);
    return item.is_missing() ? runtime.heap().undefined("No last item, sequence was empty.") : item;
  }
  const std::vector<Value> items = reversed(runtime, input);
  return items.empty() ? runtime.heap().undefined("No last item, sequence was empty.") : items[0];
}

Value over(Runtime& runtime, std::vector<Value> items) {
  runtime.heap().charge(items.size() * sizeof(Value));
  return runtime.heap().iterator([items = std::move(items), i = size_t{0}](Value& out) mutable {
    return i < items.size() && (out = items[i++], true);
  });
}

Value reverse(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("reverse", {}, 0);
  if (input.is_string()) {
    std::u32string points = to_utf32(input.text());
    std::reverse(points.begin(), points.end());
    return like(runtime, input, to_utf8(points));
  }
  if (input.is(Type::iterator)) {
    std::vector<Value> items = runtime.collect(input);
    std::reverse(items.begin(), items.end());
    return runtime.heap().list(std::move(items));
  }
  return over(runtime, reversed(runtime, input));
}

Value join(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("join", {"d", "attribute"}, 0);
  const std::string separator = bound[0].is_missing() ? "" : to_string(bound[0]);
  const Path path = path_of(runtime, bound[1]);
  std::string out;
  bool is_first = true;
  Source source = runtime.iterate(input);
  for (Value item; source(item);) {
    runtime.heap().step();
    if (!is_first) out += separator;
    is_first = false;
    out += to_string(follow(runtime, item, path));
    if (out.size() > runtime.heap().limits().string_bytes) raise("join: the result is too long");
  }
  return make_text(runtime, std::move(out));
}

// Sorts by keys that Python could compare; the order of equals stays.
std::vector<size_t> sorted(const std::vector<Value>& keys, bool descending) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return descending ? less(keys[b], keys[a]) : less(keys[a], keys[b]); });
  return order;
}

Value sort(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("sort", {"reverse", "case_sensitive", "attribute"}, 0);
  std::vector<Path> paths;
  if (!bound[2].is_missing() && bound[2].is_string()) {
    std::string_view rest = bound[2].text();
    for (size_t comma = 0; comma != rest.npos; rest.remove_prefix(comma == rest.npos ? 0 : comma + 1)) {
      comma = rest.find(',');
      paths.push_back(path_of(runtime, make_text(runtime, std::string(rest.substr(0, comma)))));
      if (comma == rest.npos) break;
    }
  } else {
    paths.push_back(path_of(runtime, bound[2]));
  }
  const std::vector<Value> items = runtime.collect(input);
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const Path& path : paths) key.push_back(ignore_case(runtime, follow(runtime, item, path), flag(bound[1])));
    keys.push_back(runtime.heap().list(std::move(key)));
  }
  std::vector<Value> out;
  for (size_t i : sorted(keys, flag(bound[0]))) out.push_back(items[i]);
  return runtime.heap().list(std::move(out));
}

Value dictsort(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("dictsort", {"case_sensitive", "by", "reverse"}, 0);
  const std::string by = bound[1].is_missing() ? "key" : to_string(bound[1]);
  if (by != "key" && by != "value") raise("dictsort: You can only sort by either \"key\" or \"value\"");
  if (input.is_undefined()) raise_undefined(input);
  if (!input.is(Type::dict)) raise("dictsort: '{}' object has no items()", type_name(input));
  const auto& entries = input.dict().entries;
  std::vector<Value> keys;
  for (const auto& [key, value] : entries)
    keys.push_back(ignore_case(runtime, by == "key" ? key : value, flag(bound[0])));
  std::vector<Value> out;
  for (size_t i : sorted(keys, flag(bound[2])))
    out.push_back(runtime.heap().tuple({entries[i].first, entries[i].second}));
  return runtime.heap().list(std::move(out));
}

Value unique(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("unique", {"case_sensitive", "attribute"}, 0);
  auto seen = std::make_shared<std::unordered_set<Value, ValueHash, ValueEqual>>();
  return runtime.heap().iterator([&runtime, input, source = Source(), seen, path = path_of(runtime, bound[1]),
                                  case_sensitive = flag(bound[0])](Value& out) mutable {
    if (!source) source = runtime.iterate(input);
    while (source(out)) {
      runtime.heap().step();
      const Value key = ignore_case(runtime, follow(runtime, out, path), case_sensitive);
      if (!hashable(key)) raise("unhashable type: '{}'", type_name(key));
      runtime.heap().charge(64);
      if (seen->insert(key).second) return true;
    }
    return false;
  });
}

template <bool Max>
Value extreme(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind(Max ? "max" : "min", {"case_sensitive", "attribute"}, 0);
  const Path path = path_of(runtime, bound[1]);
  Value best, best_key;
  for (const Value& item : runtime.collect(input)) {
    const Value key = ignore_case(runtime, follow(runtime, item, path), flag(bound[0]));
    if (best.is_missing() || (Max ? less(best_key, key) : less(key, best_key))) best = item, best_key = key;
  }
  return best.is_missing() ? runtime.heap().undefined("No aggregated item, sequence was empty.") : best;
}

Value sum(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("sum", {"attribute", "start"}, 0);
  const Path path = path_of(runtime, bound[0]);
  Value total = bound[1].is_missing() ? Value::integer(0) : bound[1];
  if (total.is_string()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  Source source = runtime.iterate(input);
  for (Value item; source(item);) {
    runtime.heap().step();
    total = binary(runtime, Kind::add, total, follow(runtime, item, path));
  }
  return total;
}

Value items(Runtime& runtime, const Value& input, const Arguments& given) {
  given.bind("items", {}, 0);
  return runtime.heap().iterator([&runtime, input, i = size_t{0}](Value& out) mutable {
    if (input.is_undefined()) return false;
    if (!input.is(Type::dict)) raise("Can only get item pairs from a mapping.");
    const auto& entries = input.dict().entries;
    if (i >= entries.size()) return false;
    out = runtime.heap().tuple({entries[i].first, entries[i].second});
    ++i;
    return true;
  });
}

Value batch(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("batch", {"linecount", "fill_with"}, 1);
  return runtime.heap().iterator(
      [&runtime, input, source = Source(), width = bound[0], fill = bound[1]](Value& out) mutable {
        if (!source) source = runtime.iterate(input);
        std::vector<Value> row;
        // a width that equals no length never ends the row, as in Python
        const auto full = [&] {
          return width.is_number() && equal(width, Value::integer(static_cast<int64_t>(row.size())));
        };
        for (Value item; !(!row.empty() && full()) && source(item);) {
          runtime.heap().step();
          row.push_back(item);
        }
        if (row.empty()) return false;
        if (!fill.is_missing() && !fill.is_none()) {
          const int64_t wanted = whole("batch", width, 0);
          if (wanted > 1'000'000) raise("batch: {} is too large", wanted);
          while (static_cast<int64_t>(row.size()) < wanted) row.push_back(fill);
        }
        out = runtime.heap().list(std::move(row));
        return true;
      });
}

Value slices(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("slice", {"slices", "fill_with"}, 1);
  return runtime.heap().iterator([&runtime, input, wanted = bound[0], fill = bound[1], rest = std::vector<Value>(),
                                  number = int64_t{-1}, at = size_t{0}](Value& out) mutable {
    const int64_t count = whole("slice", wanted, 0);
    if (number < 0) {
      rest = runtime.collect(input);
      if (count == 0) raise("integer division or modulo by zero");
      number = 0;
    }
    if (number >= count) return false;
    const auto total = static_cast<int64_t>(rest.size());
    const bool longer = number < total % count;
    const auto end = at + static_cast<size_t>(total / count) + (longer ? 1 : 0);
    std::vector<Value> part(rest.begin() + static_cast<ptrdiff_t>(at), rest.begin() + static_cast<ptrdiff_t>(end));
    if (!longer && !fill.is_missing() && !fill.is_none()) part.push_back(fill);
    at = end;
    ++number;
    runtime.heap().step();
    out = runtime.heap().list(std::move(part));
    return true;
  });
}

Value groupby(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("groupby", {"attribute", "default", "case_sensitive"}, 1);
  const Path path = path_of(runtime, bound[0]);
  const std::vector<Value> all = runtime.collect(input);
  std::vector<Value> keys;
  for (const Value& item : all)
    keys.push_back(ignore_case(runtime, follow(runtime, item, path, bound[1]), flag(bound[2])));
  std::vector<Value> groups;
  std::vector<Value> members;
  Value key;
  const auto close = [&] {
    if (members.empty()) return;
    const Value name = flag(bound[2]) ? key : follow(runtime, members[0], path, bound[1]);
    const Value group = runtime.heap().tuple({name, runtime.heap().list(members)});
    group.object<List>().group = true;
    groups.push_back(group);
    members.clear();
  };
  for (size_t i : sorted(keys, false)) {
    if (!members.empty() && !equal(key, keys[i])) close();
    if (members.empty()) key = keys[i];
    members.push_back(all[i]);
  }
  close();
  return runtime.heap().list(std::move(groups));
}

// -- filters and tests over items

Arguments without_first(const Arguments& given, size_t count) {
  Arguments rest;
  rest.positional.assign(given.positional.begin() + static_cast<ptrdiff_t>(count), given.positional.end());
  rest.keyword = given.keyword;
  return rest;
}

const std::string& name_of(std::string_view what, const Value& value) {
  if (!value.is_string()) raise("no {} named {}", what, repr(value));
  return value.text();
}

std::function<Value(const Value&)> map_function(Runtime& runtime, const Arguments& given) {
  Value attribute, otherwise;
  for (const auto& [key, value] : given.keyword) {
    if (key == "attribute") attribute = value;
    if (key == "default") otherwise = value;
  }
  if (given.positional.empty() && !attribute.is_missing()) {
    for (const auto& [key, value] : given.keyword) {
      if (key != "attribute" && key != "default") raise("map: Unexpected keyword argument '{}'", key);
    }
    return [&runtime, path = path_of(runtime, attribute), otherwise](const Value& item) {
      return follow(runtime, item, path, otherwise);
    };
  }
  if (given.positional.empty()) raise("map requires a filter argument");
  const std::string filter = name_of("filter", given.positional[0]);
  if (is_refused_filter(filter)) raise("the filter '{}' is not supported in chat templates", filter);
  return [&runtime, filter, rest = without_first(given, 1)](const Value& item) {
    return runtime.call_filter(filter, item, rest);
  };
}

Value map(Runtime& runtime, const Value& input, const Arguments& given) {
  return runtime.heap().iterator(
      [&runtime, input, given, source = Source(), function = std::function<Value(const Value&)>()](Value& out) mutable {
        if (!source) {
          if (!truthy(input)) return false;
          function = map_function(runtime, given);
          source = runtime.iterate(input);
        }
        runtime.heap().step();
        Value item;
        if (!source(item)) return false;
        out = function(item);
        return true;
      });
}

template <bool Keep, bool ByAttribute>
Value select(Runtime& runtime, const Value& input, const Arguments& given) {
  constexpr size_t kTest = ByAttribute ? 1 : 0;  // the place of the test's name
  return runtime.heap().iterator([&runtime, input, given, source = Source(), path = Path(), test = std::string(),
                                  rest = Arguments()](Value& out) mutable {
    if (!source) {
      if (!truthy(input)) return false;
      if (ByAttribute && given.positional.empty()) raise("Missing parameter for attribute name");
      if (ByAttribute) path = path_of(runtime, given.positional[0]);
      if (given.positional.size() > kTest) {
        test = name_of("test", given.positional[kTest]);
        rest = without_first(given, kTest + 1);
      }
      source = runtime.iterate(input);
    }
    while (source(out)) {
      runtime.heap().step();
      const Value subject = follow(runtime, out, path);
      const bool passed = given.positional.size() > kTest ? runtime.call_test(test, subject, rest) : truthy(subject);
      if (passed == Keep) return true;
    }
    return false;
  });
}

// -- the rest

Value otherwise(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("default", {"default_value", "boolean"}, 0);
  const bool use = input.is_undefined() || (flag(bound[1]) && !truthy(input));
  if (!use) return input;
  return bound[0].is_missing() ? make_text(runtime, "") : bound[0];
}

Value attr(Runtime& runtime, const Value& input, const Arguments& given) {
  const Value name = given.bind("attr", {"name"}, 1)[0];
  if (input.is_undefined()) raise_undefined(input);
  const Value found = find_attribute(runtime, input, text_of("attr", name));
  return found.is_missing()
             ? runtime.heap().undefined(fmt::format("'{} object' has no attribute '{}'", type_name(input), name.text()))
             : found;
}

Value tojson(Runtime& runtime, const Value& input, const Arguments& given) {
  const auto bound = given.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ensure_ascii = flag(bound[0]);
  style.sort_keys = flag(bound[3]);
  if (!bound[1].is_missing() && !bound[1].is_none()) {
    style.pretty = true;
    style.item_separator = ",";
    if (bound[1].is_string()) {
      style.indent = bound[1].text();
    } else {
      const int64_t width = std::max<int64_t>(whole("tojson", bound[1], 0), 0);
      if (width > 1000) raise("tojson: an indent of {} is too large", width);
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (!bound[2].is_missing() && !bound[2].is_none()) {
    const std::vector<Value> separators = runtime.collect(bound[2]);
    if (separators.size() != 2) raise("tojson: separators must be a pair");
    style.item_separator = text_of("tojson", separators[0]);
    style.key_separator = text_of("tojson", separators[1]);
  }
  return make_text(runtime, to_json(runtime, input, style));
}

struct FilterEntry {
  std::string_view name;
  Filter filter;
};

constexpr FilterEntry kFilters[] = {
    {"abs", absolute},
    {"attr", attr},
    {"batch", batch},
    {"capitalize", mapped<capitalize>},
    {"center", center},
    {"count", count},
    {"d", otherwise},
    {"default", otherwise},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"filesizeformat", filesizeformat},
    {"first", first},
    {"float", to_real},
    {"forceescape", force_escape},
    {"format", format},
    {"groupby", groupby},
    {"indent", indent},
    {"int", to_integer},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", count},
    {"list", to_list},
    {"lower", mapped<to_lower>},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false, false>},
    {"rejectattr", select<false, true>},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round},
    {"safe", safe},
    {"select", select<true, false>},
    {"selectattr", select<true, true>},
    {"slice", slices},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", title},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate},
    {"unique", unique},
    {"upper", mapped<to_upper>},
    {"urlencode", urlencode},
    {"wordcount", wordcount},
};

constexpr std::array<std::string_view, 6> kRefusedFilters = {"pprint", "random",   "striptags",
                                                             "urlize", "wordwrap", "xmlattr"};

// -- tests

bool nothing_more(const Arguments& given) {
  given.bind("test", {}, 0);
  return true;
}

template <Type... Types>
bool is_type(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && (input.is(Types) || ...);
}

template <Comparison Op>
bool compares(Runtime& runtime, const Value& input, const Arguments& given) {
  return compare_with(runtime, Op, input, given.bind("test", {""}, 1)[0]);
}

template <bool Wanted>
bool is_boolean(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && input.is(Type::boolean) && input.as_boolean() == Wanted;
}

bool remainder_is(Runtime& runtime, const Value& input, const Value& divisor, int64_t wanted) {
  return equal(binary(runtime, Kind::modulo, input, divisor), Value::integer(wanted));
}

template <int64_t Wanted>
bool parity(Runtime& runtime, const Value& input, const Arguments& given) {
  return nothing_more(given) && remainder_is(runtime, input, Value::integer(2), Wanted);
}

template <bool Upper>
bool is_cased(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && has_case(to_string(input), Upper);
}

bool is_defined(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && !input.is_undefined();
}
bool is_iterable(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && iterable(input);
}
bool is_sequence(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && has_length(input) && !input.is(Type::dict_view) && !input.is(Type::loop);
}
bool is_same(Runtime&, const Value& input, const Arguments& given) {
  return identical(input, given.bind("sameas", {"other"}, 1)[0]);
}
bool is_in(Runtime& runtime, const Value& input, const Arguments& given) {
  return contains(runtime, given.bind("in", {"seq"}, 1)[0], input);
}
bool is_divisible(Runtime& runtime, const Value& input, const Arguments& given) {
  return remainder_is(runtime, input, given.bind("divisibleby", {"num"}, 1)[0], 0);
}
bool is_callable(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && (input.is(Type::macro) || input.is(Type::function) || input.is(Type::joiner) ||
                                 input.is(Type::loop) || input.is_undefined());
}
bool is_escaped(Runtime&, const Value& input, const Arguments& given) {
  return nothing_more(given) && input.is_string() && input.string().markup;
}

bool is_filter(Runtime&, const Value& input, const Arguments& given) {
  nothing_more(given);
  if (!hashable(input)) raise("unhashable type: '{}'", type_name(input));
  if (!input.is_string()) return false;
  if (is_refused_filter(input.text())) raise("the filter '{}' is not supported in chat templates", input.text());
  return find_filter(input.text()) != nullptr;
}

bool is_test(Runtime&, const Value& input, const Arguments& given) {
  nothing_more(given);
  if (!hashable(input)) raise("unhashable type: '{}'", type_name(input));
  return input.is_string() && find_test(input.text()) != nullptr;
}

struct TestEntry {
  std::string_view name;
  Test test;
};

constexpr TestEntry kTests[] = {
    {"odd", parity<1>},
    {"even", parity<0>},
    {"divisibleby", is_divisible},
    {"defined", is_defined},
    {"undefined", is_type<Type::undefined>},
    {"filter", is_filter},
    {"test", is_test},
    {"none", is_type<Type::none>},
    {"boolean", is_type<Type::boolean>},
    {"false", is_boolean<false>},
    {"true", is_boolean<true>},
    {"integer", is_type<Type::integer>},
    {"float", is_type<Type::floating>},
    {"lower", is_cased<false>},
    {"upper", is_cased<true>},
    {"string", is_type<Type::string>},
    {"mapping", is_type<Type::dict>},
    {"number", is_type<Type::boolean, Type::integer, Type::floating>},
    {"sequence", is_sequence},
    {"iterable", is_iterable},
    {"callable", is_callable},
    {"sameas", is_same},
    {"escaped", is_escaped},
    {"in", is_in},
    {"==", compares<Comparison::eq>},
    {"eq", compares<Comparison::eq>},
    {"equalto", compares<Comparison::eq>},
    {"!=", compares<Comparison::ne>},
    {"ne", compares<Comparison::ne>},
    {">", compares<Comparison::gt>},
    {"gt", compares<Comparison::gt>},
    {"greaterthan", compares<Comparison::gt>},
    {"ge", compares<Comparison::ge>},
    {">=", compares<Comparison::ge>},
    {"<", compares<Comparison::lt>},
    {"lt", compares<Comparison::lt>},
    {"lessthan", compares<Comparison::lt>},
    {"<=", compares<Comparison::le>},
    {"le", compares<Comparison::le>},
};

// -- global functions

constexpr int64_t kRangeLimit = 100'000;  // the sandbox's own

Value range(Runtime& runtime, const Arguments& given) {
  const auto bound = given.bind("range", {"", "", ""}, 1);
  auto& range = runtime.heap().make<Range>();
  range.stop = whole("range", bound[0], 0);
  if (!bound[1].is_missing()) {
    range.start = range.stop;
    range.stop = whole("range", bound[1], 0);
  }
  range.step = whole("range", bound[2], 1);
  if (range.step == 0) raise("range() arg 3 must not be zero");
  if (range.length() > kRangeLimit) raise("Range too big. The sandbox blocks ranges larger than {}.", kRangeLimit);
  return Value::of(Type::range, &range);
}

// dict(mapping or pairs, **more)
Value make_dict(Runtime& runtime, const Arguments& given) {
  if (given.positional.size() > 1) raise("dict expected at most 1 argument, got {}", given.positional.size());
  const Value result = runtime.heap().dict();
  Dict& dict = result.dict();
  const auto set = [&](const Value& key, const Value& value) {
    if (!hashable(key)) raise("unhashable type: '{}'", type_name(key));
    runtime.heap().charge(sizeof(Value) * 8);
    dict.set(key, value);
  };
  if (!given.positional.empty() && given.positional[0].is(Type::dict)) {
    for (const auto& [key, value] : given.positional[0].dict().entries) set(key, value);
  } else if (!given.positional.empty()) {
    if (given.positional[0].is_undefined()) raise_undefined(given.positional[0]);
    for (const Value& item : runtime.collect(given.positional[0])) {
      const std::vector<Value> pair = runtime.collect(item);
      if (pair.size() != 2) raise("dictionary update sequence element has length {}; 2 is required", pair.size());
      set(pair[0], pair[1]);
    }
  }
  for (const auto& [key, value] : given.keyword) set(runtime.heap().string(key), value);
  return result;
}

Value make_namespace(Runtime& runtime, const Arguments& given) {
  const Value attributes = make_dict(runtime, given);
  for (const auto& [key, value] : attributes.dict().entries) {
    if (key.is_string() && key.text().starts_with('_'))
      raise("cannot store the underscore-prefixed attribute '{}' on a namespace", key.text());
  }
  auto& space = runtime.heap().make<Namespace>();
  space.attributes = &attributes.dict();
  return Value::of(Type::name_space, &space);
}

Value make_cycler(Runtime& runtime, const Arguments& given) {
  given.refuse_keywords("cycler");
  if (given.positional.empty()) raise("at least one item has to be provided");
  auto& cycler = runtime.heap().make<Cycler>();
  cycler.items = given.positional;
  return Value::of(Type::cycler, &cycler);
}

Value make_joiner(Runtime& runtime, const Arguments& given) {
  const Value separator = given.bind("joiner", {"sep"}, 0)[0];
  auto& joiner = runtime.heap().make<Joiner>();
  joiner.separator = separator.is_missing() ? runtime.heap().string(", ") : separator;
  return Value::of(Type::joiner, &joiner);
}

Value raise_exception(Runtime&, const Arguments& given) {
  raise("{}", to_string(given.bind("raise_exception", {"message"}, 1)[0]));
}

Value strftime_now(Runtime& runtime, const Arguments& given) {
  const Value format = given.bind("strftime_now", {"format"}, 1)[0];
  return runtime.heap().string(format_time(text_of("strftime_now", format), runtime.now()));
}

Value lipsum(Runtime&, const Arguments&) { raise("the function 'lipsum' is not supported in chat templates"); }

}  // namespace

Filter find_filter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const FilterEntry& entry) { return entry.name == name; });
  return found == std::end(kFilters) ? nullptr : found->filter;
}

Test find_test(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const TestEntry& entry) { return entry.name == name; });
  return found == std::end(kTests) ? nullptr : found->test;
}

bool is_refused_filter(std::string_view name) {
  return std::find(kRefusedFilters.begin(), kRefusedFilters.end(), name) != kRefusedFilters.end();
}

void add_globals(Runtime& runtime) {
  using Call = Value (*)(Runtime&, const Arguments&);
  static constexpr std::pair<std::string_view, Call> kGlobals[] = {{"range", range},
                                                                   {"dict", make_dict},
                                                                   {"namespace", make_namespace},
                                                                   {"cycler", make_cycler},
                                                                   {"joiner", make_joiner},
                                                                   {"lipsum", lipsum},
                                                                   {"raise_exception", raise_exception},
                                                                   {"strftime_now", strftime_now}};
  for (const auto& [name, call] : kGlobals)
    runtime.set_variable(std::string(name), runtime.heap().function(std::string(name), call));
}

}  // namespace expert::jinja
