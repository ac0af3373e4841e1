#include "text/jinja_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>

#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {
namespace {

constexpr int kWidthLimit = 100'000;
constexpr int kPrecisionLimit = 1000;

// Python's format specification: [[fill]align][sign][#][0][width][grouping][.precision][type]
struct Spec {
  char32_t fill = ' ';
  char align = 0;  // < > ^ =, or 0: the type's own
  char sign = '-';
  bool alternate = false;
  int width = 0;
  char group = 0;
  int precision = -1;
  char type = 0;
};

std::string padded(const std::string& text, const Spec& spec, char default_align) {
  const auto length = static_cast<int>(code_points(text));
  if (length >= spec.width) return text;
  const int missing = spec.width - length;
  const char align = spec.align != 0 ? spec.align : default_align;
  const int left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  std::string out;
  for (int i = 0; i < left; ++i) append_utf8(out, spec.fill);
  out += text;
  for (int i = left; i < missing; ++i) append_utf8(out, spec.fill);
  return out;
}

// sign and prefix stay in front of zeros that fill the width.
std::string padded_number(const std::string& sign, const std::string& digits, const Spec& spec) {
  if (spec.align != '=') return padded(sign + digits, spec, '>');
  Spec inner = spec;
  inner.width = std::max(0, spec.width - static_cast<int>(sign.size()));
  return sign + padded(digits, inner, '>');
}

std::string grouped(const std::string& digits, char separator, size_t every) {
  const size_t end = std::min(digits.find_first_of(".eE%"), digits.size());
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i != 0 && (end - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(end);
}

std::string sign_of(bool negative, const Spec& spec) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string real_digits(double magnitude, const Spec& spec) {
  if (std::isnan(magnitude)) return spec.type == 'F' || spec.type == 'E' || spec.type == 'G' ? "NAN" : "nan";
  if (std::isinf(magnitude)) return spec.type == 'F' || spec.type == 'E' || spec.type == 'G' ? "INF" : "inf";
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  switch (spec.type) {
    case 'f':
    case 'F':
      return spec.alternate ? fmt::format("{:#.{}f}", magnitude, precision)
                            : fmt::format("{:.{}f}", magnitude, precision);
    case 'e':
      return spec.alternate ? fmt::format("{:#.{}e}", magnitude, precision)
                            : fmt::format("{:.{}e}", magnitude, precision);
    case 'E':
      return spec.alternate ? fmt::format("{:#.{}E}", magnitude, precision)
                            : fmt::format("{:.{}E}", magnitude, precision);
    case 'g':
      return spec.alternate ? fmt::format("{:#.{}g}", magnitude, precision)
                            : fmt::format("{:.{}g}", magnitude, precision);
    case 'G':
      return spec.alternate ? fmt::format("{:#.{}G}", magnitude, precision)
                            : fmt::format("{:.{}G}", magnitude, precision);
    default:
      return fmt::format("{:.{}f}%", magnitude * 100, precision);
  }
}

std::string format_real(double value, const Spec& spec) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::abs(value);
  std::string digits;
  if (spec.type != 0) {
    digits = real_digits(magnitude, spec);
  } else if (spec.precision < 0) {
    digits = format_double(magnitude);
  } else {
    Spec general = spec;
    general.type = 'g';
    general.precision = std::max(1, spec.precision);
    digits = real_digits(magnitude, general);
    const bool plain = digits.find_first_of(".en") == digits.npos;
    if (plain) digits += ".0";
    if (plain && code_points(digits) > static_cast<size_t>(general.precision) + 1)
      digits = fmt::format("{:.{}e}", magnitude, general.precision - 1);
  }
  if (spec.group != 0 && std::isfinite(value)) digits = grouped(digits, spec.group, 3);
  return padded_number(sign_of(negative, spec), digits, spec);
}

std::string format_whole(int64_t value, const Spec& spec) {
  const uint64_t magnitude = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits, prefix;
  switch (spec.type) {
    case 'x':
    case 'X':
      digits = spec.type == 'x' ? fmt::format("{:x}", magnitude) : fmt::format("{:X}", magnitude);
      prefix = spec.type == 'x' ? "0x" : "0X";
      break;
    case 'o':
      digits = fmt::format("{:o}", magnitude), prefix = "0o";
      break;
    case 'b':
      digits = fmt::format("{:b}", magnitude), prefix = "0b";
      break;
    default:
      digits = std::to_string(magnitude);
  }
  if (spec.precision > static_cast<int>(digits.size())) digits.insert(0, spec.precision - digits.size(), '0');
  if (spec.group != 0) digits = grouped(digits, spec.group, prefix.empty() ? 3 : 4);
  return padded_number(sign_of(value < 0, spec) + (spec.alternate ? prefix : ""), digits, spec);
}

std::string truncated(const std::string& text, int precision) {
  if (precision < 0) return text;
  size_t at = 0;
  for (int i = 0; i < precision && at < text.size(); ++i) next_char(text, at);
  return text.substr(0, at);
}

std::string ascii_repr(const Value& value) {
  const std::string text = repr(value);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto c = static_cast<uint32_t>(next_char(text, at));
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += c < 0x100     ? fmt::format("\\x{:02x}", c)
             : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                           : fmt::format("\\U{:08x}", c);
    }
  }
  return out;
}

int limited(int64_t value, int limit, std::string_view what) {
  if (value > limit) raise("a format's {} of {} exceeds {}", what, value, limit);
  return static_cast<int>(value);
}

std::string character(int64_t code) {
  if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) raise("%c arg not in range(0x110000)");
  std::string out;
  append_utf8(out, static_cast<char32_t>(code));
  return out;
}

// -- "..." % values

class Percent {
 public:
  Percent(Runtime& runtime, const std::string& format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {
    mapping_ = values.is(Type::dict) || values.is(Type::list) || values.is(Type::range) || values.is_undefined();
  }

  std::string run() {
    while (at_ < format_.size()) {
      if (format_[at_] != '%') {
        out_ += format_[at_++];
      } else {
        ++at_;
        conversion();
      }
      if (out_.size() > runtime_.heap().limits().string_bytes) raise("a formatted string is too long");
    }
    const size_t count = values_.is(Type::tuple) ? values_.items().size() : 1;
    if (used_ < count && !mapping_) raise("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char current() const {
    if (at_ >= format_.size()) raise("incomplete format");
    return format_[at_];
  }

  Value next() {
    if (by_name_) return named_;
    if (values_.is(Type::tuple)) {
      if (used_ >= values_.items().size()) raise("not enough arguments for format string");
      return values_.items()[used_++];
    }
    if (used_++ != 0) raise("not enough arguments for format string");
    return values_;
  }

  int64_t number() {
    if (current() == '*') {
      ++at_;
      const Value value = next();
      if (!value.is_whole()) raise("* wants int");
      return value.as_integer();
    }
    int64_t value = 0;
    while (current() >= '0' && current() <= '9')
      value = std::min<int64_t>(value * 10 + (format_[at_++] - '0'), 1'000'000'000);
    return value;
  }

  void name() {
    int depth = 1;
    const size_t start = ++at_;
    for (; depth > 0; ++at_) depth += current() == '(' ? 1 : current() == ')' ? -1 : 0;
    if (!values_.is(Type::dict)) raise("format requires a mapping");
    const Value* found = values_.dict().find(std::string_view(format_).substr(start, at_ - start - 1));
    if (found == nullptr) raise("KeyError: '{}'", format_.substr(start, at_ - start - 1));
    named_ = *found;
    by_name_ = true;
  }

  void conversion() {
    Spec spec;
    by_name_ = false;
    if (current() == '(') name();
    bool left = false, zero = false;
    for (; std::string_view("-+ #0").find(current()) != std::string_view::npos; ++at_) {
      const char flag = format_[at_];
      left = left || flag == '-', zero = zero || flag == '0', spec.alternate = spec.alternate || flag == '#';
      if (flag == '+' || (flag == ' ' && spec.sign != '+')) spec.sign = flag;
    }
    int64_t width = number();
    if (width < 0) left = true, width = -width;
    spec.width = limited(width, kWidthLimit, "width");
    if (current() == '.') {
      ++at_;
      spec.precision = limited(std::max<int64_t>(number(), 0), kPrecisionLimit, "precision");
    }
    if (std::string_view("hlL").find(current()) != std::string_view::npos) ++at_;
    spec.type = current();
    ++at_;
    spec.align = left ? '<' : '>';
    convert(spec, zero && !left);
  }

  void convert(Spec& spec, bool zero) {
    if (spec.type == '%') return void(out_ += '%');
    const Value value = next();
    switch (spec.type) {
      case 's':
        return text(to_string(value), spec);
      case 'r':
        return text(repr(value), spec);
      case 'a':
        return text(ascii_repr(value), spec);
      case 'c':
        if (value.is_string() && value.string().length != 1) raise("%c requires int or char");
        if (!value.is_string() && !value.is_whole()) raise("%c requires int or char");
        return text(value.is_string() ? value.text() : character(value.as_integer()), spec);
      default:
        if (zero) spec.fill = '0', spec.align = '=';
        numeric(value, spec);
    }
  }

  void text(const std::string& value, const Spec& spec) { out_ += padded(truncated(value, spec.precision), spec, '>'); }

  void numeric(const Value& value, Spec& spec) {
    if (!value.is_number()) raise("%{} format: a number is required, not {}", spec.type, type_name(value));
    if (std::string_view("eEfFgG").find(spec.type) != std::string_view::npos)
      return void(out_ += format_real(value.as_double(), spec));
    const bool decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
    if (!decimal && std::string_view("oxX").find(spec.type) == std::string_view::npos)
      raise("unsupported format character '{}'", spec.type);
    if (decimal) spec.type = 'd';
    int64_t whole = 0;
    if (value.is_whole()) {
      whole = value.as_integer();
    } else {
      if (!decimal) raise("%{} format: an integer is required, not float", spec.type);
      if (!(std::abs(value.as_double()) < 9.2e18)) raise("cannot convert float to a 64-bit integer");
      whole = static_cast<int64_t>(value.as_double());
    }
    out_ += format_whole(whole, spec);
  }

  Runtime& runtime_;
  const std::string& format_;
  const Value& values_;
  bool mapping_ = false;
  size_t at_ = 0, used_ = 0;
  Value named_;
  bool by_name_ = false;
  std::string out_;
};

// -- "...".format(...)

Spec parse_spec(const std::string& text) {
  Spec spec;
  const std::u32string points = to_utf32(text);
  size_t at = 0;
  const auto is_align = [](char32_t c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const auto peek = [&] { return at < points.size() ? points[at] : U'\0'; };
  if (points.size() > 1 && is_align(points[1])) {
    spec.fill = points[0], spec.align = static_cast<char>(points[1]), at = 2;
  } else if (is_align(peek())) {
    spec.align = static_cast<char>(points[at++]);
  }
  const bool filled = at == 2;
  if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = static_cast<char>(points[at++]);
  if (peek() == '#') spec.alternate = true, ++at;
  if (peek() == '0' && !filled) {
    spec.fill = '0', ++at;
    if (spec.align == 0) spec.align = '=';
  }
  const auto number = [&](int limit, std::string_view what) {
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') value = std::min<int64_t>(value * 10 + (points[at++] - '0'), 1'000'000'000);
    return limited(value, limit, what);
  };
  spec.width = number(kWidthLimit, "width");
  if (peek() == ',' || peek() == '_') spec.group = static_cast<char>(points[at++]);
  if (peek() == '.') {
    ++at;
    if (peek() < '0' || peek() > '9') raise("Format specifier missing precision");
    spec.precision = number(kPrecisionLimit, "precision");
  }
  if (at < points.size() && points[at] < 0x80) spec.type = static_cast<char>(points[at++]);
  if (at != points.size()) raise("Invalid format specifier '{}'", text);
  return spec;
}

std::string format_string(const std::string& text, const Spec& spec) {
  if (spec.type != 0 && spec.type != 's') raise("Unknown format code '{}' for object of type 'str'", spec.type);
  if (spec.sign != '-' || spec.alternate || spec.group != 0)
    raise("Sign, # and grouping are not allowed in a string format specifier");
  Spec plain = spec;
  if (plain.align == '=') {
    if (plain.fill != '0') raise("'=' alignment not allowed in string format specifier");
    plain.align = '<';
  }
  return padded(truncated(text, spec.precision), plain, '<');
}

std::string format_number(const Value& value, const Spec& spec) {
  constexpr std::string_view kReal = "eEfFgG%";
  if (value.is(Type::floating) || kReal.find(spec.type) != kReal.npos) {
    if (spec.type != 0 && kReal.find(spec.type) == kReal.npos)
      raise("Unknown format code '{}' for object of type 'float'", spec.type);
    return format_real(value.as_double(), spec);
  }
  if (spec.precision >= 0) raise("Precision not allowed in integer format specifier");
  if (spec.type == 'c') return padded(character(value.as_integer()), spec, '<');
  if (spec.type != 0 && std::string_view("bdoxX").find(spec.type) == std::string_view::npos) {
    raise("Unknown format code '{}' for object of type 'int'", spec.type);
  }
  const bool decimal = spec.type == 0 || spec.type == 'd';
  if (spec.group == ',' && !decimal) raise("Cannot specify ',' with '{}'.", spec.type);
  return format_whole(value.as_integer(), spec);
}

std::string format_value(const Value& value, const std::string& spec) {
  if (spec.empty()) return to_string(value);
  if (value.is_string()) return format_string(value.text(), parse_spec(spec));
  if (value.is_number()) return format_number(value, parse_spec(spec));
  raise("unsupported format string passed to {}.__format__", type_name(value));
}

class Braces {
 public:
  Braces(Runtime& runtime, const Arguments& values) : runtime_(runtime), values_(values) {}

  std::string run(const std::string& format, int depth) {
    if (depth < 0) raise("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at];
      if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
        out += c, at += 2;
      } else if (c == '}') {
        raise("Single '}}' encountered in format string");
      } else if (c == '{') {
        out += field(format, ++at, depth);
      } else {
        out += c, ++at;
      }
      if (out.size() > runtime_.heap().limits().string_bytes) raise("a formatted string is too long");
    }
    return out;
  }

 private:
  // at: behind the opening brace; afterwards behind the closing one.
  std::string field(const std::string& format, size_t& at, int depth) {
    const size_t start = at;
    int open = 1;
    bool in_brackets = false;
    size_t mark = format.npos;  // the '!' or ':' that ends the name
    for (; at < format.size(); ++at) {
      const char c = format[at];
      if (mark == format.npos && c == '[') in_brackets = true;
      if (mark == format.npos && c == ']') in_brackets = false;
      if (in_brackets && mark == format.npos) continue;
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
      if (mark == format.npos && (c == '!' || c == ':')) mark = at;
    }
    if (start == format.size()) raise("Single '{{' encountered in format string");
    if (at >= format.size()) raise("expected '}}' before end of string");
    const size_t end = at++;
    const std::string name = format.substr(start, std::min(mark, end) - start);
    char conversion = 0;
    std::string spec;
    if (mark != format.npos && format[mark] == '!') {
      if (mark + 1 >= end || (mark + 2 != end && format[mark + 2] != ':'))
        raise("expected ':' after conversion specifier");
      conversion = format[mark + 1];
      mark = mark + 2 < end ? mark + 2 : format.npos;
    }
    if (mark != format.npos) spec = format.substr(mark + 1, end - mark - 1);
    if (name.find_first_of("{}") != name.npos) raise("unexpected brace in field name");
    const Value value = converted(lookup(name), conversion);
    return format_value(value, run(spec, depth - 1));
  }

  Value converted(const Value& value, char conversion) {
    switch (conversion) {
      case 0:
        return value;
      case 's':
        return runtime_.heap().string(to_string(value));
      case 'r':
        return runtime_.heap().string(repr(value));
      case 'a':
        return runtime_.heap().string(ascii_repr(value));
      default:
        raise("Unknown conversion specifier {}", conversion);
    }
  }

  static bool is_index(const std::string& text) {
    return !text.empty() && text.size() < 10 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  }

  Value first(std::string name) {
    if (name.empty()) {
      if (numbering_ == 'm') raise("cannot switch from manual field specification to automatic field numbering");
      numbering_ = 'a';
      name = std::to_string(next_++);
    } else if (is_index(name)) {
      if (numbering_ == 'a') raise("cannot switch from automatic field numbering to manual field specification");
      numbering_ = 'm';
    }
    if (is_index(name)) {
      const size_t index = std::stoul(name);
      if (index >= values_.positional.size())
        raise("Replacement index {} out of range for positional args tuple", index);
      return values_.positional[index];
    }
    for (const auto& [key, value] : values_.keyword) {
      if (key == name) return value;
    }
    raise("KeyError: '{}'", name);
  }

  Value lookup(const std::string& name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, at));
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) raise("Empty attribute in format string");
        value = runtime_.attribute(value, name.substr(at + 1, end - at - 1));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == name.npos) raise("Missing ']' in format string");
        const std::string key = name.substr(at + 1, end - at - 1);
        if (key.empty()) raise("Empty attribute in format string");
        value = runtime_.item(value, is_index(key) ? Value::integer(std::stol(key)) : runtime_.heap().string(key));
        at = end + 1;
      } else {
        raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Runtime& runtime_;
  const Arguments& values_;
  char numbering_ = 0;  // a: automatic, m: manual
  size_t next_ = 0;
};

// -- JSON

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  std::string run(const Value& value) {
    write(value);
    return std::move(out_);
  }

 private:
  void write(const Value& value) {
    runtime_.heap().step();
    if (out_.size() > runtime_.heap().limits().string_bytes) raise("a JSON text is too long");
    switch (value.type()) {
      case Type::none:
        out_ += "null";
        return;
      case Type::boolean:
        out_ += value.as_boolean() ? "true" : "false";
        return;
      case Type::integer:
        out_ += std::to_string(value.as_integer());
        return;
      case Type::floating:
        out_ += real(value.as_double());
        return;
      case Type::string:
        return string(value.text());
      case Type::list:
      case Type::tuple:
        return list(value.items());
      case Type::dict:
        return dict(value.dict());
      default:
        raise("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  static std::string real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return format_double(value);
  }

  void open(char bracket) {
    out_ += bracket;
    if (++depth_ > 200) raise("a value nests too deeply for JSON");
  }
  void separate(bool first) {
    if (!first) out_ += style_.item_separator;
    if (!style_.pretty) return;
    out_ += '\n';
    for (int i = 0; i < depth_; ++i) out_ += style_.indent;
  }
  void close(char bracket) {
    --depth_;
    if (style_.pretty) {
      out_ += '\n';
      for (int i = 0; i < depth_; ++i) out_ += style_.indent;
    }
    out_ += bracket;
  }

  void list(const std::vector<Value>& items) {
    if (items.empty()) return void(out_ += "[]");
    open('[');
    for (size_t i = 0; i < items.size(); ++i) separate(i == 0), write(items[i]);
    close(']');
  }

  void dict(const Dict& dict) {
    if (dict.entries.empty()) return void(out_ += "{}");
    std::vector<std::pair<Value, Value>> entries(dict.entries);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return less(a.first, b.first); });
    }
    open('{');
    bool first = true;
    for (const auto& [key, value] : entries) {
      separate(first);
      first = false;
      string(key_text(key));
      out_ += style_.key_separator;
      write(value);
    }
    close('}');
  }

  static std::string key_text(const Value& key) {
    switch (key.type()) {
      case Type::string:
        return key.text();
      case Type::none:
        return "null";
      case Type::boolean:
        return key.as_boolean() ? "true" : "false";
      case Type::integer:
        return std::to_string(key.as_integer());
      case Type::floating:
        return real(key.as_double());
      default:
        raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  void string(const std::string& text) {
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const char32_t c = next_char(text, at);
      static constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
      const size_t short_escape = c < 0x80 ? kShort.find(static_cast<char>(c)) : kShort.npos;
      if (short_escape != kShort.npos) {
        out_ += '\\', out_ += kLetters[short_escape];
      } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7e)) {
        escape(static_cast<uint32_t>(c));
      } else {
        append_utf8(out_, c);
      }
    }
    out_ += '"';
  }

  void escape(uint32_t c) {
    if (c < 0x10000) {
      out_ += fmt::format("\\u{:04x}", c);
    } else {
      c -= 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 | c >> 10, 0xdc00 | (c & 0x3ff));
    }
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
  int depth_ = 0;
};

// -- time

std::tm local_time(std::time_t seconds) {
  std::tm tm{};
#ifdef _WIN32
  localtime_s(&tm, &seconds);
#else
  localtime_r(&seconds, &tm);
#endif
  return tm;
}

class TimeWriter {
 public:
  TimeWriter(const std::tm& tm, int microseconds) : tm_(tm), microseconds_(microseconds) {}

  std::string run(std::string_view format) {
    std::string out;
    for (size_t i = 0; i < format.size(); ++i) {
      if (format[i] != '%' || i + 1 == format.size()) {
        out += format[i];
        continue;
      }
      char pad = 0;
      if (format[++i] == '-' || format[i] == '_' || format[i] == '0') pad = format[i++];
      if (i == format.size()) raise("strftime: incomplete format '{}'", format);
      out += field(format[i], pad);
    }
    return out;
  }

 private:
  static constexpr std::array<std::string_view, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                            "Thursday", "Friday", "Saturday"};
  static constexpr std::array<std::string_view, 12> kMonths = {"January",   "February", "March",    "April",
                                                               "May",       "June",     "July",     "August",
                                                               "September", "October",  "November", "December"};

  static std::string number(int value, int width, char pad, char own) {
    const char fill = pad == 0 ? own : pad == '_' ? ' ' : pad;
    std::string digits = std::to_string(value);
    if (fill != '-' && digits.size() < static_cast<size_t>(width)) digits.insert(0, width - digits.size(), fill);
    return digits;
  }

  int hour12() const { return tm_.tm_hour % 12 == 0 ? 12 : tm_.tm_hour % 12; }

  // ISO 8601: weeks begin on Monday, the first one holds January 4th.
  void iso_week(int& year, int& week) const {
    const int weekday = (tm_.tm_wday + 6) % 7;
    year = tm_.tm_year + 1900;
    week = (tm_.tm_yday - weekday + 10) / 7;
    const auto weeks = [](int y) {
      const auto p = [](int x) { return (x + x / 4 - x / 100 + x / 400) % 7; };
      return p(y) == 4 || p(y - 1) == 3 ? 53 : 52;
    };
    if (week < 1) {
      week = weeks(--year);
    } else if (week > weeks(year)) {
      week = 1, ++year;
    }
  }

  std::string field(char c, char pad) const {
    const auto two = [&](int value) { return number(value, 2, pad, '0'); };
    const int year = tm_.tm_year + 1900;
    int iso_year = 0, week = 0;
    iso_week(iso_year, week);
    switch (c) {
      case 'a':
        return std::string(kDays[tm_.tm_wday].substr(0, 3));
      case 'A':
        return std::string(kDays[tm_.tm_wday]);
      case 'b':
      case 'h':
        return std::string(kMonths[tm_.tm_mon].substr(0, 3));
      case 'B':
        return std::string(kMonths[tm_.tm_mon]);
      case 'c':
        return TimeWriter(*this).run("%a %b %e %H:%M:%S %Y");
      case 'C':
        return two(year / 100);
      case 'd':
        return two(tm_.tm_mday);
      case 'D':
      case 'x':
        return TimeWriter(*this).run("%m/%d/%y");
      case 'e':
        return number(tm_.tm_mday, 2, pad, ' ');
      case 'f':
        return number(microseconds_, 6, 0, '0');
      case 'F':
        return TimeWriter(*this).run("%Y-%m-%d");
      case 'g':
        return two(iso_year % 100);
      case 'G':
        return std::to_string(iso_year);
      case 'H':
        return two(tm_.tm_hour);
      case 'I':
        return two(hour12());
      case 'j':
        return number(tm_.tm_yday + 1, 3, pad, '0');
      case 'k':
        return number(tm_.tm_hour, 2, pad, ' ');
      case 'l':
        return number(hour12(), 2, pad, ' ');
      case 'm':
        return two(tm_.tm_mon + 1);
      case 'M':
        return two(tm_.tm_min);
      case 'n':
        return "\n";
      case 'p':
        return tm_.tm_hour < 12 ? "AM" : "PM";
      case 'r':
        return TimeWriter(*this).run("%I:%M:%S %p");
      case 'R':
        return TimeWriter(*this).run("%H:%M");
      case 'S':
        return two(tm_.tm_sec);
      case 't':
        return "\t";
      case 'T':
      case 'X':
        return TimeWriter(*this).run("%H:%M:%S");
      case 'u':
        return std::to_string(tm_.tm_wday == 0 ? 7 : tm_.tm_wday);
      case 'U':
        return two((tm_.tm_yday + 7 - tm_.tm_wday) / 7);
      case 'V':
        return two(week);
      case 'w':
        return std::to_string(tm_.tm_wday);
      case 'W':
        return two((tm_.tm_yday + 7 - (tm_.tm_wday + 6) % 7) / 7);
      case 'y':
        return two(year % 100);
      case 'Y':
        return std::to_string(year);
      case 'z':
      case 'Z':
        return {};  // a naive time has no zone
      case '%':
        return "%";
      default:
        raise("strftime: the field '%{}' is not supported", c);
    }
  }

  std::tm tm_;
  int microseconds_;
};

}  // namespace

std::string format_percent(Runtime& runtime, const std::string& format, const Value& values) {
  return Percent(runtime, format, values).run();
}

std::string format_braces(Runtime& runtime, const std::string& format, const Arguments& values) {
  return Braces(runtime, values).run(format, 2);
}

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  return JsonWriter(runtime, style).run(value);
}

std::string format_time(const std::string& format, std::chrono::system_clock::time_point time) {
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch());
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const std::tm tm = local_time(static_cast<std::time_t>(seconds.count()));
  return TimeWriter(tm, static_cast<int>((since - seconds).count())).run(format);
}

}  // namespace expert::jinja
