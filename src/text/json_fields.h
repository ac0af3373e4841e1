// Typed access to the small JSON objects of tokenizer files; every failure names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "text/unicode.h"

namespace expert::fields {

inline const Json* find(const Json& object, const char* name) {
  if (!object.is_object())
    fail(ErrorCode::load, "an object with field '{}' was expected, found {}", name, object.type_name());
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

inline const Json& need(const Json& object, const char* name) {
  const Json* value = find(object, name);
  if (value == nullptr) fail(ErrorCode::load, "field '{}' is missing", name);
  return *value;
}

inline const std::string& text(const Json& value, const char* name) {
  if (!value.is_string()) fail(ErrorCode::load, "field '{}' must be a string, is {}", name, value.type_name());
  return value.get_ref<const std::string&>();
}

inline const std::string& need_text(const Json& object, const char* name) { return text(need(object, name), name); }

inline std::optional<std::string> find_text(const Json& object, const char* name) {
  const Json* value = find(object, name);
  return value == nullptr ? std::nullopt : std::optional(text(*value, name));
}

inline bool flag(const Json& object, const char* name, bool absent) {
  const Json* value = find(object, name);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) fail(ErrorCode::load, "field '{}' must be true or false, is {}", name, value->type_name());
  return value->get<bool>();
}

inline int64_t integer(const Json& value, const char* name) {
  if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX))
    fail(ErrorCode::load, "field '{}' must be an integer, is {}", name, value.dump());
  return value.get<int64_t>();
}

inline const Json& list(const Json& object, const char* name) {
  const Json& value = need(object, name);
  if (!value.is_array()) fail(ErrorCode::load, "field '{}' must be a list, is {}", name, value.type_name());
  return value;
}

// The text of a {"pattern": {"String": …}} of Replace normalizers and decoders.
inline const std::string& literal_pattern(const Json& object) {
  const Json& pattern = need(object, "pattern");
  if (find(pattern, "Regex") != nullptr)
    fail(ErrorCode::unsupported, "Replace with the regular expression {} is not supported", pattern["Regex"].dump());
  const std::string& value = need_text(pattern, "String");
  if (value.empty()) fail(ErrorCode::load, "field 'pattern' of Replace is empty");
  return value;
}

// A string of exactly one character.
inline const std::string& need_character(const Json& object, const char* name) {
  const std::string& value = need_text(object, name);
  size_t end = 0;
  if (!value.empty()) unicode::next_char(value, end);
  if (end == 0 || end != value.size()) fail(ErrorCode::load, "field '{}' must be one character, is '{}'", name, value);
  return value;
}

// Metaspace, as pre-tokenizer and as decoder: where a replacement is put before (taken from) the text.
enum class PrependScheme { first, always, never };

inline PrependScheme prepend_scheme(const Json& object) {
  const auto scheme = find_text(object, "prepend_scheme");
  const bool add_prefix_space = flag(object, "add_prefix_space", true);  // of files older than prepend_scheme
  if (!scheme) return add_prefix_space ? PrependScheme::always : PrependScheme::never;
  if (!add_prefix_space && *scheme != "never")
    fail(ErrorCode::load, "Metaspace has add_prefix_space false and prepend_scheme '{}'", *scheme);
  if (*scheme == "first") return PrependScheme::first;
  if (*scheme == "always") return PrependScheme::always;
  if (*scheme == "never") return PrependScheme::never;
  fail(ErrorCode::load, "'{}' is not a prepend_scheme of Metaspace", *scheme);
}

}  // namespace expert::fields
