#include "core/json_reader.h"

#include <algorithm>
#include <utility>

namespace expert {
namespace {

// "line 3, column 7"
std::string position_at(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return fmt::format("line {}, column {}", 1 + std::count(before.begin(), before.end(), '\n'),
                     before.size() - line_start + 1);
}

}  // namespace

struct JsonReader::Events {
  static constexpr size_t kBytesOfAMember = 96;
  static constexpr size_t kLittleText = size_t{16} << 20;

  JsonReader& reader;
  std::string_view text;

  bool taken() const { return reader.taken_depth_ > 0; }

  bool scalar(Json value) {
    if (taken()) reader.refuse_taken(value.type_name());
    return reader.add(std::move(value));
  }
  bool null() { return scalar(nullptr); }
  bool boolean(bool value) { return scalar(value); }
  bool number_float(double value, const std::string&) { return scalar(value); }
  bool binary(Json::binary_t&) { return false; }  // never produced by JSON text

  bool number_integer(int64_t value) {
    if (!taken()) return reader.add(value);
    reader.taken_integer(reader.taken_key_, value);
    return true;
  }
  bool number_unsigned(uint64_t value) {
    if (!taken()) return reader.add(value);
    if (value > INT64_MAX) reader.refuse(fmt::format("'{}' has value {}, which is too large", reader.taken_key_, value));
    reader.taken_integer(reader.taken_key_, static_cast<int64_t>(value));
    return true;
  }
  bool string(std::string& value) {
    if (!taken()) return reader.add(std::move(value));
    reader.taken_string(value);
    return true;
  }

  bool key(std::string& name) {
    if (taken()) {
      reader.taken_key_ = std::move(name);
      return true;
    }
    // The vector below, because the object's own insertion searches all keys and some objects have 150,000 of them.
    auto& members = static_cast<Json::object_t::Container&>(reader.open_.back()->get_ref<Json::object_t&>());
    // With constant names it copies all members, however deep, when it grows. Large texts must not multiply.
    if (members.empty() && text.size() <= kLittleText) {
      members.reserve(reader.open_.size() == 1 ? 4 + text.size() / kBytesOfAMember : 4);
    }
    auto& member = members.emplace_back(std::move(name), nullptr);
    reader.slot_ = &member.second;
    reader.path_.back() = member.first;
    return true;
  }

  bool start_object(size_t) {
    if (taken()) reader.refuse_taken("an object");
    if (reader.takes_object(reader.path_)) return take();
    return reader.open(Json::object());
  }
  bool start_array(size_t) {
    if (reader.taken_depth_ > 1) reader.refuse_taken("a list");
    if (reader.taken_depth_ == 1) {
      reader.taken_list_begin();
      ++reader.taken_depth_;
      return true;
    }
    if (!reader.takes_array(reader.path_)) return reader.open(Json::array());
    return take();
  }
  bool take() {
    reader.taken_depth_ = 1;
    return reader.add(nullptr);
  }

  bool end_object() {
    if (taken()) {
      --reader.taken_depth_;
      return true;
    }
    reader.refuse_duplicates(reader.open_.back()->get_ref<const Json::object_t&>());
    return reader.close();
  }
  bool end_array() {
    if (!taken()) return reader.close();
    if (--reader.taken_depth_ == 1) reader.taken_list_end();
    return true;
  }

  bool parse_error(size_t offset, const std::string&, const nlohmann::detail::exception& error) {
    // The library's text is "[json.exception.….id] parse error at line …: what"; only the last part is news.
    std::string_view what = error.what();
    if (const size_t colon = what.rfind(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    reader.refuse(fmt::format("not valid JSON at {}: {}", position_at(text, offset), what.substr(0, 200)));
  }
};

JsonReader::JsonReader(std::string source, const JsonLimits& limits, ErrorCode code)
    : source_(std::move(source)), limits_(limits), code_(code) {}

Json JsonReader::read(std::string_view text) {
  if (text.size() > limits_.max_bytes) {
    refuse(fmt::format("{} bytes of JSON, more than the limit of {}", text.size(), limits_.max_bytes));
  }
  root_ = nullptr;
  open_.clear();
  path_.clear();
  taken_depth_ = 0;
  Events events{*this, text};
  if (!Json::sax_parse(text, &events)) refuse("not valid JSON");
  return std::move(root_);
}

void JsonReader::taken_integer(const std::string&, int64_t) { refuse_taken("a number"); }
void JsonReader::taken_string(std::string&) { refuse_taken("a string"); }
void JsonReader::taken_list_begin() { refuse_taken("a list"); }

void JsonReader::refuse(const std::string& what) const {
  throw Error(code_, source_.empty() ? what : source_ + ": " + what);
}

void JsonReader::refuse_taken(std::string_view what) const { refuse(fmt::format("{} where none may be", what)); }

void JsonReader::refuse_duplicates(const Json::object_t& object) const {
  std::vector<std::string_view> names;
  names.reserve(object.size());
  for (const auto& [name, value] : object) names.push_back(name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    refuse(fmt::format("key \"{}\" is given twice in one object", twice->substr(0, 80)));
  }
}

Json* JsonReader::place(Json&& value) {
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

bool JsonReader::add(Json value) {
  place(std::move(value));
  return true;
}

bool JsonReader::open(Json container) {
  if (open_.size() >= limits_.max_depth) refuse(fmt::format("nested deeper than {} levels", limits_.max_depth));
  open_.push_back(place(std::move(container)));
  path_.emplace_back();
  return true;
}

bool JsonReader::close() {
  open_.pop_back();
  path_.pop_back();
  return true;
}

Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits, ErrorCode code) {
  return JsonReader(std::string(source), limits, code).read(text);
}

}  // namespace expert
