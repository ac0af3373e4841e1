#include "core/json_fields.h"

#include <cmath>

namespace expert {

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
