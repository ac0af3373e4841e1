#include "io/json.h"

#include <algorithm>
#include <cmath>

namespace expert {
namespace {

struct Position {
  size_t line = 1;
  size_t column = 1;
};

Position position_at(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return {.line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n')),
          .column = before.size() - line_start + 1};
}

// Builds the document from parser events, so that depth and duplicates are refused while reading, not afterwards.
class DocumentBuilder {
 public:
  DocumentBuilder(std::string_view text, std::string_view source, const JsonLimits& limits, ErrorCode code)
      : text_(text), source_(source), limits_(limits), code_(code) {}

  Json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(Json::number_integer_t value) { return add(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // never produced by JSON text

  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() {
    refuse_duplicates(open_.back()->get_ref<const Json::object_t&>());
    return close();
  }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    // The vector below, because the object's own insertion searches all keys and vocabularies have 150,000 of them.
    auto& members = static_cast<Json::object_t::Container&>(open_.back()->get_ref<Json::object_t&>());
    slot_ = &members.emplace_back(std::move(name), nullptr).second;
    return true;
  }

  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) {
    const Position at = position_at(text_, offset);
    // The library's text is "[json.exception.….id] parse error at line …: what"; only the last part is news.
    std::string_view what = error.what();
    if (const size_t colon = what.rfind(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    fail(code_, "{}: not valid JSON at line {}, column {}: {}", source_, at.line, at.column, what.substr(0, 200));
  }

 private:
  void refuse_duplicates(const Json::object_t& object) const {
    std::vector<std::string_view> names;
    names.reserve(object.size());
    for (const auto& [name, value] : object) names.push_back(name);
    std::sort(names.begin(), names.end());
    if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
      fail(code_, "{}: key \"{}\" is given twice in one object", source_, twice->substr(0, 80));
    }
  }

  Json* place(Json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    *slot_ = std::move(value);
    return slot_;
  }

  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json container) {
    if (open_.size() >= limits_.max_depth) fail(code_, "{}: nested deeper than {} levels", source_, limits_.max_depth);
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  std::string_view source_;
  const JsonLimits& limits_;
  ErrorCode code_;
  Json root_;
  std::vector<Json*>
      open_;              // from the root to the container being filled; a parent does not grow while its child is open
  Json* slot_ = nullptr;  // where the value after the last key goes
};

}  // namespace

Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits, ErrorCode code) {
  if (text.size() > limits.max_bytes) {
    fail(code, "{}: {} bytes of JSON, more than the limit of {}", source, text.size(), limits.max_bytes);
  }
  DocumentBuilder builder(text, source, limits, code);
  if (!Json::sax_parse(text, &builder)) fail(code, "{}: not valid JSON", source);
  return builder.take();
}

Json read_json_file(const std::string& path, const JsonLimits& limits, ErrorCode code) {
  return parse_json(read_text_file(path, limits.max_bytes), path, limits, code);
}

JsonFields::JsonFields(const Json& object, std::string source, ErrorCode code)
    : object_(&object), source_(std::move(source)), code_(code) {
  if (!object.is_object()) fail(code_, "{}: must be a JSON object, is {}", source_, object.type_name());
}

void JsonFields::wrong_type(std::string_view key, std::string_view wanted, const Json& value) const {
  fail(code_, "{}: \"{}\" must be {}, is {}", source_, key, wanted,
       value.is_structured() ? value.type_name()
                             : value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80));
}

const Json* JsonFields::find(std::string_view key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonFields::has(std::string_view key) const { return find(key) != nullptr; }

const Json& JsonFields::require(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail(code_, "{}: \"{}\" is missing", source_, key);
  return *value;
}

std::string JsonFields::string(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_string()) wrong_type(key, "a string", value);
  return value.get<std::string>();
}

int64_t JsonFields::integer(std::string_view key) const {
  const Json& value = require(key);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    wrong_type(key, "a 64-bit integer", value);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) wrong_type(key, "an integer", value);
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > 9007199254740992.0) wrong_type(key, "an integer", value);
  return static_cast<int64_t>(number);
}

double JsonFields::number(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) wrong_type(key, "a number", value);
  return value.get<double>();
}

bool JsonFields::boolean(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_boolean()) wrong_type(key, "true or false", value);
  return value.get<bool>();
}

std::vector<std::string> JsonFields::strings(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_array()) wrong_type(key, "a list of strings", value);
  std::vector<std::string> result;
  result.reserve(value.size());
  for (const Json& item : value) {
    if (!item.is_string()) wrong_type(key, "a list of strings", item);
    result.push_back(item.get<std::string>());
  }
  return result;
}

JsonFields JsonFields::object(std::string_view key) const {
  const Json& value = require(key);
  if (!value.is_object()) wrong_type(key, "an object", value);
  return JsonFields(value, fmt::format("{}: {}", source_, key), code_);
}

std::string JsonFields::string_or(std::string_view key, std::string fallback) const {
  return has(key) ? string(key) : std::move(fallback);
}
int64_t JsonFields::integer_or(std::string_view key, int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}
double JsonFields::number_or(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }
bool JsonFields::boolean_or(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }
std::vector<std::string> JsonFields::strings_or_empty(std::string_view key) const {
  return has(key) ? strings(key) : std::vector<std::string>{};
}
std::optional<std::string> JsonFields::optional_string(std::string_view key) const {
  return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<int64_t> JsonFields::optional_integer(std::string_view key) const {
  return has(key) ? std::optional(integer(key)) : std::nullopt;
}
std::optional<double> JsonFields::optional_number(std::string_view key) const {
  return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<bool> JsonFields::optional_boolean(std::string_view key) const {
  return has(key) ? std::optional(boolean(key)) : std::nullopt;
}

}  // namespace expert
