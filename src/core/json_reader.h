// JSON that is not trusted: bounded size and depth, duplicate keys refused, errors that say what and where, and large
// parts can be taken off the stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/json.h"

namespace expert {

struct JsonLimits {
  size_t max_bytes = SIZE_MAX;
  size_t max_depth = 128;
};

// Builds a document from the parser's events, so that depth and duplicates are refused while reading, not afterwards.
// A subclass may take a value for itself: takes_object() / takes_array() is asked where one begins; while one is taken
// its events go to the taken_*() functions and the document holds null there.
class JsonReader {
 public:
  // `source` names the document in errors ("config.json"; empty: the caller adds it). Errors carry `code`.
  explicit JsonReader(std::string source = {}, const JsonLimits& limits = {}, ErrorCode code = ErrorCode::load);
  virtual ~JsonReader() = default;

  // Throws for anything that is not one JSON document within the limits.
  Json read(std::string_view text);

 protected:
  // Keys from the root to the value that begins (empty for list elements); none for the root.
  using Path = std::vector<std::string_view>;

  virtual bool takes_object(const Path& /*path*/) { return false; }
  virtual bool takes_array(const Path& /*path*/) { return false; }
  // Only these may occur inside; anything else is an error. Depth 0 is the taken value itself, at most 1 list below.
  virtual void taken_integer(const std::string& key, int64_t value);
  virtual void taken_string(std::string& value);
  virtual void taken_list_begin();
  virtual void taken_list_end() {}

 private:
  struct Events;  // what the parser calls

  [[noreturn]] void refuse(const std::string& what) const;
  [[noreturn]] void refuse_taken(std::string_view what) const;
  void refuse_duplicates(const Json::object_t& object) const;
  Json* place(Json&& value);
  bool add(Json value);
  bool open(Json container);
  bool close();

  std::string source_;
  JsonLimits limits_;
  ErrorCode code_;
  Json root_;
  // From the root to the container being filled. A parent does not grow while its child is open, so these stay valid.
  std::vector<Json*> open_;
  Path path_;
  Json* slot_ = nullptr;  // where the value after the last key goes
  std::string taken_key_;
  int taken_depth_ = 0;  // > 0: inside a taken value
};

// One document, nothing taken. Duplicate keys are refused, because two readers could see two different documents.
Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits = {},
                ErrorCode code = ErrorCode::load);

}  // namespace expert
