#include "io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <future>
#include <system_error>
#include <utility>

#include "core/cores.h"
#include "core/error.h"
#include "core/pages.h"

namespace expert {
namespace {

[[noreturn]] void fail_system(const std::string& path, std::string_view action, int error) {
  std::string hint;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) hint = "free some disk space or choose another folder";
  if (error == EACCES || error == EPERM || error == EROFS) hint = "check the permissions of the path";
  throw Error(ErrorCode::load, fmt::format("{}: cannot {}: {}", path, action, std::generic_category().message(error)),
              std::move(hint));
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode)) return "a character device";
  if (S_ISBLK(mode)) return "a block device";
  return "not a regular file";
}

void require_regular(const std::string& path, const struct stat& status) {
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::load, "{}: is {}, not a file", path, kind_of(status.st_mode));
}

FileIdentity identity_of(const struct stat& status) {
  auto nanoseconds = [](const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; };
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size = static_cast<uint64_t>(status.st_size),
          .mtime_ns = nanoseconds(status.st_mtim),
          .ctime_ns = nanoseconds(status.st_ctim)};
}

// Closes on every way out; close() returns what the system said, because a full disk may speak up only then.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  int close() { return ::close(release()) == 0 ? 0 : errno; }

 private:
  int fd_;
};

void write_all(int fd, const std::string& path, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_system(path, "write", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void write_and_sync(int raw_fd, const std::string& path, ByteView bytes) {
  Descriptor fd(raw_fd);
  write_all(fd.get(), path, bytes);
  if (::fsync(fd.get()) != 0) fail_system(path, "write", errno);
  if (const int error = fd.close(); error != 0) fail_system(path, "write", error);
}

int create_exclusively(const std::string& path, unsigned mode) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, static_cast<mode_t>(mode));
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// A name no other process or thread uses; a leftover of a crashed process of the same id only costs another try.
std::pair<std::string, int> create_temporary_beside(const std::string& path, unsigned mode) {
  static std::atomic<uint64_t> counter{0};
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::string name = fmt::format(".{}.{}.{}.tmp", last_segment(path), ::getpid(), counter++);
    std::string temporary = join_path(parent_of(path), name);
    const int fd = create_exclusively(temporary, mode);
    if (fd >= 0) return {std::move(temporary), fd};
    if (errno != EEXIST) fail_system(path, "create", errno);
  }
  fail(ErrorCode::load, "{}: cannot create a temporary file beside it", path);
}

}  // namespace

File::File(std::string path, int descriptor, FileIdentity identity)
    : path_(std::move(path)), descriptor_(descriptor), identity_(identity) {}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), identity_(other.identity_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(identity_, other.identity_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File File::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail(ErrorCode::load, "a path holds a zero byte");
  struct stat status {};
  // Looked at before it is opened as well, because opening a device can have effects.
  if (::stat(path.c_str(), &status) != 0) fail_system(path, "open", errno);
  require_regular(path, status);
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0) fail_system(path, "open", errno);
  if (::fstat(fd.get(), &status) != 0) fail_system(path, "open", errno);
  require_regular(path, status);
  return File(path, fd.release(), identity_of(status));
}

void File::read_at(uint64_t offset, void* destination, size_t n) const {
  if (offset > identity_.size || n > identity_.size - offset) {
    fail(ErrorCode::load, "{}: {} bytes at {} lie outside its {} bytes", path_, n, offset, identity_.size);
  }
  auto* out = static_cast<std::byte*>(destination);
  while (n > 0) {
    const ssize_t got = ::pread(descriptor_, out, std::min<size_t>(n, size_t{1} << 30), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_system(path_, "read", errno);
    if (got == 0) fail(ErrorCode::load, "{}: the file was cut while it was read ({} bytes missing)", path_, n);
    out += got;
    offset += static_cast<uint64_t>(got);
    n -= static_cast<size_t>(got);
  }
}

Bytes File::read_all(uint64_t limit) const {
  if (size() > limit) fail(ErrorCode::load, "{}: {} bytes, more than the limit of {}", path_, size(), limit);
  Bytes bytes = Bytes::unfilled(size());
  read_all(bytes, [](size_t) {});
  return bytes;
}

void File::read_all(std::span<std::byte> destination, const std::function<void(size_t)>& on_prefix) const {
  if (destination.size() != size()) fail(ErrorCode::internal, "{}: {} bytes for {}", path_, destination.size(), size());
  // Of a large one each half by a thread: most of the time goes into fresh pages for it. Whoever follows the reading
  // needs a core too.
  constexpr size_t kWorthAThread = size_t{4} << 20;
  constexpr size_t kPiece = size_t{1} << 20;
  static const bool has_cores = usable_cores() > 2;
  const size_t first_bytes = size() >= kWorthAThread && has_cores ? size() / 2 : size();
  const auto read_first = [&] {
    for (size_t at = 0; at < first_bytes; at += kPiece) {
      const size_t end = std::min(first_bytes, at + kPiece);
      read_at(at, destination.data() + at, end - at);
      if (end < size()) on_prefix(end);  // the whole of it is there once it is known to be unchanged
    }
  };
  std::future<void> first;
  if (first_bytes < size()) {
    try {
      first = std::async(std::launch::async, read_first);
    } catch (const std::system_error&) {
      read_first();
    }
    read_at(first_bytes, destination.data() + first_bytes, size() - first_bytes);
  } else {
    read_first();
  }
  if (first.valid()) first.get();
  require_unchanged();
  on_prefix(size());
}

bool File::unchanged() const {
  struct stat status {};
  return ::fstat(descriptor_, &status) == 0 && identity_of(status) == identity_;
}

void File::require_unchanged() const {
  if (!unchanged()) fail(ErrorCode::load, "{}: the file was changed while it was read", path_);
}

void File::drop_pages(uint64_t offset, uint64_t n) const {
  // Only advice: a system that does not take it loses nothing but cache.
  (void)::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(n), POSIX_FADV_DONTNEED);
}

bool file_exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

bool entry_exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

bool directory_exists(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

std::vector<std::string> list_directory(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator item(path, error);
  for (; !error && item != std::filesystem::directory_iterator(); item.increment(error)) {
    names.push_back(item->path().filename().string());
  }
  if (error) fail_system(path, "list", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

std::string join_path(std::string_view directory, std::string_view name) {
  if (directory.empty()) return std::string(name);
  return fmt::format("{}{}{}", directory, directory.back() == '/' ? "" : "/", name);
}

std::string last_segment(std::string_view path) {
  while (!path.empty() && (path.back() == '/' || path.back() == '\\')) path.remove_suffix(1);
  const size_t slash = path.find_last_of("/\\");
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

std::string read_text_file(const std::string& path, uint64_t limit) {
  const Bytes bytes = File::open(path).read_all(limit);
  return std::string(as_text(bytes));
}

std::optional<std::string> read_text_if_present(const std::string& path, uint64_t limit) {
  if (!entry_exists(path)) return std::nullopt;
  return read_text_file(path, limit);
}

void create_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_system(path, "create the folder", error.value());
}

void sync_directory(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) fail_system(path, "open", errno);
  // Some file systems cannot sync a folder and say EINVAL; there a rename is as durable as it gets.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) fail_system(path, "write", errno);
}

void write_file_atomically(const std::string& path, ByteView bytes, unsigned mode) {
  auto [temporary, fd] = create_temporary_beside(path, mode);
  try {
    write_and_sync(fd, path, bytes);
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_system(path, "replace", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_directory(parent_of(path));
}

void write_new_file(const std::string& path, ByteView bytes, unsigned mode) {
  const int fd = create_exclusively(path, mode);
  if (fd < 0) fail_system(path, "create", errno);
  try {
    write_and_sync(fd, path, bytes);
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

MappedFile MappedFile::open(const std::string& path) {
  struct stat status {};
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0 || ::fstat(fd.get(), &status) != 0) fail_system(path, "open", errno);
  require_regular(path, status);
  const auto size = static_cast<size_t>(status.st_size);
  MappedFile file(identity_of(status));
  if (size == 0) return file;
  // The reserved place has room for moving the file to a huge page's boundary.
  void* place = ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) fail_system(path, "map", errno);
  file.place_ = static_cast<std::byte*>(place);
  std::byte* start = file.place_ + (kHugePage - reinterpret_cast<uintptr_t>(place) % kHugePage) % kHugePage;
  if (::mmap(start, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd.get(), 0) == MAP_FAILED) {
    fail_system(path, "map", errno);
  }
#if defined(MADV_HUGEPAGE)
  static_cast<void>(::madvise(start, size, MADV_HUGEPAGE));  // only advice
#endif
  file.data_ = start;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : place_(std::exchange(other.place_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      identity_(std::exchange(other.identity_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(place_, other.place_);
  std::swap(data_, other.data_);
  std::swap(identity_, other.identity_);
  return *this;
}

MappedFile::~MappedFile() {
  if (place_ != nullptr) ::munmap(place_, identity_.size + kHugePage);
}

}  // namespace expert
