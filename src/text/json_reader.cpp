#include "text/json_reader.h"

#include <utility>

#include "core/error.h"

namespace expert {
namespace {

using nlohmann::json;
constexpr size_t kDeepest = 64;

[[noreturn]] void unexpected(const char* what) { fail(ErrorCode::load, "{} where none may be", what); }

}  // namespace

json JsonReader::read(std::string_view text) {
  root_ = json();
  path_.clear();
  open_.clear();
  json::sax_parse(text, static_cast<nlohmann::json_sax<json>*>(this));
  return std::move(root_);
}

void JsonReader::taken_integer(const std::string&, int64_t) { unexpected("a number"); }
void JsonReader::taken_string(std::string&) { unexpected("a string"); }
void JsonReader::taken_list_begin() { unexpected("a list"); }
void JsonReader::taken_list_end() {}

json* JsonReader::place(json value) {
  if (open_.empty()) {
    root_ = std::move(value);
    return &root_;
  }
  json& parent = *open_.back();
  if (parent.is_array()) {
    parent.push_back(std::move(value));
    return &parent.back();
  }
  const auto [it, added] = parent.emplace(path_.back(), std::move(value));
  if (!added) fail(ErrorCode::load, "key '{}' occurs twice", path_.back());
  return &*it;
}

bool JsonReader::put_scalar(json value) {
  if (taken_depth_ > 0) unexpected(value.type_name());
  place(std::move(value));
  return true;
}

bool JsonReader::open(json container) {
  if (taken_depth_ > 0) unexpected(container.type_name());
  if (open_.size() >= kDeepest) fail(ErrorCode::load, "nested more than {} levels deep", kDeepest);
  open_.push_back(place(std::move(container)));
  path_.emplace_back();
  return true;
}

bool JsonReader::close() {
  open_.pop_back();
  path_.pop_back();
  return true;
}

bool JsonReader::null() { return put_scalar(nullptr); }
bool JsonReader::boolean(bool value) { return put_scalar(value); }
bool JsonReader::number_float(double value, const std::string&) { return put_scalar(value); }

bool JsonReader::number_integer(int64_t value) {
  if (taken_depth_ == 0) return put_scalar(value);
  taken_integer(taken_key_, value);
  return true;
}

bool JsonReader::number_unsigned(uint64_t value) {
  if (taken_depth_ == 0) return put_scalar(value);
  if (value > INT64_MAX) fail(ErrorCode::load, "'{}' has value {}, which is too large", taken_key_, value);
  taken_integer(taken_key_, static_cast<int64_t>(value));
  return true;
}

bool JsonReader::string(std::string& value) {
  if (taken_depth_ == 0) return put_scalar(std::move(value));
  taken_string(value);
  return true;
}

bool JsonReader::key(std::string& name) {
  (taken_depth_ > 0 ? taken_key_ : path_.back()) = std::move(name);
  return true;
}

bool JsonReader::start_object(size_t) {
  if (taken_depth_ == 0 && takes_object(path_)) {
    place(nullptr);
    taken_depth_ = 1;
    return true;
  }
  return open(json::object());
}

bool JsonReader::end_object() {
  if (taken_depth_ == 0) return close();
  --taken_depth_;
  return true;
}

bool JsonReader::start_array(size_t) {
  if (taken_depth_ == 0 && takes_array(path_)) {
    place(nullptr);
    taken_depth_ = 1;
    return true;
  }
  if (taken_depth_ == 1) {
    taken_list_begin();
    ++taken_depth_;
    return true;
  }
  return open(json::array());
}

bool JsonReader::end_array() {
  if (taken_depth_ == 0) return close();
  if (--taken_depth_ == 1) taken_list_end();
  return true;
}

bool JsonReader::parse_error(size_t position, const std::string&, const json::exception& error) {
  fail(ErrorCode::load, "not valid JSON at byte {}: {}", position, error.what());
}

json read_json(std::string_view text) {
  JsonReader reader;
  return reader.read(text);
}

}  // namespace expert
