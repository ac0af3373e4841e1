#include "engine/memory_budget.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace expert {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

// The number behind `key` in a file of lines "key[:] number …".
std::optional<uint64_t> number_after(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  uint64_t number = 0;
  while (file >> word) {
    if (word == key || word == key + ":") {
      if (file >> number) return number;
      return std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (file >> number) return number;  // "max" is no number: no limit
  return std::nullopt;
}

uint64_t machine_free() {
  const auto kilobytes = number_after("/proc/meminfo", "MemAvailable");
  return kilobytes ? *kilobytes * 1024 : kUnknown;
}

uint64_t group_free(const fs::path& folder, const char* limit_name, const char* usage_name, const char* cache_key) {
  const auto limit = number_in(folder / limit_name);
  const auto usage = number_in(folder / usage_name);
  if (!limit || !usage) return kUnknown;
  // Cached file pages are given back under pressure.
  const uint64_t used = *usage - std::min(*usage, number_after(folder / "memory.stat", cache_key).value_or(0));
  return *limit > used ? *limit - used : 0;
}

// Of the group and all it stands in. /proc/self/cgroup: lines "id:controllers:path"; v2 has id 0 and no controllers.
uint64_t groups_free() {
  uint64_t least = kUnknown;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v1 = (',' + controllers + ',').find(",memory,") != std::string::npos;
    if (!v1 && !controllers.empty()) continue;
    const fs::path root = v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
    for (fs::path path = fs::path(line.substr(second + 1)).relative_path();; path = path.parent_path()) {
      least = std::min(
          least, v1 ? group_free(root / path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                    : group_free(root / path, "memory.max", "memory.current", "inactive_file"));
      if (path.empty()) break;
    }
  }
  return least;
}

}  // namespace

uint64_t free_memory() { return std::min(machine_free(), groups_free()); }

}  // namespace expert
