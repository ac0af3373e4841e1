// Typed access to the fields of one JSON object from a file that is not trusted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace expert {

// Typed fields of one object, with errors like `config.json: "hidden_size" must be an integer, is a string`.
// null counts as absent, as in Hugging Face's files. Holds references: the object and the source must outlive it.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string source, ErrorCode code = ErrorCode::load);

  bool has(std::string_view key) const;
  const Json* find(std::string_view key) const;  // nullptr when absent or null
  const Json& require(std::string_view key) const;

  std::string string(std::string_view key) const;
  int64_t integer(std::string_view key) const;  // 3.0 counts as an integer, 3.5 does not
  double number(std::string_view key) const;    // finite
  bool boolean(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  JsonFields object(std::string_view key) const;

  std::string string_or(std::string_view key, std::string fallback) const;
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::vector<std::string> strings_or_empty(std::string_view key) const;
  std::optional<std::string> optional_string(std::string_view key) const;
  std::optional<int64_t> optional_integer(std::string_view key) const;
  std::optional<double> optional_number(std::string_view key) const;
  std::optional<bool> optional_boolean(std::string_view key) const;

  const Json& json() const { return *object_; }
  const std::string& source() const { return source_; }

 private:
  [[noreturn]] void wrong_type(std::string_view key, std::string_view wanted, const Json& value) const;
  const Json* object_;
  std::string source_;
  ErrorCode code_;
};

}  // namespace expert
