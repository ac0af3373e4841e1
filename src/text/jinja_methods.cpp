#include "text/jinja_methods.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja_format.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, const Arguments&);
struct MethodEntry {
  std::string_view name;
  Method method;
};

template <size_t N>
Method find_method(const MethodEntry (&table)[N], std::string_view name) {
  const auto* found = std::find_if(table, table + N, [&](const MethodEntry& entry) { return entry.name == name; });
  return found == table + N ? nullptr : found->method;
}

template <size_t N>
bool one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const std::string& text_argument(std::string_view function, const Value& value) {
  if (!value.is_string()) raise("{}() argument must be str, not {}", function, type_name(value));
  return value.text();
}

int64_t whole_argument(std::string_view function, const Value& value, int64_t missing) {
  if (value.is_missing()) return missing;
  if (!value.is_whole()) raise("{}() argument must be an integer, not {}", function, type_name(value));
  return value.as_integer();
}

// -- str

Value text(Runtime& runtime, std::string_view value) { return runtime.heap().string(std::string(value)); }

template <std::string (*Map)(std::string_view)>
Value mapped(Runtime& runtime, const Value& self, const Arguments& given) {
  given.bind("str method", {}, 0);
  return text(runtime, Map(self.text()));
}

std::string_view strip_characters(std::string_view value, const std::u32string& set, bool left, bool right) {
  const auto in_set = [&](char32_t c) { return set.find(c) != set.npos; };
  while (left && !value.empty()) {
    size_t next = 0;
    if (!in_set(next_char(value, next))) break;
    value.remove_prefix(next);
  }
  while (right && !value.empty()) {
    size_t start = value.size() - 1;
    while ((static_cast<unsigned char>(value[start]) & 0xc0) == 0x80) --start;
    size_t next = start;
    if (!in_set(next_char(value, next))) break;
    value.remove_suffix(value.size() - start);
  }
  return value;
}

template <bool Left, bool Right>
Value strip(Runtime& runtime, const Value& self, const Arguments& given) {
  const Value set = given.bind("strip", {""}, 0)[0];
  if (set.is_missing() || set.is_none()) return text(runtime, strip_space(self.text(), Left, Right));
  runtime.heap().step(self.text().size() / 64 + 1);
  return text(runtime, strip_characters(self.text(), to_utf32(text_argument("strip", set)), Left, Right));
}

std::vector<std::string_view> split_space(std::string_view value, int64_t limit) {
  std::vector<std::string_view> parts;
  value = strip_space(value, true, false);
  while (!value.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip_space(value, false, true));
      break;
    }
    size_t end = 0;
    for (size_t next = 0; end < value.size(); end = next) {
      if (is_space(next_char(value, next))) break;
    }
    parts.push_back(value.substr(0, end));
    value = strip_space(value.substr(end), true, false);
  }
  return parts;
}

std::vector<std::string_view> rsplit_space(std::string_view value, int64_t limit) {
  std::vector<std::string_view> parts;
  value = strip_space(value, false, true);
  while (!value.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip_space(value, true, false));
      break;
    }
    size_t word = 0;  // start of the last word
    for (size_t next = 0; next < value.size();) {
      if (is_space(next_char(value, next))) word = next;
    }
    parts.push_back(value.substr(word));
    value = strip_space(value.substr(0, word), false, true);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_at(std::string_view value, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = value.find(separator);
    if (found == value.npos) break;
    parts.push_back(value.substr(0, found));
    value.remove_prefix(found + separator.size());
  }
  parts.push_back(value);
  return parts;
}

std::vector<std::string_view> rsplit_at(std::string_view value, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t found = value.rfind(separator);
    if (found == value.npos) break;
    parts.push_back(value.substr(found + separator.size()));
    value = value.substr(0, found);
  }
  parts.push_back(value);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value strings(Runtime& runtime, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  for (std::string_view part : parts) items.push_back(text(runtime, part));
  return runtime.heap().list(std::move(items));
}

template <bool Right>
Value split(Runtime& runtime, const Value& self, const Arguments& given) {
  const auto bound = given.bind("split", {"sep", "maxsplit"}, 0);
  const int64_t limit = whole_argument("split", bound[1], -1);
  runtime.heap().step(self.text().size() / 64 + 1);
  if (bound[0].is_missing() || bound[0].is_none()) {
    if (Right) runtime.heap().step(self.text().size());
    return strings(runtime, Right ? rsplit_space(self.text(), limit) : split_space(self.text(), limit));
  }
  const std::string& separator = text_argument("split", bound[0]);
  if (separator.empty()) raise("empty separator");
  return strings(runtime, Right ? rsplit_at(self.text(), separator, limit) : split_at(self.text(), separator, limit));
}

template <bool Right>
Value partition(Runtime& runtime, const Value& self, const Arguments& given) {
  const std::string& separator = text_argument("partition", given.bind("partition", {""}, 1)[0]);
  if (separator.empty()) raise("empty separator");
  const std::string& value = self.text();
  const size_t found = Right ? value.rfind(separator) : value.find(separator);
  std::array<std::string_view, 3> parts;
  if (found == value.npos) {
    parts[Right ? 2 : 0] = value;
  } else {
    parts = {std::string_view(value).substr(0, found), separator,
             std::string_view(value).substr(found + separator.size())};
  }
  return runtime.heap().tuple({text(runtime, parts[0]), text(runtime, parts[1]), text(runtime, parts[2])});
}

bool is_line_break(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

std::vector<std::string_view> lines(std::string_view value, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t start = 0;
  for (size_t at = 0; at < value.size();) {
    const size_t end = at;
    const char32_t c = next_char(value, at);
    if (!is_line_break(c)) continue;
    if (c == '\r' && at < value.size() && value[at] == '\n') ++at;
    out.push_back(value.substr(start, (keep_ends ? at : end) - start));
    start = at;
  }
  if (start < value.size()) out.push_back(value.substr(start));
  return out;
}

Value splitlines(Runtime& runtime, const Value& self, const Arguments& given) {
  const Value keep = given.bind("splitlines", {"keepends"}, 0)[0];
  return strings(runtime, lines(self.text(), whole_argument("splitlines", keep, 0) != 0));
}

// The part of the string that start and end (in code points, as in slices) leave, and the code points before it.
struct Window {
  std::string_view part;
  int64_t before = 0;
  bool valid = true;  // false: start beyond the end
};

Window window(const Value& self, const Value& start, const Value& stop) {
  const auto length = static_cast<int64_t>(self.string().length);
  const auto bound = [&](const Value& value, int64_t missing) {
    if (value.is_missing() || value.is_none()) return missing;
    if (!value.is_whole()) raise("slice indices must be integers or None");
    const int64_t index = value.as_integer();
    return index < 0 ? std::max<int64_t>(index + length, 0) : index;
  };
  Window out;
  out.before = bound(start, 0);
  const int64_t last = std::min(bound(stop, length), length);
  if (out.before > last) return out.valid = false, out;
  const std::string& value = self.text();
  size_t from = 0, to = 0;
  if (self.string().ascii()) {
    from = static_cast<size_t>(out.before), to = static_cast<size_t>(last);
  } else {
    for (int64_t i = 0; i < last; ++i) {
      if (i == out.before) from = to;
      next_char(value, to);
    }
    if (out.before == last) from = to;
  }
  out.part = std::string_view(value).substr(from, to - from);
  return out;
}

template <bool Right>
int64_t find_index(const Value& self, const Arguments& given) {
  const auto bound = given.bind("find", {"", "", ""}, 1);
  const std::string& wanted = text_argument("find", bound[0]);
  const Window in = window(self, bound[1], bound[2]);
  if (!in.valid) return -1;
  const size_t found = Right ? in.part.rfind(wanted) : in.part.find(wanted);
  if (found == in.part.npos) return -1;
  return in.before + static_cast<int64_t>(code_points(in.part.substr(0, found)));
}

template <bool Right>
Value find(Runtime& runtime, const Value& self, const Arguments& given) {
  runtime.heap().step(self.text().size() / 64 + 1);
  return Value::integer(find_index<Right>(self, given));
}

template <bool Right>
Value index(Runtime& runtime, const Value& self, const Arguments& given) {
  runtime.heap().step(self.text().size() / 64 + 1);
  const int64_t found = find_index<Right>(self, given);
  if (found < 0) raise("substring not found");
  return Value::integer(found);
}

Value count(Runtime& runtime, const Value& self, const Arguments& given) {
  const auto bound = given.bind("count", {"", "", ""}, 1);
  const std::string& wanted = text_argument("count", bound[0]);
  const Window in = window(self, bound[1], bound[2]);
  runtime.heap().step(self.text().size() / 64 + 1);
  if (!in.valid) return Value::integer(0);
  if (wanted.empty()) return Value::integer(static_cast<int64_t>(code_points(in.part)) + 1);
  int64_t found = 0;
  for (size_t at = in.part.find(wanted); at != in.part.npos; at = in.part.find(wanted, at + wanted.size())) ++found;
  return Value::integer(found);
}

template <bool End>
Value affix(Runtime&, const Value& self, const Arguments& given) {
  const auto bound = given.bind(End ? "endswith" : "startswith", {"", "", ""}, 1);
  const Window in = window(self, bound[1], bound[2]);
  const auto matches = [&](const Value& wanted) {
    const std::string& fix = text_argument(End ? "endswith" : "startswith", wanted);
    return in.valid && (End ? in.part.ends_with(fix) : in.part.starts_with(fix));
  };
  if (!bound[0].is(Type::tuple)) return Value::boolean(matches(bound[0]));
  const auto& options = bound[0].items();
  return Value::boolean(std::any_of(options.begin(), options.end(), matches));
}

template <bool End>
Value remove_affix(Runtime& runtime, const Value& self, const Arguments& given) {
  const std::string& fix = text_argument("removeprefix", given.bind("removeprefix", {""}, 1)[0]);
  std::string_view value = self.text();
  if (!End && value.starts_with(fix)) value.remove_prefix(fix.size());
  if (End && value.ends_with(fix)) value.remove_suffix(fix.size());
  return text(runtime, value);
}

Value replace(Runtime& runtime, const Value& self, const Arguments& given) {
  const auto bound = given.bind("replace", {"", "", ""}, 2);
  return text(runtime, replaced(runtime, self.text(), text_argument("replace", bound[0]),
                                text_argument("replace", bound[1]), whole_argument("replace", bound[2], -1)));
}

Value join(Runtime& runtime, const Value& self, const Arguments& given) {
  const Value items = given.bind("join", {""}, 1)[0];
  std::string out;
  bool first = true;
  for (const Value& item : runtime.collect(items)) {
    if (!item.is_string()) raise("sequence item: expected str instance, {} found", type_name(item));
    if (!first) out += self.text();
    first = false;
    out += item.text();
    if (out.size() > runtime.heap().limits().string_bytes) raise("a joined string is too long");
  }
  return runtime.heap().string(std::move(out));
}

// True when the string is not empty and every character passes.
template <bool (*Is)(char32_t)>
Value every(Runtime&, const Value& self, const Arguments& given) {
  given.bind("str method", {}, 0);
  const std::string& value = self.text();
  bool all = !value.empty();
  for (size_t at = 0; all && at < value.size();) all = Is(next_char(value, at));
  return Value::boolean(all);
}

Value isascii(Runtime&, const Value& self, const Arguments& given) {
  given.bind("isascii", {}, 0);
  return Value::boolean(self.string().ascii());
}

Value isprintable(Runtime&, const Value& self, const Arguments& given) {
  given.bind("isprintable", {}, 0);
  const std::string& value = self.text();
  bool all = true;
  for (size_t at = 0; all && at < value.size();) all = is_printable(next_char(value, at));
  return Value::boolean(all);
}

template <bool Upper>
Value is_cased(Runtime&, const Value& self, const Arguments& given) {
  given.bind("str method", {}, 0);
  return Value::boolean(has_case(self.text(), Upper));
}

Value istitle(Runtime&, const Value& self, const Arguments& given) {
  given.bind("istitle", {}, 0);
  bool cased = false, inside = false;
  const std::string& value = self.text();
  for (size_t at = 0; at < value.size();) {
    const char32_t c = next_char(value, at);
    const bool capital = is_upper(c) || is_title(c), small = is_lower(c);
    if ((capital && inside) || (small && !inside)) return Value::boolean(false);
    inside = capital || small;
    cased = cased || inside;
  }
  return Value::boolean(cased);
}

// ljust, rjust, center: 0, 1, 2
template <int Side>
Value justify(Runtime& runtime, const Value& self, const Arguments& given) {
  const auto bound = given.bind("justify", {"", ""}, 1);
  const int64_t width = whole_argument("justify", bound[0], 0);
  const std::string fill = bound[1].is_missing() ? " " : text_argument("justify", bound[1]);
  if (code_points(fill) != 1) raise("The fill character must be exactly one character long");
  return text(runtime, justified(runtime, self.text(), width, fill, Side));
}

Value zfill(Runtime& runtime, const Value& self, const Arguments& given) {
  const int64_t width = whole_argument("zfill", given.bind("zfill", {""}, 1)[0], 0);
  std::string_view value = self.text();
  const bool sign = value.starts_with('+') || value.starts_with('-');
  const std::string digits =
      justified(runtime, std::string(value.substr(sign ? 1 : 0)), width - (sign ? 1 : 0), "0", 1);
  return text(runtime, std::string(value.substr(0, sign ? 1 : 0)) + digits);
}

Value expandtabs(Runtime& runtime, const Value& self, const Arguments& given) {
  const int64_t size = whole_argument("expandtabs", given.bind("expandtabs", {"tabsize"}, 0)[0], 8);
  if (size > 1000) raise("expandtabs: the tab size exceeds 1000");
  std::string out;
  int64_t column = 0;
  const std::string& value = self.text();
  for (size_t at = 0; at < value.size();) {
    const char32_t c = next_char(value, at);
    if (c == '\t') {
      const int64_t fill = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(fill), ' ');
      column += fill;
    } else {
      append_utf8(out, c);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    if (out.size() > runtime.heap().limits().string_bytes) raise("a string is too long");
  }
  return text(runtime, out);
}

Value format(Runtime& runtime, const Value& self, const Arguments& given) {
  return text(runtime, format_braces(runtime, self.text(), given));
}

Value format_map(Runtime& runtime, const Value& self, const Arguments& given) {
  const Value map = given.bind("format_map", {""}, 1)[0];
  if (!map.is(Type::dict)) raise("format_map() argument must be a mapping");
  Arguments values;
  for (const auto& [key, value] : map.dict().entries) {
    if (key.is_string()) values.keyword.emplace_back(key.text(), value);
  }
  return text(runtime, format_braces(runtime, self.text(), values));
}

bool is_identifier(std::string_view value) {
  const auto start = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto part = [&](char c) { return start(c) || (c >= '0' && c <= '9'); };
  return !value.empty() && start(value[0]) && std::all_of(value.begin(), value.end(), part);
}

Value isidentifier(Runtime&, const Value& self, const Arguments& given) {
  given.bind("isidentifier", {}, 0);
  if (!self.string().ascii()) raise("isidentifier() of a string beyond ASCII is not supported");
  return Value::boolean(is_identifier(self.text()));
}

constexpr MethodEntry kStringMethods[] = {
    {"capitalize", mapped<capitalize>},
    {"casefold", mapped<to_fold>},
    {"center", justify<2>},
    {"count", count},
    {"endswith", affix<true>},
    {"expandtabs", expandtabs},
    {"find", find<false>},
    {"format", format},
    {"format_map", format_map},
    {"index", index<false>},
    {"isalnum", every<is_alnum>},
    {"isalpha", every<is_alpha>},
    {"isascii", isascii},
    {"isdecimal", every<is_decimal>},
    {"isdigit", every<is_digit>},
    {"isidentifier", isidentifier},
    {"islower", is_cased<false>},
    {"isnumeric", every<is_numeric>},
    {"isprintable", isprintable},
    {"isspace", every<is_space>},
    {"istitle", istitle},
    {"isupper", is_cased<true>},
    {"join", join},
    {"ljust", justify<0>},
    {"lower", mapped<to_lower>},
    {"lstrip", strip<true, false>},
    {"partition", partition<false>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"replace", replace},
    {"rfind", find<true>},
    {"rindex", index<true>},
    {"rjust", justify<1>},
    {"rpartition", partition<true>},
    {"rsplit", split<true>},
    {"rstrip", strip<false, true>},
    {"split", split<false>},
    {"splitlines", splitlines},
    {"startswith", affix<false>},
    {"strip", strip<true, true>},
    {"swapcase", mapped<swap_case>},
    {"title", mapped<to_title>},
    {"upper", mapped<to_upper>},
    {"zfill", zfill},
};
constexpr std::array<std::string_view, 3> kRefusedStringMethods = {"encode", "maketrans", "translate"};

// -- dict, list, tuple, range

Value dict_get(Runtime&, const Value& self, const Arguments& given) {
  const auto bound = given.bind("get", {"", ""}, 1);
  if (!hashable(bound[0])) raise("unhashable type: '{}'", type_name(bound[0]));
  if (const Value* found = self.dict().find(bound[0])) return *found;
  return bound[1].is_missing() ? Value::none() : bound[1];
}

template <DictView::Part Part>
Value dict_view(Runtime& runtime, const Value& self, const Arguments& given) {
  given.bind("dict method", {}, 0);
  auto& view = runtime.heap().make<DictView>();
  view.dict = &self.dict();
  view.part = Part;
  return Value::of(Type::dict_view, &view);
}

Value dict_copy(Runtime& runtime, const Value& self, const Arguments& given) {
  given.bind("copy", {}, 0);
  const Value copy = runtime.heap().dict();
  runtime.heap().charge(self.dict().entries.size() * sizeof(Value) * 4);
  for (const auto& [key, value] : self.dict().entries) copy.dict().set(key, value);
  return copy;
}

constexpr MethodEntry kDictMethods[] = {
    {"copy", dict_copy},
    {"get", dict_get},
    {"items", dict_view<DictView::Part::items>},
    {"keys", dict_view<DictView::Part::keys>},
    {"values", dict_view<DictView::Part::values>},
};
constexpr std::array<std::string_view, 5> kBlockedDictMethods = {"clear", "pop", "popitem", "setdefault", "update"};

Value sequence_count(Runtime& runtime, const Value& self, const Arguments& given) {
  const Value wanted = given.bind("count", {""}, 1)[0];
  int64_t found = 0;
  for (const Value& item : runtime.collect(self)) found += identical(item, wanted) || equal(item, wanted) ? 1 : 0;
  return Value::integer(found);
}

Value sequence_index(Runtime& runtime, const Value& self, const Arguments& given) {
  const auto bound = given.bind("index", {"", "", ""}, 1);
  const std::vector<Value> items = runtime.collect(self);
  const auto length = static_cast<int64_t>(items.size());
  const auto place = [&](const Value& value, int64_t missing) {
    const int64_t at = whole_argument("index", value, missing);
    return at < 0 ? std::max<int64_t>(at + length, 0) : std::min(at, length);
  };
  for (int64_t i = place(bound[1], 0); i < place(bound[2], length); ++i) {
    if (identical(items[i], bound[0]) || equal(items[i], bound[0])) return Value::integer(i);
  }
  raise("the value is not in the sequence");
}

Value list_copy(Runtime& runtime, const Value& self, const Arguments& given) {
  given.bind("copy", {}, 0);
  return runtime.heap().list(self.items());
}

constexpr MethodEntry kListMethods[] = {{"copy", list_copy}, {"count", sequence_count}, {"index", sequence_index}};
constexpr MethodEntry kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};
constexpr std::array<std::string_view, 8> kBlockedListMethods = {"append", "clear", "pop",    "reverse",
                                                                 "insert", "sort",  "extend", "remove"};

// -- numbers

Value is_integer(Runtime&, const Value& self, const Arguments& given) {
  given.bind("is_integer", {}, 0);
  return Value::boolean(std::floor(self.as_double()) == self.as_double() && std::isfinite(self.as_double()));
}

Value bit_length(Runtime&, const Value& self, const Arguments& given) {
  given.bind("bit_length", {}, 0);
  const int64_t value = self.as_integer();
  uint64_t magnitude = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  int64_t bits = 0;
  for (; magnitude != 0; magnitude >>= 1) ++bits;
  return Value::integer(bits);
}

constexpr MethodEntry kFloatMethods[] = {{"is_integer", is_integer}};
constexpr MethodEntry kWholeMethods[] = {{"bit_length", bit_length}};
constexpr std::array<std::string_view, 8> kRefusedNumberMethods = {
    "as_integer_ratio", "bit_count", "conjugate", "from_bytes", "fromhex", "hex", "to_bytes", "denominator"};

Value number_attribute(const Value& object, std::string_view name) {
  const bool whole = object.is_whole();
  if (name == "real" || (whole && name == "numerator")) return whole ? Value::integer(object.as_integer()) : object;
  if (name == "imag") return whole ? Value::integer(0) : Value::floating(0);
  if (whole && name == "denominator") return Value::integer(1);
  return {};
}

// -- objects of the template language

Value loop_cycle(Runtime&, const Value& self, const Arguments& given) {
  given.refuse_keywords("cycle");
  if (given.positional.empty()) raise("no items for cycling given");
  return given.positional[static_cast<size_t>(self.object<Loop>().index0) % given.positional.size()];
}

Value loop_changed(Runtime& runtime, const Value& self, const Arguments& given) {
  given.refuse_keywords("changed");
  auto& loop = self.object<Loop>();
  const Value value = runtime.heap().tuple(given.positional);
  if (!loop.last_changed.is_missing() && equal(loop.last_changed, value)) return Value::boolean(false);
  loop.last_changed = value;
  return Value::boolean(true);
}

Value cycler_next(Runtime&, const Value& self, const Arguments& given) {
  given.bind("next", {}, 0);
  auto& cycler = self.object<Cycler>();
  const Value value = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return value;
}

Value cycler_reset(Runtime&, const Value& self, const Arguments& given) {
  given.bind("reset", {}, 0);
  self.object<Cycler>().position = 0;
  return Value::none();
}

constexpr MethodEntry kLoopMethods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};
constexpr MethodEntry kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

Value loop_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  auto& loop = object.object<Loop>();
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(loop.peek().is_missing());
  if (name == "length") return Value::integer(loop.length());
  if (name == "revindex") return Value::integer(loop.length() - loop.index0);
  if (name == "revindex0") return Value::integer(loop.length() - loop.index0 - 1);
  if (name == "depth") return Value::integer(loop.depth0 + 1);
  if (name == "depth0") return Value::integer(loop.depth0);
  if (name == "previtem") return loop.index0 == 0 ? runtime.heap().undefined("there is no previous item") : loop.before;
  if (name == "nextitem")
    return loop.peek().is_missing() ? runtime.heap().undefined("there is no next item") : loop.peek();
  return {};
}

Value macro_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  const auto& macro = object.object<Macro>();
  const Routine& routine = macro.node->routine;
  if (name == "name") return macro.name.empty() ? Value::none() : text(runtime, macro.name);
  if (name == "catch_kwargs") return Value::boolean(routine.uses_kwargs);
  if (name == "catch_varargs") return Value::boolean(routine.uses_varargs);
  if (name == "caller") return Value::boolean(routine.uses_caller);
  if (name == "explicit_caller") return Value::boolean(routine.explicit_caller);
  if (name != "arguments") return {};
  std::vector<Value> names;
  for (const NodePtr& parameter : macro.node->parameters) names.push_back(text(runtime, parameter->name));
  return runtime.heap().tuple(std::move(names));
}

Value cycler_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  const auto& cycler = object.object<Cycler>();
  if (name == "current") return cycler.items[cycler.position];
  if (name == "pos") return Value::integer(static_cast<int64_t>(cycler.position));
  if (name == "items") return runtime.heap().tuple(cycler.items);
  return {};
}

Value range_attribute(const Value& object, std::string_view name) {
  const auto& range = object.object<Range>();
  if (name == "start") return Value::integer(range.start);
  if (name == "stop") return Value::integer(range.stop);
  if (name == "step") return Value::integer(range.step);
  return {};
}

Value plain_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  switch (object.type()) {
    case Type::loop:
      return loop_attribute(runtime, object, name);
    case Type::macro:
      return macro_attribute(runtime, object, name);
    case Type::cycler:
      return cycler_attribute(runtime, object, name);
    case Type::range:
      return range_attribute(object, name);
    case Type::joiner:
      if (name == "sep") return object.object<Joiner>().separator;
      return name == "used" ? Value::boolean(object.object<Joiner>().used) : Value();
    case Type::boolean:
    case Type::integer:
    case Type::floating:
      return number_attribute(object, name);
    case Type::tuple:
      if (!object.object<List>().group) return {};
      return name == "grouper" ? object.items()[0] : name == "list" ? object.items()[1] : Value();
    default:
      return {};
  }
}

Method method_of(const Value& object, std::string_view name) {
  switch (object.type()) {
    case Type::string:
      return find_method(kStringMethods, name);
    case Type::dict:
      return find_method(kDictMethods, name);
    case Type::list:
      return find_method(kListMethods, name);
    case Type::tuple:
    case Type::range:
      return find_method(kTupleMethods, name);
    case Type::floating:
      return find_method(kFloatMethods, name);
    case Type::boolean:
    case Type::integer:
      return find_method(kWholeMethods, name);
    case Type::loop:
      return find_method(kLoopMethods, name);
    case Type::cycler:
      return find_method(kCyclerMethods, name);
    default:
      return nullptr;
  }
}

bool is_blocked(const Value& object, std::string_view name) {
  if (name.starts_with("__") && name.ends_with("__")) return !object.is(Type::name_space);
  if (object.is(Type::dict)) return one_of(kBlockedDictMethods, name);
  return object.is(Type::list) && one_of(kBlockedListMethods, name);
}

bool is_refused(const Value& object, std::string_view name) {
  if (object.is_string()) return one_of(kRefusedStringMethods, name);
  if (object.is(Type::dict)) return name == "fromkeys";
  return object.is_number() && one_of(kRefusedNumberMethods, name);
}

}  // namespace

Value find_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  if (object.is(Type::name_space)) {
    const Value* found = object.object<Namespace>().attributes->find(name);
    return found == nullptr ? Value() : *found;
  }
  const Value plain = plain_attribute(runtime, object, name);
  if (!plain.is_missing()) return plain;
  if (is_blocked(object, name)) {
    return runtime.heap().undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
  }
  const Method method = method_of(object, name);
  if (method == nullptr) {
    if (is_refused(object, name))
      raise("the attribute '{}' of {} is not supported in chat templates", name, type_name(object));
    return {};
  }
  if (object.is_string() && object.string().markup) raise("methods of Markup strings are not supported");
  return runtime.heap().function(
      name, [method, object](Runtime& run, const Arguments& given) { return method(run, object, given); });
}

bool has_case(std::string_view value, bool upper) {
  bool cased = false;
  for (size_t at = 0; at < value.size();) {
    const char32_t c = next_char(value, at);
    if (is_title(c) || (upper ? is_lower(c) : is_upper(c))) return false;
    cased = cased || (upper ? is_upper(c) : is_lower(c));
  }
  return cased;
}

std::string replaced(Runtime& runtime, std::string_view value, std::string_view old, std::string_view with,
                     int64_t limit) {
  std::string out;
  int64_t done = 0;
  const auto more = [&] { return limit < 0 || done < limit; };
  const size_t most = runtime.heap().limits().string_bytes;
  runtime.heap().step(value.size() / 64 + 1);
  for (size_t at = 0;;) {
    const size_t found = more() ? value.find(old, at) : value.npos;
    if (found == value.npos) return out.append(value.substr(at));
    out.append(value.substr(at, found - at)).append(with);
    ++done;
    if (out.size() > most) raise("a string is too long after replace");
    at = found + old.size();
    if (!old.empty()) continue;
    if (at == value.size()) return out;
    size_t next = at;
    next_char(value, next);
    out.append(value.substr(at, next - at));
    at = next;
  }
}

std::string justified(Runtime& runtime, const std::string& value, int64_t width, const std::string& fill, int side) {
  const auto length = static_cast<int64_t>(code_points(value));
  if (width <= length) return value;
  const int64_t missing = width - length;
  if (static_cast<uint64_t>(missing) > runtime.heap().limits().string_bytes / fill.size())
    raise("a padded string is too long");
  const int64_t left = side == 0 ? 0 : side == 1 ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += value;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return out;
}

std::vector<std::string_view> split_lines(std::string_view value) { return lines(value, false); }
std::vector<std::string_view> split_last(std::string_view value, std::string_view separator) {
  return rsplit_at(value, separator, 1);
}

}  // namespace expert::jinja
