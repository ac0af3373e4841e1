#include "io/archive.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <memory>
#include <new>
#include <set>

#include "core/error.h"

#ifdef EXPERT_HAVE_ARCHIVE
#include <archive.h>
#include <archive_entry.h>
#endif

namespace expert {
namespace {

using namespace std::string_view_literals;

enum class Container { tar_gzip, tar_zstd, zip, known_but_refused, none };

struct Magic {
  std::string_view bytes;
  size_t offset;
  Container container;
  std::string_view name;
};

constexpr std::array<Magic, 13> kMagics = {{
    {"\x1f\x8b"sv, 0, Container::tar_gzip, "gzip"},
    {"\x28\xb5\x2f\xfd"sv, 0, Container::tar_zstd, "zstd"},
    {"PK\x03\x04"sv, 0, Container::zip, "zip"},
    {"PK\x05\x06"sv, 0, Container::zip, "empty zip"},
    {"HLLMEXP\0"sv, 0, Container::known_but_refused, "an OSD container"},
    {"\xfd\x37zXZ\0"sv, 0, Container::known_but_refused, "xz"},
    {"BZh"sv, 0, Container::known_but_refused, "bzip2"},
    {"\x04\x22\x4d\x18"sv, 0, Container::known_but_refused, "lz4"},
    {"7z\xbc\xaf\x27\x1c"sv, 0, Container::known_but_refused, "7-Zip"},
    {"Rar!\x1a\x07"sv, 0, Container::known_but_refused, "RAR"},
    {"LZIP"sv, 0, Container::known_but_refused, "lzip"},
    {"!<arch>\n"sv, 0, Container::known_but_refused, "an ar archive"},
    {"ustar"sv, 257, Container::known_but_refused, "tar without compression"},
}};

const Magic* sniff(ByteView bytes) {
  const std::string_view text = as_text(bytes);
  for (const Magic& magic : kMagics) {
    if (text.size() >= magic.offset && text.substr(magic.offset).starts_with(magic.bytes)) return &magic;
  }
  return nullptr;
}

}  // namespace

bool looks_like_archive(ByteView first_bytes) { return sniff(first_bytes) != nullptr; }

#ifndef EXPERT_HAVE_ARCHIVE

namespace {
[[noreturn]] void fail_built_without() {
  throw Error(ErrorCode::unsupported, "this build of the library was built without archives",
              "build it with EXPERT_PACKAGES=ON, or unpack the expert and name its directory");
}
}  // namespace

std::vector<ArchiveEntry> read_archive(ByteView, const std::string&, const ArchiveLimits&) { fail_built_without(); }
std::vector<ArchiveEntry> read_archive(const std::string&, const ArchiveLimits&) { fail_built_without(); }
Bytes make_archive(const std::vector<ArchiveEntry>&, ArchiveFormat) { fail_built_without(); }

#else

namespace {

constexpr size_t kBlockBytes = size_t{64} << 10;
// Below this much output a ratio says nothing: a small file of zeros shrinks a thousandfold.
constexpr uint64_t kRatioGrace = uint64_t{16} << 20;

using ArchiveReader = std::unique_ptr<archive, decltype(&archive_read_free)>;
using ArchiveWriter = std::unique_ptr<archive, decltype(&archive_write_free)>;
using EntryHandle = std::unique_ptr<archive_entry, decltype(&archive_entry_free)>;

ArchiveReader new_reader() {
  ArchiveReader reader(archive_read_new(), &archive_read_free);
  if (!reader) throw std::bad_alloc();
  return reader;
}

[[noreturn]] void fail_damaged(const std::string& source, archive* reader) {
  const char* text = archive_error_string(reader);
  throw Error(ErrorCode::load,
              fmt::format("{}: the archive is damaged or cut: {}", source, text == nullptr ? "unexpected end" : text),
              "fetch or pack it again");
}

// What has been unpacked so far, against the limits.
class Budget {
 public:
  Budget(const ArchiveLimits& limits, uint64_t packed_bytes, const std::string& source)
      : limits_(limits), packed_bytes_(packed_bytes), source_(source) {}

  void count_entry() {
    if (++entries_ > limits_.max_entries)
      fail(ErrorCode::load, "{}: more than {} entries", source_, limits_.max_entries);
  }
  void check_announced(std::string_view name, uint64_t size) const {
    if (size > limits_.max_entry_bytes) {
      fail(ErrorCode::load, "{}: entry {} claims {} bytes, the limit is {}", source_, name, size,
           limits_.max_entry_bytes);
    }
    if (size > limits_.max_total_bytes - total_) {
      fail(ErrorCode::load, "{}: unpacks to more than the limit of {} bytes", source_, limits_.max_total_bytes);
    }
  }
  void add_unpacked(uint64_t bytes) {
    total_ += bytes;
    if (total_ > limits_.max_total_bytes) {
      fail(ErrorCode::load, "{}: unpacks to more than the limit of {} bytes", source_, limits_.max_total_bytes);
    }
    check_ratio(total_);
  }
  void check_ratio(uint64_t unpacked) const {
    if (unpacked > kRatioGrace && unpacked / limits_.max_ratio > packed_bytes_) {
      fail(ErrorCode::load, "{}: unpacks to more than {} times its {} bytes", source_, limits_.max_ratio,
           packed_bytes_);
    }
  }
  // The most that can still come out of this file: what may be allocated before it has come.
  uint64_t plausible(uint64_t announced) const {
    return std::min(announced, kRatioGrace + packed_bytes_ * std::min<uint64_t>(limits_.max_ratio, 1 << 16));
  }
  // Of a decompressed tar: the files, a few headers and one block of padding for each, and the end marker.
  uint64_t max_tar_bytes() const { return limits_.max_total_bytes + (limits_.max_entries + 64) * uint64_t{4096}; }

 private:
  const ArchiveLimits& limits_;
  uint64_t packed_bytes_;
  const std::string& source_;
  size_t entries_ = 0;
  uint64_t total_ = 0;
};

// CRC-32 of gzip (RFC 1952 §8); the library underneath does not verify it.
class Crc32 {
 public:
  void update(ByteView bytes) {
    static const std::array<uint32_t, 256> kTable = make_table();
    for (const std::byte byte : bytes) {
      state_ = kTable[(state_ ^ std::to_integer<uint32_t>(byte)) & 0xff] ^ (state_ >> 8);
    }
  }
  uint32_t value() const { return ~state_; }

 private:
  static std::array<uint32_t, 256> make_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < table.size(); ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0u);
      table[i] = value;
    }
    return table;
  }
  uint32_t state_ = 0xffffffffu;
};

uint32_t little_endian_32(ByteView bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value |= std::to_integer<uint32_t>(bytes[i]) << (8 * i);
  return value;
}

// The tar inside a compressed file, block by block. Errors are kept for the caller, because the reader on top is C.
class Decompressor {
 public:
  Decompressor(ByteView packed, Container container, const Budget& budget, const std::string& source)
      : packed_(packed),
        container_(container),
        budget_(budget),
        source_(source),
        reader_(new_reader()),
        block_(kBlockBytes) {
    archive* raw = reader_.get();
    if (container == Container::tar_gzip) {
      archive_read_support_filter_gzip(raw);
    } else {
      archive_read_support_filter_zstd(raw);
    }
    archive_read_support_format_raw(raw);
    archive_entry* entry = nullptr;
    if (archive_read_open_memory(raw, packed.data(), packed.size()) != ARCHIVE_OK ||
        archive_read_next_header(raw, &entry) != ARCHIVE_OK) {
      fail_damaged(source_, raw);
    }
  }

  // The next block; empty at the end of the stream.
  ByteView next() {
    const la_ssize_t got = archive_read_data(reader_.get(), block_.data(), block_.size());
    if (got < 0) fail_damaged(source_, reader_.get());
    const ByteView block(block_.data(), static_cast<size_t>(got));
    const auto last = std::find_if(block.rbegin(), block.rend(), [](std::byte byte) { return byte != std::byte{0}; });
    if (last != block.rend()) content_end_ = total_ + static_cast<uint64_t>(block.rend() - last);
    total_ += block.size();
    crc_.update(block);
    if (total_ > budget_.max_tar_bytes()) fail(ErrorCode::load, "{}: unpacks to more than {} bytes", source_, total_);
    budget_.check_ratio(total_);
    return block;
  }

  // Reads what follows the end marker of the tar, which begins at `end`: only padding may, and the stream must be
  // whole.
  void finish(uint64_t end) {
    while (!next().empty()) {
    }
    if (content_end_ > end) fail(ErrorCode::load, "{}: data after the end of the archive", source_);
    if (container_ != Container::tar_gzip) return;
    if (packed_.size() < 18) fail(ErrorCode::load, "{}: too short for a gzip file", source_);
    const ByteView trailer = packed_.last(8);
    if (little_endian_32(trailer) != crc_.value() ||
        little_endian_32(trailer.subspan(4)) != static_cast<uint32_t>(total_)) {
      throw Error(ErrorCode::load, fmt::format("{}: the archive is damaged: its gzip checksum does not match", source_),
                  "fetch it again; a file made of several gzip members must be packed as one");
    }
  }

  static la_ssize_t read(archive* reader, void* self, const void** buffer) {
    auto* decompressor = static_cast<Decompressor*>(self);
    try {
      const ByteView block = decompressor->next();
      *buffer = block.data();
      return static_cast<la_ssize_t>(block.size());
    } catch (...) {
      decompressor->failure_ = std::current_exception();
      archive_set_error(reader, EIO, "stopped");
      return -1;
    }
  }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  ByteView packed_;
  Container container_;
  const Budget& budget_;
  const std::string& source_;
  ArchiveReader reader_;
  Bytes block_;
  uint64_t total_ = 0;
  uint64_t content_end_ = 0;  // behind the last byte that is not zero
  Crc32 crc_;
  std::exception_ptr failure_;
};

std::string_view refused_type(archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr) return "a hard link";
  if (archive_entry_symlink(entry) != nullptr) return "a symbolic link";
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
    case AE_IFDIR:
      break;
    case AE_IFLNK:
      return "a symbolic link";
    case AE_IFIFO:
      return "a FIFO";
    case AE_IFSOCK:
      return "a socket";
    case AE_IFCHR:
    case AE_IFBLK:
      return "a device";
    default:
      return "of an unknown type";
  }
  if (archive_entry_is_encrypted(entry) != 0) return "encrypted";
  if (archive_entry_sparse_count(entry) > 0) return "a sparse file";
  return {};
}

// `tar -C folder .` writes "./name"; that much is normalised, everything else is refused.
std::string entry_name(archive_entry* entry, bool is_folder, const std::string& source) {
  const char* raw = archive_entry_pathname(entry);
  std::string name = raw == nullptr ? "" : raw;
  if (name.starts_with("./")) name.erase(0, 2);
  if (is_folder) {
    while (name.ends_with('/')) name.pop_back();
    if (name.empty() || name == ".") return {};
  }
  check_entry_name(name, source);
  return name;
}

Bytes read_contents(archive* reader, archive_entry* entry, const std::string& name, Budget& budget,
                    const std::string& source) {
  const auto announced = static_cast<uint64_t>(std::max<la_int64_t>(archive_entry_size(entry), 0));
  budget.check_announced(name, announced);
  Bytes bytes;
  bytes.reserve(budget.plausible(announced));
  std::vector<std::byte> block(std::min<uint64_t>(kBlockBytes, announced + 1));
  while (true) {
    const la_ssize_t got = archive_read_data(reader, block.data(), block.size());
    if (got < 0) fail_damaged(source, reader);
    if (got == 0) break;
    budget.add_unpacked(static_cast<uint64_t>(got));
    bytes.append(ByteView(block).first(static_cast<size_t>(got)));
    if (bytes.size() > announced) break;
  }
  if (bytes.size() != announced) {
    fail(ErrorCode::load, "{}: entry {} claims {} bytes and has {}", source, name, announced, bytes.size());
  }
  return bytes;
}

void check_names(const std::vector<ArchiveEntry>& files, const std::set<std::string>& folders,
                 const std::string& source) {
  std::vector<std::string> names;
  for (const ArchiveEntry& file : files) names.push_back(file.name);
  // A file below each folder makes a file of the same name clash with it.
  for (const std::string& folder : folders) names.push_back(folder + "/.");
  check_entry_names_together(names, source);
}

std::vector<ArchiveEntry> read_entries(archive* reader, Budget& budget, const std::string& source) {
  std::vector<ArchiveEntry> files;
  std::set<std::string> folders;
  archive_entry* entry = nullptr;
  while (true) {
    const int status = archive_read_next_header(reader, &entry);
    if (status == ARCHIVE_EOF) break;
    // A warning is about attributes that are not used here; what is used is checked below.
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) fail_damaged(source, reader);
    budget.count_entry();
    const bool is_folder = archive_entry_filetype(entry) == AE_IFDIR;
    const std::string name = entry_name(entry, is_folder, source);
    if (const std::string_view refused = refused_type(entry); !refused.empty()) {
      fail(ErrorCode::load, "{}: entry {} is {}; only plain files are allowed", source, name, refused);
    }
    if (!is_folder) {
      files.push_back({name, read_contents(reader, entry, name, budget, source)});
    } else if (!name.empty()) {
      folders.insert(name);
    }
  }
  check_names(files, folders, source);
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

std::vector<ArchiveEntry> read_tar(ByteView bytes, Container container, Budget& budget, const std::string& source) {
  Decompressor decompressor(bytes, container, budget, source);
  const ArchiveReader reader = new_reader();
  archive_read_support_format_tar(reader.get());
  try {
    if (archive_read_open(reader.get(), &decompressor, nullptr, &Decompressor::read, nullptr) != ARCHIVE_OK) {
      fail_damaged(source, reader.get());
    }
    std::vector<ArchiveEntry> entries = read_entries(reader.get(), budget, source);
    decompressor.rethrow();
    decompressor.finish(static_cast<uint64_t>(archive_read_header_position(reader.get())));
    return entries;
  } catch (const Error&) {
    decompressor.rethrow();  // the first cause says more than "stopped"
    throw;
  }
}

std::vector<ArchiveEntry> read_zip(ByteView bytes, Budget& budget, const std::string& source) {
  const ArchiveReader reader = new_reader();
  // Only by the central directory, which a cut file has lost.
  archive_read_support_format_zip_seekable(reader.get());
  if (archive_read_open_memory(reader.get(), bytes.data(), bytes.size()) != ARCHIVE_OK)
    fail_damaged(source, reader.get());
  return read_entries(reader.get(), budget, source);
}

void require_supported(const Magic* magic, const std::string& source) {
  if (magic == nullptr) fail(ErrorCode::load, "{}: is no archive", source);
  if (magic->container == Container::known_but_refused) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: is {}, which is not read", source, magic->name),
                "pack it as tar with gzip or zstd, or as zip");
  }
}

la_ssize_t append(archive*, void* bytes, const void* data, size_t n) {
  auto* out = static_cast<Bytes*>(bytes);
  const auto* begin = static_cast<const std::byte*>(data);
  try {
    out->append({begin, n});
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return static_cast<la_ssize_t>(n);
}

void require_written(archive* writer, int status) {
  if (status == ARCHIVE_OK) return;
  const char* text = archive_error_string(writer);
  fail(ErrorCode::internal, "cannot make an archive: {}", text == nullptr ? "unknown" : text);
}

void choose_format(archive* writer, ArchiveFormat format) {
  if (format == ArchiveFormat::zip) {
    require_written(writer, archive_write_set_format_zip(writer));
  } else {
    require_written(writer, archive_write_set_format_pax_restricted(writer));
  }
  if (format == ArchiveFormat::tar_gzip) {
    require_written(writer, archive_write_add_filter_gzip(writer));
    require_written(writer, archive_write_set_filter_option(writer, "gzip", "timestamp", nullptr));
  }
  if (format == ArchiveFormat::tar_zstd) require_written(writer, archive_write_add_filter_zstd(writer));
  archive_write_set_bytes_in_last_block(writer, 1);
}

void write_entry(archive* writer, const ArchiveEntry& file) {
  const EntryHandle entry(archive_entry_new(), &archive_entry_free);
  if (!entry) throw std::bad_alloc();
  archive_entry_set_pathname(entry.get(), file.name.c_str());
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  archive_entry_set_perm(entry.get(), 0644);
  archive_entry_set_mtime(entry.get(), 0, 0);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(file.bytes.size()));
  require_written(writer, archive_write_header(writer, entry.get()));
  for (size_t done = 0; done < file.bytes.size();) {
    const la_ssize_t written = archive_write_data(writer, file.bytes.data() + done, file.bytes.size() - done);
    if (written <= 0) require_written(writer, ARCHIVE_FATAL);
    done += static_cast<size_t>(written);
  }
}

}  // namespace

std::vector<ArchiveEntry> read_archive(ByteView bytes, const std::string& source, const ArchiveLimits& limits) {
  const Magic* magic = sniff(bytes);
  require_supported(magic, source);
  Budget budget(limits, bytes.size(), source);
  std::vector<ArchiveEntry> entries = magic->container == Container::zip
                                          ? read_zip(bytes, budget, source)
                                          : read_tar(bytes, magic->container, budget, source);
  if (entries.empty()) fail(ErrorCode::load, "{}: the archive holds no files", source);
  return entries;
}

std::vector<ArchiveEntry> read_archive(const std::string& path, const ArchiveLimits& limits) {
  const Bytes bytes = File::open(path).read_all(limits.max_total_bytes);
  return read_archive(bytes, path, limits);
}

Bytes make_archive(const std::vector<ArchiveEntry>& entries, ArchiveFormat format) {
  std::vector<const ArchiveEntry*> sorted;
  std::vector<std::string> names;
  for (const ArchiveEntry& entry : entries) {
    check_entry_name(entry.name, "archive");
    sorted.push_back(&entry);
    names.push_back(entry.name);
  }
  check_entry_names_together(names, "archive");
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  Bytes bytes;
  const ArchiveWriter writer(archive_write_new(), &archive_write_free);
  if (!writer) throw std::bad_alloc();
  choose_format(writer.get(), format);
  require_written(writer.get(), archive_write_open(writer.get(), &bytes, nullptr, &append, nullptr));
  for (const ArchiveEntry* entry : sorted) write_entry(writer.get(), *entry);
  require_written(writer.get(), archive_write_close(writer.get()));
  return bytes;
}

#endif

void write_archive(const std::string& path, const std::vector<ArchiveEntry>& entries, ArchiveFormat format) {
  write_file_atomically(path, make_archive(entries, format));
}

}  // namespace expert
