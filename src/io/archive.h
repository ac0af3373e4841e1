// Archives of plain files from sources that are not trusted: tar with gzip or zstd, and zip, recognised by their first
// bytes. Nothing is ever extracted by the library underneath; entries arrive as bytes in memory, within limits.
// A build without EXPERT_PACKAGES refuses every archive with ErrorCode::unsupported.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace expert {

struct ArchiveEntry {
  std::string name;  // portable relative path with '/', UTF-8
  Bytes bytes;
};

struct ArchiveLimits {
  size_t max_entries = 4096;
  uint64_t max_entry_bytes = uint64_t{1} << 30;
  uint64_t max_total_bytes = uint64_t{1} << 30;
  // Unpacked size over packed size, looked at beyond the first 16 MiB; real weights stay below 10.
  uint64_t max_ratio = 200;
};

// Plain files sorted by name. Throws ErrorCode::load for truncated or damaged archives, broken limits and every entry
// that is not a plain file with a portable relative name (see check_entry_name); folders are tolerated and left out.
std::vector<ArchiveEntry> read_archive(const std::string& path, const ArchiveLimits& limits = {});
std::vector<ArchiveEntry> read_archive(ByteView bytes, const std::string& source, const ArchiveLimits& limits = {});

// Whether these first bytes are those of an archive of any kind, supported or not.
bool looks_like_archive(ByteView first_bytes);

// Throws unless `name` is a relative path that means the same file on every system: no empty, "." or ".." segments, no
// leading slash or drive, no backslashes, control characters or <>:"|?*, no names Windows reserves, no segments that
// end in a dot or space, ASCII only, at most 255 bytes a segment and 1024 in all.
void check_entry_name(std::string_view name, std::string_view source);
// Throws when two of the names clash: given twice, equal but for case, or one is a folder of the other.
void check_entry_names_together(const std::vector<std::string>& names, std::string_view source);

enum class ArchiveFormat { tar_gzip, tar_zstd, zip };

// The same entries always give the same bytes: sorted names, modification time 0, mode 0644, no owner.
Bytes make_archive(const std::vector<ArchiveEntry>& entries, ArchiveFormat format = ArchiveFormat::tar_gzip);
void write_archive(const std::string& path, const std::vector<ArchiveEntry>& entries,
                   ArchiveFormat format = ArchiveFormat::tar_gzip);

}  // namespace expert
