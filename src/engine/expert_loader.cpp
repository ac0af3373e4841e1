#include "engine/expert_loader.h"

#include <exception>
#include <new>
#include <system_error>

#include "core/log.h"

namespace expert {
namespace {

// Whatever was thrown, as an Error that names the expert.
Error current_error(const std::string& name) {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, fmt::format("{}: out of memory while it was loaded", name),
                 "unload experts, or lower expert_cache_bytes");
  } catch (const std::exception& error) {
    return Error(ErrorCode::load, fmt::format("{}: {}", name, error.what()));
  } catch (...) {
    return Error(ErrorCode::load, fmt::format("{}: cannot be loaded", name));
  }
}

}  // namespace

bool ExpertLoader::start() {
  const std::lock_guard lock(mutex_);
  if (thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    log(LogLevel::warning, fmt::format("no thread for loading experts, the caller loads: {}", error.what()));
  }
  return thread_.joinable();
}

void ExpertLoader::serve(ExpertLease& lease) {
  if (start()) return;
  while (lease.state() == ExpertLease::State::waiting) {
    const auto work = cache_.next();
    if (!work) {
      throw Error(ErrorCode::out_of_memory, "no thread can be started to load experts when there is room for them",
                  "wait for requests to end, or raise expert_cache_bytes");
    }
    carry_out(*work);
  }
}

void ExpertLoader::run() noexcept {
  try {
    while (const auto work = cache_.wait_for_next()) carry_out(*work);
  } catch (...) {
    // Only a defect of ours gets here; nobody may wait for ever because of it.
    log(LogLevel::error, fmt::format("loading experts stops: {}", current_error("an expert").what()));
    cache_.close();
    if (parts_.done) parts_.done();
  }
}

void ExpertLoader::carry_out(const ExpertWork& work) {
  try {
    if (work.to_form) {
      cache_.formed(*work.to_form, parts_.form(*work.to_form));
    } else {
      cache_.loaded(parts_.read(work.card, work.source));
    }
  } catch (...) {
    if (work.to_form) {
      cache_.not_formed(*work.to_form, current_error("the experts of a request"));
    } else {
      cache_.not_loaded(work, current_error(work.card->name));
    }
  }
  if (parts_.done) parts_.done();
}

void ExpertLoader::form(ExpertLease& lease) {
  try {
    cache_.formed(lease, parts_.form(lease));
  } catch (...) {
    cache_.not_formed(lease, current_error("the experts of a request"));
    throw;
  }
}

void ExpertLoader::close() {
  cache_.close();
  const std::lock_guard lock(mutex_);
  if (thread_.joinable()) thread_.join();
}

}  // namespace expert
