#include <doctest/doctest.h>

#include <cstring>
#include <optional>
#include <random>

#include "io/archive.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using test::TempDir;

namespace {

Bytes bytes_of(std::string_view text) { return {as_bytes(text).begin(), as_bytes(text).end()}; }

// A tar header as old tar writes it, with any name, type and size, lies included.
void append_tar(std::string& tar, const std::string& name, char type, std::string_view contents,
                const std::string& link = {}, std::optional<size_t> size = {}) {
  std::string header(512, '\0');
  auto put = [&](size_t at, std::string_view text) { header.replace(at, text.size(), text); };
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", size.value_or(contents.size())));
  put(136, "00000000000");
  put(148, "        ");
  header[156] = type;
  put(157, link);
  put(257, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum));
  header[154] = '\0';
  tar += header;
  tar += contents;
  tar.resize((tar.size() + 511) / 512 * 512, '\0');
}

uint32_t crc32(std::string_view text) {
  uint32_t crc = ~0u;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

std::string little(uint32_t value, int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

// gzip with stored blocks: no compressor needed, and the checksum can lie.
Bytes gzip(std::string_view data, uint32_t crc_flip = 0) {
  std::string out("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
  for (size_t at = 0; at == 0 || at < data.size(); at += 65535) {
    const std::string_view block = data.substr(at, 65535);
    const auto n = static_cast<uint32_t>(block.size());
    out += at + block.size() >= data.size() ? '\1' : '\0';
    out += little(n, 2) + little(~n, 2);
    out += block;
  }
  return bytes_of(out + little(crc32(data) ^ crc_flip, 4) + little(static_cast<uint32_t>(data.size()), 4));
}

Bytes tar_of(const std::string& name, char type = '0', std::string_view contents = "x", const std::string& link = {}) {
  std::string tar;
  append_tar(tar, "manifest.json", '0', "{}");
  append_tar(tar, name, type, contents, link);
  return gzip(tar + std::string(1024, '\0'));
}

std::vector<ArchiveEntry> read(const Bytes& bytes, const ArchiveLimits& limits = {}) {
  return read_archive(bytes, "a.expert", limits);
}

const std::vector<ArchiveEntry> kFiles = {
    {"a.txt", bytes_of("alpha")}, {"b/c.bin", Bytes(100'000, std::byte{7})}, {"empty", {}}};

}  // namespace

TEST_CASE("what is written is read, in every format, and written the same each time") {
  for (const auto format : {ArchiveFormat::tar_gzip, ArchiveFormat::tar_zstd, ArchiveFormat::zip}) {
    const Bytes packed = make_archive({kFiles[2], kFiles[0], kFiles[1]}, format);
    CHECK(packed == make_archive(kFiles, format));
    CHECK(looks_like_archive(packed));
    const std::vector<ArchiveEntry> files = read(packed);
    REQUIRE(files.size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(files[i].name == kFiles[i].name);
      CHECK(files[i].bytes == kFiles[i].bytes);
    }
  }
}

TEST_CASE("every cut of an archive is an error") {
  const std::vector<ArchiveEntry> files = {{"a", bytes_of("some text")}, {"b", bytes_of("more text")}};
  for (const auto format : {ArchiveFormat::tar_gzip, ArchiveFormat::tar_zstd, ArchiveFormat::zip}) {
    const Bytes packed = make_archive(files, format);
    for (size_t n = 0; n < packed.size(); ++n) {
      CHECK_THROWS_AS(read({packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(n)}), Error);
    }
  }
}

TEST_CASE("flipped bits are typed errors or change nothing that is read") {
  std::mt19937 random(3);
  const std::vector<ArchiveEntry> files = {{"a", Bytes(3000, std::byte{'q'})}, {"b", bytes_of("more text")}};
  for (const auto format : {ArchiveFormat::tar_gzip, ArchiveFormat::zip}) {
    const Bytes packed = make_archive(files, format);
    for (int round = 0; round < 500; ++round) {
      Bytes damaged = packed;
      damaged[random() % damaged.size()] ^= static_cast<std::byte>(1u << random() % 8);
      try {
        const auto got = read(damaged);
        if (format == ArchiveFormat::tar_gzip) {
          REQUIRE(got.size() == 2);
          CHECK(got[0].bytes == files[0].bytes);
        }
      } catch (const Error&) {
      }
    }
  }
}

TEST_CASE("only portable relative names of plain files are let in") {
  CHECK(read(tar_of("plain")).size() == 2);
  CHECK(read(tar_of("./dir/plain"))[0].name == "dir/plain");
  for (const auto& [entry_name, part] :
       std::vector<std::pair<std::string, std::string>>{{"../up", "\"..\""},
                                                        {"a/../b", "\"..\""},
                                                        {"a/./b", "\".\""},
                                                        {"/etc/passwd", "absolute"},
                                                        {"C:/x", "drive"},
                                                        {"c:x", "drive"},
                                                        {"a\\b", "backslash"},
                                                        {"a\nb", "control"},
                                                        {"a\x7f", "control"},
                                                        {"caf\xc3\xa9", "ASCII"},
                                                        {"a//b", "empty path segment"},
                                                        {"con", "reserved"},
                                                        {"x/NUL.txt", "reserved"},
                                                        {"Com1", "reserved"},
                                                        {"lpt9.log", "reserved"},
                                                        {"a.", "end in a dot"},
                                                        {"a /b", "end in a dot or a space"},
                                                        {" a", "begin with a space"},
                                                        {"a?b", "not allowed"},
                                                        {"a*b", "not allowed"},
                                                        {"a|b", "not allowed"}}) {
    const std::string& name = entry_name;
    CAPTURE(name);
    EXPECT_ERROR(load, part, read(tar_of(name)));
  }
  CHECK_NOTHROW(check_entry_name("con1/com10/comx.txt", "x"));
  EXPECT_ERROR(load, "longer than 255", check_entry_name(std::string(256, 'a'), "x"));
  EXPECT_ERROR(load, "longer than 1024", check_entry_name(std::string(1025, 'a'), "x"));
  EXPECT_ERROR(load, "name is empty", check_entry_name("", "x"));
}

TEST_CASE("names that clash are refused") {
  EXPECT_ERROR(load, "is there twice", read(tar_of("manifest.json")));
  EXPECT_ERROR(load, "differ only in letter case", read(tar_of("Manifest.JSON")));
  EXPECT_ERROR(load, "both a file and a folder", read(tar_of("manifest.json/x")));
  EXPECT_ERROR(load, "both a file and a folder", read(tar_of("manifest.json/", '5', "")));
  CHECK(read(tar_of("folder/", '5', "")).size() == 1);
  CHECK(read(tar_of("./", '5', "")).size() == 1);
}

TEST_CASE("links, devices and pipes are refused by name") {
  EXPECT_ERROR(load, "a symbolic link", read(tar_of("x", '2', "", "/etc/passwd")));
  EXPECT_ERROR(load, "a hard link", read(tar_of("x", '1', "", "manifest.json")));
  EXPECT_ERROR(load, "a device", read(tar_of("x", '3', "")));
  EXPECT_ERROR(load, "a device", read(tar_of("x", '4', "")));
  EXPECT_ERROR(load, "a FIFO", read(tar_of("x", '6', "")));
}

TEST_CASE("checksums, announced sizes and ends are verified") {
  std::string tar;
  append_tar(tar, "a", '0', "contents");
  const std::string end(1024, '\0');
  CHECK(read(gzip(tar + end)).size() == 1);
  EXPECT_ERROR(load, "checksum does not match", read(gzip(tar + end, 1)));
  EXPECT_ERROR(load, "data after the end", read(gzip(tar + end + "more")));
  Bytes trailing = gzip(tar + end);
  trailing.resize(trailing.size() + 1);
  EXPECT_ERROR(load, "checksum does not match", read(trailing));
  std::string lying;
  append_tar(lying, "a", '0', "contents", {}, size_t{1} << 29);
  EXPECT_ERROR(load, "damaged or cut", read(gzip(lying + end)));
  lying.clear();
  append_tar(lying, "a", '0', "contents", {}, size_t{5} << 30);
  EXPECT_ERROR(load, "claims 5368709120 bytes", read(gzip(lying + end)));
  EXPECT_ERROR(load, "holds no files", read(gzip(end)));
}

TEST_CASE("limits on entries, sizes and ratio") {
  const Bytes packed = make_archive(kFiles);
  EXPECT_ERROR(load, "more than 2 entries", read(packed, {.max_entries = 2}));
  EXPECT_ERROR(load, "the limit is 1000", read(packed, {.max_entry_bytes = 1000}));
  EXPECT_ERROR(load, "more than the limit of 50000", read(packed, {.max_total_bytes = 50'000}));
  const Bytes bomb = make_archive({{"zeros", Bytes(size_t{24} << 20)}});
  CHECK(bomb.size() < 100'000);
  EXPECT_ERROR(load, "unpacks to more than 200 times", read(bomb));
  const Bytes zip_bomb = make_archive({{"zeros", Bytes(size_t{24} << 20)}}, ArchiveFormat::zip);
  EXPECT_ERROR(load, "unpacks to more than 200 times", read(zip_bomb));
  const Bytes zstd_bomb = make_archive({{"zeros", Bytes(size_t{24} << 20)}}, ArchiveFormat::tar_zstd);
  EXPECT_ERROR(load, "unpacks to more than 200 times", read(zstd_bomb));
}

TEST_CASE("other containers are refused by name") {
  auto starts = [](std::string_view text) { return bytes_of(std::string(text) + std::string(600, '\0')); };
  EXPECT_ERROR(unsupported, "is xz",
               read(starts(std::string_view("\xfd"
                                            "7zXZ\0",
                                            6))));
  EXPECT_ERROR(unsupported, "an OSD container", read(starts(std::string_view("HLLMEXP\0", 8))));
  EXPECT_ERROR(unsupported, "lz4", read(starts("\x04\x22\x4d\x18")));
  EXPECT_ERROR(unsupported, "7-Zip", read(starts("7z\xbc\xaf\x27\x1c")));
  std::string tar;
  append_tar(tar, "a", '0', "x");
  EXPECT_ERROR(unsupported, "tar without compression", read(bytes_of(tar)));
  EXPECT_ERROR(load, "is no archive", read(bytes_of("hello")));
  EXPECT_ERROR(load, "is no archive", read({}));
  const TempDir dir;
  EXPECT_ERROR(load, "is a directory", read_archive(dir.path()));
  EXPECT_ERROR(load, "No such file", read_archive(dir / "absent"));
}

TEST_CASE("the writer refuses what the reader would") {
  EXPECT_ERROR(load, "absolute", make_archive({{"/a", {}}}));
  EXPECT_ERROR(load, "letter case", make_archive({{"a", {}}, {"A", {}}}));
}
