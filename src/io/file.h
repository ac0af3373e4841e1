// Reading and writing ordinary files with every failure a typed error (ErrorCode::load).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace expert {

using ByteView = std::span<const std::byte>;

inline ByteView as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view as_text(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// What tells one state of a file from another without reading it; also the key of memoised hashes.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};

// An open regular file, read by position. Const members are thread-safe.
class File {
 public:
  // Refuses directories, FIFOs, devices and sockets by name, without ever blocking on them.
  static File open(const std::string& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  uint64_t size() const { return identity_.size; }
  const FileIdentity& identity() const { return identity_; }

  // Fills exactly `n` bytes from `offset`; fewer in the file is an error, so a file cut while it is read is noticed.
  void read_at(uint64_t offset, void* destination, size_t n) const;
  // The whole file; more than `limit` bytes is an error found before anything is allocated.
  Bytes read_all(uint64_t limit) const;
  // The same into `destination`, which has size() bytes. `on_prefix(n)` is called, from one thread at a time, whenever
  // the first n bytes are there; with size() only when all are and the file has not changed meanwhile.
  void read_all(std::span<std::byte> destination, const std::function<void(size_t)>& on_prefix) const;
  // Whether the file is still the one that was opened, untouched since.
  bool unchanged() const;
  void require_unchanged() const;
  // Tells the kernel that these pages will not be needed again (base weights after repacking).
  void drop_pages(uint64_t offset, uint64_t n) const;

 private:
  File(std::string path, int descriptor, FileIdentity identity);
  std::string path_;
  int descriptor_ = -1;
  FileIdentity identity_;
};

bool file_exists(const std::string& path);       // a regular file, through links
// Anything of this name, a link that leads nowhere too: what is there but cannot be read is an error, never "absent".
bool entry_exists(const std::string& path);
bool directory_exists(const std::string& path);  // a directory, through links
// Names in the directory, sorted, without "." and "..".
std::vector<std::string> list_directory(const std::string& path);
std::string join_path(std::string_view directory, std::string_view name);
// The last segment, whichever way the slashes lean; "" for "/".
std::string last_segment(std::string_view path);

// Default limit of text files (configurations, tokenizers, templates).
inline constexpr uint64_t kTextFileLimit = uint64_t{256} << 20;
std::string read_text_file(const std::string& path, uint64_t limit = kTextFileLimit);
// nullopt where nothing has this name.
std::optional<std::string> read_text_if_present(const std::string& path, uint64_t limit = kTextFileLimit);

// Creates a directory and its parents; an existing one is fine.
void create_directories(const std::string& path);
// fsync of a directory: makes a rename inside it durable.
void sync_directory(const std::string& path);

// Readers see the old file or the whole new one: temporary name in the same folder, fsync, rename, fsync of the folder.
// On failure (disk full) nothing is left behind.
void write_file_atomically(const std::string& path, ByteView bytes, unsigned mode = 0644);
inline void write_file_atomically(const std::string& path, std::string_view text, unsigned mode = 0644) {
  write_file_atomically(path, as_bytes(text), mode);
}
// Creates a new file with these bytes and fsyncs it; an existing one is an error. For staging folders.
void write_new_file(const std::string& path, ByteView bytes, unsigned mode = 0644);

// Read-only mapping, only for our own cache files, which are renamed into place and never changed:
// a mapped foreign file that is cut kills the process with SIGBUS. It lies on a huge page's boundary, so that a file whose
// pages the system holds in such large ones (ext4 of Linux 6.18 does, written in large pieces) is mapped by them.
class MappedFile {
 public:
  static MappedFile open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  ByteView bytes() const { return {data_, identity_.size}; }
  const FileIdentity& identity() const { return identity_; }

 private:
  explicit MappedFile(const FileIdentity& identity) : identity_(identity) {}
  std::byte* place_ = nullptr;  // reserved: a huge page more than the file has
  const std::byte* data_ = nullptr;
  FileIdentity identity_;
};

}  // namespace expert
