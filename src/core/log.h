// The library never prints: log lines go to the callback of the host, or nowhere.
#pragma once

#include <functional>
#include <string_view>

namespace expert {

enum class LogLevel : int { debug = 0, info = 1, warning = 2, error = 3 };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Replaces the sink of the process; an empty one silences the library. Thread-safe; the sink may be called from any thread.
void set_log_sink(LogSink sink, LogLevel least = LogLevel::info);
void log(LogLevel level, std::string_view message);

}  // namespace expert
