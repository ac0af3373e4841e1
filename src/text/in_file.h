// Puts a file's name before the message of whatever error reading it raises.
#pragma once

#include <string>
#include <utility>

#include "core/error.h"

namespace expert {

template <typename Read>
auto in_file(const std::string& directory, const char* file, Read&& read) {
  try {
    return std::forward<Read>(read)();
  } catch (const Error& error) {
    throw Error(error.code(), directory + "/" + file + ": " + error.what(), error.hint());
  }
}

}  // namespace expert
