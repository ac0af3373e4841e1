// Between the plain data of expert.h and the library's own types.
#pragma once

#include <expert/expert.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "guard.h"

namespace expert::capi {

// struct_size of what the caller gave: always the first field, read as bytes because an older struct is shorter than ours.
inline size_t given_size(const void* given, size_t first_size, const char* what) {
  if (given == nullptr) fail(ErrorCode::invalid_request, "{} is NULL", what);
  size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < first_size) {
    throw Error(ErrorCode::invalid_request,
                fmt::format("{}.struct_size is {}, at least {} expected", what, size, first_size),
                "start from the EXPERT_..._INIT macro");
  }
  return size;
}

// Lays the fields that the caller knows over `defaults`. `first_size` is the size in the first release: less is not one
// of our structs. Bytes beyond our own fields belong to a newer header and must be zero.
template <typename T>
T overlay(const T* given, T defaults, size_t first_size, const char* what) {
  const size_t size = given_size(given, first_size, what);
  const char* bytes = reinterpret_cast<const char*>(given);
  for (size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{} sets a field that this library ({}) does not have", what, EXPERT_VERSION_STRING),
                  "the program was built for a newer library");
    }
  }
  std::memcpy(&defaults, bytes, std::min(size, sizeof(T)));
  return defaults;
}

// Writes the fields that the caller's struct has; struct_size stays the caller's.
template <typename T>
void give_struct(const T& filled, T* out, size_t first_size) {
  const size_t size = given_size(out, first_size, "out");
  char* bytes = reinterpret_cast<char*>(out);
  std::memcpy(bytes + sizeof size, reinterpret_cast<const char*>(&filled) + sizeof size,
              std::min(size, sizeof(T)) - sizeof size);
}

// NULL is empty; EXPERT_NUL_TERMINATED measures.
std::string_view text_of(const char* text, size_t length = EXPERT_NUL_TERMINATED);
// JSON from the caller; NULL is null.
Json json_of(const char* text, const char* what);
// Text that is not UTF-8 inside our own data is replaced, never an error.
std::string dump(const Json& json);

template <typename T>
std::span<const T> span_of(const T* data, size_t count, const char* what) {
  if (data == nullptr && count != 0) fail(ErrorCode::invalid_request, "{} is NULL, but its count is {}", what, count);
  return {data, count};
}

EngineOptions engine_options_of(const expert_engine_options* options);
// Of every function that takes a request.
inline constexpr uint32_t kRequestFlags =
    EXPERT_REQUEST_BASE_ONLY | EXPERT_REQUEST_RAW | EXPERT_REQUEST_PLAIN_TEXT | EXPERT_REQUEST_IGNORE_EOS |
    EXPERT_REQUEST_TRACE;
// The pointer may lead to an older, shorter struct: no reference to it is ever made.
Request request_of(const expert_request* request, uint32_t flags = kRequestFlags);
std::vector<ExpertUse> uses_of(const expert_use* experts, size_t count);
std::chrono::nanoseconds timeout_of(int64_t timeout_ms);
bool waits_for_ever(int64_t timeout_ms);

Json to_json(const Result& result);

// Memory for the caller, freed by expert_free(). The text gets a NUL behind it.
char* give_text(std::string_view text);
int32_t* give_tokens(std::span<const int32_t> tokens);

}  // namespace expert::capi
