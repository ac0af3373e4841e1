#include "core/cores.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <thread>

namespace expert {

namespace {

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Path of this process in the hierarchy named by `controller` ("" is cgroup v2): lines are "id:controllers:path".
std::string cgroup_path(std::string_view controller) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == "," + std::string(controller) + "," ||
        (!controller.empty() && names.find("," + std::string(controller) + ",") != std::string::npos)) {
      return line.substr(second + 1);
    }
  }
  return {};
}

// The tightest quota on the way from the process's group to the root; `quota` reads one directory.
template <typename Quota>
std::optional<int> tightest(const std::string& root, std::string path, const Quota& quota) {
  std::optional<int> least;
  while (true) {
    const std::optional<int> here = quota(root + path);
    if (here && (!least || *here < *least)) least = here;
    const size_t slash = path.find_last_of('/');
    if (path.empty() || slash == std::string::npos) return least;
    path.resize(slash);
  }
}

std::optional<int> quota_v2(const std::string& directory) { return cores_of_quota(first_line(directory + "/cpu.max")); }

std::optional<int> quota_v1(const std::string& directory) {
  return cores_of_quota(first_line(directory + "/cpu.cfs_quota_us") + " " +
                        first_line(directory + "/cpu.cfs_period_us"));
}

}  // namespace

std::optional<int> cores_of_quota(std::string_view cpu_max) {
  const size_t space = cpu_max.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto number = [](std::string_view text) {
    long long value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end != text.data() ? value : 0LL;
  };
  const long long quota = number(cpu_max.substr(0, space));
  const long long period = number(cpu_max.substr(space + 1));
  if (quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<int>(std::clamp((quota - 1) / period + 1, 1LL, 1LL << 20));
}

int usable_cores() {
  int cores = affinity_cores();
  for (const std::optional<int> quota : {tightest("/sys/fs/cgroup", cgroup_path(""), quota_v2),
                                         tightest("/sys/fs/cgroup/cpu", cgroup_path("cpu"), quota_v1)}) {
    if (quota) cores = std::min(cores, *quota);
  }
  return std::max(1, cores);
}

}  // namespace expert
