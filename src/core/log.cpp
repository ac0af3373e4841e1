#include "core/log.h"

#include <memory>
#include <mutex>
#include <utility>

namespace expert {
namespace {

struct Logger {
  LogSink sink;
  LogLevel least = LogLevel::info;
};

std::mutex& mutex() {
  static std::mutex instance;
  return instance;
}

std::shared_ptr<const Logger>& current() {
  static std::shared_ptr<const Logger> instance;
  return instance;
}

}  // namespace

void set_log_sink(LogSink sink, LogLevel least) {
  auto next = std::make_shared<const Logger>(Logger{std::move(sink), least});
  const std::lock_guard lock(mutex());
  current() = std::move(next);
}

void log(LogLevel level, std::string_view message) {
  std::shared_ptr<const Logger> logger;
  {
    const std::lock_guard lock(mutex());
    logger = current();
  }
  if (logger && logger->sink && level >= logger->least) logger->sink(level, message);
}

}  // namespace expert
