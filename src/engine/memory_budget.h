// How much memory this process may still use: the machine's, or its cgroup's where that is less.
#pragma once

#include <cstdint>

namespace expert {

// Bytes; the largest number where nothing can be read.
uint64_t free_memory();

}  // namespace expert
