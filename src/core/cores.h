// How many cores this process may use.
#pragma once

#include <optional>
#include <string_view>

namespace expert {

// CPUs in the process's affinity mask, cut to the cgroup's CPU quota (rounded up); at least 1. Reads /proc and /sys.
int usable_cores();

// Cores granted by the text of cgroup v2's cpu.max ("200000 100000", "max 100000"): quota / period rounded up; empty if
// unlimited or not understood.
std::optional<int> cores_of_quota(std::string_view cpu_max);

}  // namespace expert
