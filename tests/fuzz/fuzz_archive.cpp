// Any bytes as an archive: refused with a typed error, or portable names within the limits.
#include <cstdint>

#include "core/error.h"
#include "io/archive.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expert;
  const ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  // Small, so that an execution that unpacks up to the limits is still short.
  const ArchiveLimits limits{.max_entries = 8, .max_entry_bytes = 1 << 15, .max_total_bytes = 1 << 16, .max_ratio = 200};
  try {
    uint64_t total = 0;
    std::vector<std::string> names;
    for (const ArchiveEntry& entry : read_archive(bytes, "fuzz", limits)) {
      check_entry_name(entry.name, "fuzz");
      names.push_back(entry.name);
      total += entry.bytes.size();
    }
    check_entry_names_together(names, "fuzz");
    if (names.size() > limits.max_entries || total > limits.max_total_bytes) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
