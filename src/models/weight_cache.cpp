#include "models/weight_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "core/pages.h"
#include "io/hash_memo.h"
#include "io/sha256.h"

namespace expert {
namespace {

constexpr std::string_view kMagic = "XPRTWTS1";
constexpr uint64_t kAlignment = 64;
constexpr uint64_t kSpareDiskBytes = uint64_t{256} << 20;  // left free for everyone else
constexpr size_t kWriteChunk = 4 * kHugePage;
constexpr size_t kDigestBytes = 32;

static_assert(std::endian::native == std::endian::little, "cache files hold packed weights in native byte order");

uint64_t aligned(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// Finds damage, not malice: eight multiply-rotate lanes, about as fast as memory.
uint64_t checksum(ByteView bytes) {
  constexpr uint64_t kPrime = 0x9E3779B185EBCA87ULL;
  std::array<uint64_t, 8> lanes{1, 2, 3, 4, 5, 6, 7, 8};
  std::array<uint64_t, 8> words{};
  size_t at = 0;
  const auto mix = [&] {
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = std::rotl((lanes[i] ^ words[i]) * kPrime, 29);
  };
  for (; at + sizeof(words) <= bytes.size(); at += sizeof(words)) {
    std::memcpy(words.data(), bytes.data() + at, sizeof(words));
    mix();
  }
  words.fill(0);
  if (at < bytes.size()) std::memcpy(words.data(), bytes.data() + at, bytes.size() - at);
  mix();
  uint64_t sum = bytes.size();
  for (const uint64_t lane : lanes) sum = std::rotl((sum ^ lane) * kPrime, 31);
  return sum;
}

struct Placed {
  CachedMatrix matrix;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t checksum = 0;
};

// --- header: magic, key, sizes, table of contents, SHA-256 over all of it ----------------------------------------

class HeaderWriter {
 public:
  void number(uint64_t value) { text_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void text(std::string_view value) {
    number(value.size());
    text_.append(value);
  }
  void raw(std::string_view value) { text_.append(value); }
  const std::string& bytes() const { return text_; }

 private:
  std::string text_;
};

class HeaderReader {
 public:
  explicit HeaderReader(std::string_view bytes) : rest_(bytes) {}
  std::string_view raw(uint64_t count) {
    if (count > rest_.size()) fail(ErrorCode::load, "weight cache: header ends early");
    const std::string_view value = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return value;
  }
  uint64_t number() {
    uint64_t value = 0;
    std::memcpy(&value, raw(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text() { return raw(number()); }

 private:
  std::string_view rest_;
};

std::string header_bytes(const WeightCacheKey& key, const std::vector<Placed>& placed, uint64_t header_size,
                         uint64_t file_size) {
  HeaderWriter header;
  header.raw(kMagic);
  header.raw(key.digest);
  header.number(header_size);
  header.number(file_size);
  header.number(placed.size());
  for (const Placed& entry : placed) {
    header.text(entry.matrix.name);
    header.number(static_cast<uint64_t>(entry.matrix.rows));
    header.number(static_cast<uint64_t>(entry.matrix.cols));
    header.number(entry.offset);
    header.number(entry.bytes);
    header.number(entry.checksum);
  }
  std::string bytes = header.bytes();
  const Digest digest = Sha256().update(std::string_view(bytes)).finish();
  bytes.append(as_text(digest));
  return bytes;
}

std::vector<Placed> parse(ByteView file, const WeightCacheKey& key) {
  HeaderReader header(as_text(file));
  if (header.raw(kMagic.size()) != kMagic) fail(ErrorCode::load, "weight cache: not one of ours");
  if (header.raw(kDigestBytes) != key.digest) fail(ErrorCode::load, "weight cache: made from other files");
  const uint64_t header_size = header.number();
  if (header.number() != file.size()) fail(ErrorCode::load, "weight cache: cut");
  if (header_size < kDigestBytes || header_size > file.size()) fail(ErrorCode::load, "weight cache: header size");
  const Digest digest = Sha256().update(file.first(header_size - kDigestBytes)).finish();
  if (!std::ranges::equal(digest, file.subspan(header_size - kDigestBytes, kDigestBytes))) {
    fail(ErrorCode::load, "weight cache: header is damaged");
  }
  std::vector<Placed> entries;
  for (uint64_t left = header.number(); left > 0; --left) {
    Placed entry;
    entry.matrix.name = header.text();
    entry.matrix.rows = static_cast<int64_t>(header.number());
    entry.matrix.cols = static_cast<int64_t>(header.number());
    entry.offset = header.number();
    entry.bytes = header.number();
    entry.checksum = header.number();
    if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset) {
      fail(ErrorCode::load, "weight cache: entry outside the file");
    }
    entry.matrix.bytes = file.subspan(entry.offset, entry.bytes);
    entries.push_back(std::move(entry));
  }
  return entries;
}

// Faults the pages of a mapped range in at once, where the system can.
void populate(ByteView bytes) {
#if defined(MADV_POPULATE_READ)
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const uintptr_t last = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  if (last > first) static_cast<void>(::madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_READ));
#else
  static_cast<void>(bytes);
#endif
}

// Brings the pages in and, where `compare` says so, compares all checksums, several entries at a time.
void read_through(const std::vector<Placed>& entries, bool compare, int threads, std::string_view unwanted) {
  std::atomic<size_t> next{0};
  std::atomic<const Placed*> damaged{nullptr};
  const auto check = [&] {
    for (size_t i = next++; i < entries.size(); i = next++) {
      if (entries[i].matrix.name != unwanted) populate(entries[i].matrix.bytes);
      if (compare && checksum(entries[i].matrix.bytes) != entries[i].checksum) damaged = &entries[i];
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int t = 1; t < threads; ++t) helpers.emplace_back(check);
  } catch (const std::system_error&) {
    // Fewer threads than wished: those there are do it.
  }
  check();
  for (std::thread& helper : helpers) helper.join();
  if (const Placed* entry = damaged) fail(ErrorCode::load, "weight cache: {} is damaged", entry->matrix.name);
}

// Checksums are compared once for each state of the file, as its identity tells.
void require_undamaged(const WeightCacheKey& key, const MappedFile& file, const std::vector<Placed>& entries,
                       int threads, std::string_view unwanted) {
  const std::filesystem::path path = key.path;
  HashMemo memo(join_path(path.parent_path().string(), "weights"));
  const std::string state = memo_key("weight cache 1", {{path.filename().string(), file.identity()}});
  const std::string contents = Sha256().update(std::string_view(key.digest)).finish_hex();
  const bool known = !state.empty() && memo.find(state) == contents;
  read_through(entries, !known, threads, unwanted);
  if (!known) memo.record(state, contents);
}

// --- writing ------------------------------------------------------------------------------------------------------

[[noreturn]] void fail_system(const char* what) { fail(ErrorCode::load, "{}: {}", what, std::strerror(errno)); }

// A file that only becomes visible under its name when commit() succeeds; otherwise it vanishes. Written in large aligned
// pieces: what the system then holds in huge pages can be mapped by huge pages.
class PartialFile {
 public:
  explicit PartialFile(const std::string& target) : target_(target), path_(target + ".partial") {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor_ < 0) fail_system("open");
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 || !still_ours()) {
      ::close(descriptor_);
      fail(ErrorCode::load, "another process is writing it");
    }
    if (::ftruncate(descriptor_, 0) != 0) abandon("truncate");
    piece_.reserve(kWriteChunk);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile() {
    if (!committed_) ::unlink(path_.c_str());
    ::close(descriptor_);
  }

  void append(ByteView bytes) {
    while (!bytes.empty()) {
      const size_t taken = std::min(bytes.size(), kWriteChunk - piece_.size());
      piece_.insert(piece_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
      bytes = bytes.subspan(taken);
      if (piece_.size() == kWriteChunk) write_piece();
    }
  }
  void commit() {
    write_piece();
    if (::fsync(descriptor_) != 0) fail_system("fsync");
    if (::rename(path_.c_str(), target_.c_str()) != 0) fail_system("rename");
    committed_ = true;
    sync_directory(std::filesystem::path(target_).parent_path().string());
  }

 private:
  void write_piece() {
    for (ByteView rest = piece_; !rest.empty();) {
      const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail_system("write");
      rest = rest.subspan(static_cast<size_t>(written));
    }
    piece_.clear();
  }
  // Between open and lock another writer may have renamed this very file into place.
  bool still_ours() const {
    struct stat opened {};
    struct stat named {};
    return ::fstat(descriptor_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
  }
  [[noreturn]] void abandon(const char* what) {
    const int error = errno;
    ::unlink(path_.c_str());
    ::close(descriptor_);
    errno = error;
    fail_system(what);
  }

  std::string target_;
  std::string path_;
  int descriptor_ = -1;
  bool committed_ = false;
  std::vector<std::byte> piece_;
};

void require_space(const std::string& directory, uint64_t bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(directory, error);
  if (error) fail(ErrorCode::load, "{}: {}", directory, error.message());
  if (space.available < bytes + kSpareDiskBytes) {
    fail(ErrorCode::load, "{} bytes needed, {} free", bytes + kSpareDiskBytes, space.available);
  }
}

void require_running(const std::stop_token& stop) {
  if (stop.stop_requested()) fail(ErrorCode::cancelled, "stopped");
}

std::vector<Placed> place(const std::vector<CachedMatrix>& matrices, const std::stop_token& stop) {
  std::vector<Placed> placed;
  for (const CachedMatrix& matrix : matrices) {
    require_running(stop);
    placed.push_back({matrix, 0, matrix.bytes.size(), checksum(matrix.bytes)});
  }
  return placed;
}

void write(const WeightCacheKey& key, const std::vector<CachedMatrix>& matrices, const std::stop_token& stop) {
  std::vector<Placed> placed = place(matrices, stop);
  const uint64_t header_size = header_bytes(key, placed, 0, 0).size();
  uint64_t end = header_size;
  for (Placed& entry : placed) {
    entry.offset = aligned(end);
    end = entry.offset + entry.bytes;
  }
  const std::string directory = std::filesystem::path(key.path).parent_path().string();
  create_directories(directory);
  require_space(directory, end);

  PartialFile file(key.path);
  file.append(as_bytes(header_bytes(key, placed, header_size, end)));
  uint64_t at = header_size;
  for (const Placed& entry : placed) {
    constexpr std::array<std::byte, kAlignment> kPadding{};
    file.append(ByteView(kPadding).first(entry.offset - at));
    for (size_t done = 0; done < entry.bytes; done += kWriteChunk) {
      require_running(stop);
      file.append(entry.matrix.bytes.subspan(done, std::min<size_t>(kWriteChunk, entry.bytes - done)));
    }
    at = entry.offset + entry.bytes;
  }
  file.commit();
}

}  // namespace

WeightCacheKey weight_cache_key(const std::string& cache_directory, const std::string& model_directory,
                                const TensorSet& tensors, const BackendInfo& backend, std::string_view weights) {
  std::error_code error;
  const std::string canonical = std::filesystem::weakly_canonical(model_directory, error).string();
  Sha256 place;
  place.update_framed(error ? model_directory : canonical);
  place.update_framed(backend.layout).update_framed(weights);

  Sha256 contents;
  contents.update_framed(kMagic).update_framed(backend.layout).update_framed(weights);
  for (const auto& tensor_file : tensors.files()) {
    const File* file = tensor_file->file();
    if (!file) continue;
    const FileIdentity& id = file->identity();
    contents.update_framed(file->path());
    for (const uint64_t part :
         {id.device, id.inode, id.size, static_cast<uint64_t>(id.mtime_ns), static_cast<uint64_t>(id.ctime_ns)}) {
      contents.update_number(part);
    }
  }
  const Digest digest = contents.finish();
  return {join_path(cache_directory, place.finish_hex().substr(0, 32) + ".weights"), std::string(as_text(digest))};
}

std::optional<WeightCache> WeightCache::open(const WeightCacheKey& key, int threads, std::string_view unwanted) {
  if (!file_exists(key.path)) return std::nullopt;
  try {
    WeightCache cache;
    cache.file_ = std::make_shared<const MappedFile>(MappedFile::open(key.path));
    std::vector<Placed> entries = parse(cache.file_->bytes(), key);
    require_undamaged(key, *cache.file_, entries, threads, unwanted);
    for (Placed& entry : entries) {
      std::string name = entry.matrix.name;
      cache.matrices_.emplace(std::move(name), std::move(entry.matrix));
    }
    return cache;
  } catch (const Error& error) {
    log(LogLevel::info, fmt::format("{}: ignored and rebuilt: {}", key.path, error.what()));
    return std::nullopt;
  }
}

const CachedMatrix* WeightCache::find(const std::string& name, int64_t rows, int64_t cols) const {
  const auto found = matrices_.find(name);
  if (found == matrices_.end() || found->second.rows != rows || found->second.cols != cols) return nullptr;
  return &found->second;
}

MatrixPtr WeightCache::find(const std::string& name, int64_t rows, int64_t cols, WeightFormat format,
                            Backend& backend) const {
  const CachedMatrix* found = find(name, rows, cols);
  if (found == nullptr || !backend.adopts(rows, cols, format, found->bytes.size())) return nullptr;
  return backend.adopt(rows, cols, format, found->bytes, file_);
}

MatrixPtr WeightCache::find_screen(const std::string& name, int64_t rows, int64_t cols, Backend& backend) const {
  const CachedMatrix* found = find(name, rows, cols);
  if (found == nullptr || found->bytes.size() != backend.screen_size(rows, cols)) return nullptr;
  return backend.adopt_screen(rows, cols, found->bytes, file_);
}

bool write_weight_cache(const WeightCacheKey& key, const std::vector<CachedMatrix>& matrices,
                        const std::stop_token& stop) {
  try {
    write(key, matrices, stop);
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::cancelled) {
      log(LogLevel::warning, fmt::format("{}: weight cache not written: {}", key.path, error.what()));
    }
    return false;
  }
}

}  // namespace expert
