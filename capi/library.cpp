// Version, log, memory: what needs no handle.
#include <cstdlib>
#include <string>

#include "core/log.h"
#include "engine/request.h"
#include "guard.h"

using namespace expert;

static_assert(EXPERT_LOG_DEBUG == static_cast<int>(LogLevel::debug));
static_assert(EXPERT_LOG_INFO == static_cast<int>(LogLevel::info));
static_assert(EXPERT_LOG_WARNING == static_cast<int>(LogLevel::warning));
static_assert(EXPERT_LOG_ERROR == static_cast<int>(LogLevel::error));

const char* expert_version(void) { return EXPERT_VERSION_STRING; }

void expert_set_log_callback(expert_log_callback callback, void* user_data, expert_log_level least) {
  static_cast<void>(capi::guard([&] {
    if (callback == nullptr) return set_log_sink({});
    set_log_sink(
        [callback, user_data](LogLevel level, std::string_view message) {
          callback(user_data, static_cast<expert_log_level>(level), std::string(message).c_str());
        },
        static_cast<LogLevel>(least));
  }));
}

void expert_free(void* memory) { std::free(memory); }
