// Python's two ways to fill in a text: "%s" % values, and "{}".format(values).
#pragma once

#include "text/jinja_runtime.h"

namespace expert::jinja {

// values: a tuple, a dict or one value, as the right operand of %.
std::string format_percent(Runtime& runtime, const std::string& format, const Value& values);
std::string format_braces(Runtime& runtime, const std::string& format, const Arguments& values);

// json.dumps() with Transformers' defaults.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;  // indent was given
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

// datetime.strftime() of a naive local time, in the C locale.
std::string format_time(const std::string& format, std::chrono::system_clock::time_point time);

}  // namespace expert::jinja
