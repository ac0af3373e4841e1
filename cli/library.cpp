#include "library.h"

#include "terminal.h"

namespace cli {

namespace {

void log_line(void* /*user_data*/, expert_log_level level, const char* message) {
  const char* name = level == EXPERT_LOG_ERROR ? "error" : level == EXPERT_LOG_WARNING ? "warning" : "log";
  note(paint(std::string(name) + ":", Color::yellow) + " " + message + "\n");
}

}  // namespace

std::string pretty(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

void log_to_stderr(bool debug) {
  expert_set_log_callback(log_line, nullptr, debug ? EXPERT_LOG_DEBUG : EXPERT_LOG_WARNING);
}

}  // namespace cli
