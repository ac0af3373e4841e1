// The boundary: every C function that can fail runs its body under guard(), which turns every exception into a status
// and the calling thread's last error.
#pragma once

#include <expert/expert.h>

#include <exception>
#include <new>
#include <string>

#include "core/error.h"

namespace expert::capi {

// Never throws: when even the message cannot be stored, a fixed one takes its place.
expert_status report(ErrorCode code, const char* message, const char* hint = "") noexcept;

template <typename Body>
expert_status guard(Body&& body) noexcept {
  try {
    body();
    return EXPERT_OK;
  } catch (const Error& error) {
    return report(error.code(), error.what(), error.hint().c_str());
  } catch (const std::bad_alloc&) {
    return report(ErrorCode::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    return report(ErrorCode::internal, error.what());
  } catch (...) {
    return report(ErrorCode::internal, "an unknown exception");
  }
}

// `what` names the parameter as the header does.
template <typename T>
T& require(T* pointer, const char* what) {
  if (pointer == nullptr) fail(ErrorCode::invalid_request, "{} is NULL", what);
  return *pointer;
}

void require_flags(uint32_t flags, uint32_t known, const char* what);

}  // namespace expert::capi
