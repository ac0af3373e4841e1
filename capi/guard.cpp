#include "guard.h"

namespace expert::capi {

namespace {

struct LastError {
  std::string message;
  std::string hint;
  expert_error view{EXPERT_OK, "", ""};
};

LastError& last_error() noexcept {
  thread_local LastError error;
  return error;
}

}  // namespace

expert_status report(ErrorCode code, const char* message, const char* hint) noexcept {
  LastError& last = last_error();
  const auto status = static_cast<expert_status>(code);
  try {
    last.message = message;
    last.hint = hint;
    last.view = {status, last.message.c_str(), last.hint.c_str()};
  } catch (...) {
    last.view = {status, "out of memory, also for the message of an error", ""};
  }
  return status;
}

void require_flags(uint32_t flags, uint32_t known, const char* what) {
  if ((flags & ~known) != 0) {
    throw Error(ErrorCode::invalid_request, fmt::format("{}: unknown bits {:#x} in flags", what, flags & ~known),
                "the program may have been built for a newer library");
  }
}

}  // namespace expert::capi

using namespace expert;

const expert_error* expert_last_error(void) { return &capi::last_error().view; }

const char* expert_status_name(expert_status status) {
  switch (status) {
    case EXPERT_OK:
      return "ok";
    case EXPERT_ERROR_INTERNAL:
      return "internal";
    case EXPERT_ERROR_INVALID_REQUEST:
      return "invalid_request";
    case EXPERT_ERROR_LOAD:
      return "load";
    case EXPERT_ERROR_MANIFEST:
      return "manifest";
    case EXPERT_ERROR_SIGNATURE:
      return "signature";
    case EXPERT_ERROR_INCOMPATIBLE:
      return "incompatible";
    case EXPERT_ERROR_OUT_OF_MEMORY:
      return "out_of_memory";
    case EXPERT_ERROR_GRAMMAR:
      return "grammar";
    case EXPERT_ERROR_CANCELLED:
      return "cancelled";
    case EXPERT_ERROR_UNSUPPORTED:
      return "unsupported";
    case EXPERT_ERROR_INFERENCE:
      return "inference";
    case EXPERT_ERROR_CLOSED:
      return "closed";
    case EXPERT_ERROR_TIMEOUT:
      return "timeout";
  }
  return "unknown";
}

// The header's values are the library's own.
static_assert(EXPERT_OK == static_cast<int>(ErrorCode::ok));
static_assert(EXPERT_ERROR_INTERNAL == static_cast<int>(ErrorCode::internal));
static_assert(EXPERT_ERROR_INVALID_REQUEST == static_cast<int>(ErrorCode::invalid_request));
static_assert(EXPERT_ERROR_LOAD == static_cast<int>(ErrorCode::load));
static_assert(EXPERT_ERROR_MANIFEST == static_cast<int>(ErrorCode::manifest));
static_assert(EXPERT_ERROR_SIGNATURE == static_cast<int>(ErrorCode::signature));
static_assert(EXPERT_ERROR_INCOMPATIBLE == static_cast<int>(ErrorCode::incompatible));
static_assert(EXPERT_ERROR_OUT_OF_MEMORY == static_cast<int>(ErrorCode::out_of_memory));
static_assert(EXPERT_ERROR_GRAMMAR == static_cast<int>(ErrorCode::grammar));
static_assert(EXPERT_ERROR_CANCELLED == static_cast<int>(ErrorCode::cancelled));
static_assert(EXPERT_ERROR_UNSUPPORTED == static_cast<int>(ErrorCode::unsupported));
static_assert(EXPERT_ERROR_INFERENCE == static_cast<int>(ErrorCode::inference));
static_assert(EXPERT_ERROR_CLOSED == static_cast<int>(ErrorCode::closed));
static_assert(EXPERT_ERROR_TIMEOUT == static_cast<int>(ErrorCode::timeout));
