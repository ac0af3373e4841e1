#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <stop_token>
#include <thread>

#include "core/pages.h"
#include "io/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using test::TempDir;

namespace {

size_t count_files(const std::string& directory) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& item : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}

}  // namespace

TEST_CASE("only regular files are opened, and nothing blocks") {
  const TempDir dir;
  EXPECT_ERROR(load, "No such file", File::open(dir / "absent"));
  EXPECT_ERROR(load, "is a directory, not a file", File::open(dir.path()));
  EXPECT_ERROR(load, "is a character device", File::open("/dev/zero"));
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  EXPECT_ERROR(load, "is a FIFO", File::open(dir / "fifo"));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (dir / "socket").c_str(), sizeof address.sun_path - 1);
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  EXPECT_ERROR(load, "is a socket", File::open(dir / "socket"));
  ::close(fd);
  EXPECT_ERROR(load, "zero byte", File::open(std::string("a\0b", 3)));
  if (::geteuid() != 0) {  // root reads everything
    write_new_file(dir / "secret", as_bytes("x"), 0000);
    EXPECT_ERROR(load, "Permission denied", File::open(dir / "secret"));
  }
}

TEST_CASE("links to files are followed, as model caches have them") {
  const TempDir dir;
  write_file_atomically(dir / "blob", std::string_view("text"));
  std::filesystem::create_symlink(dir / "blob", dir / "link");
  CHECK(read_text_file(dir / "link") == "text");
  CHECK(file_exists(dir / "link"));
}

TEST_CASE("reads are exact or errors") {
  const TempDir dir;
  write_file_atomically(dir / "a", std::string_view("0123456789"));
  const File file = File::open(dir / "a");
  char buffer[10];
  file.read_at(3, buffer, 4);
  CHECK(std::string_view(buffer, 4) == "3456");
  file.read_at(10, buffer, 0);
  EXPECT_ERROR(load, "outside its 10 bytes", file.read_at(8, buffer, 3));
  EXPECT_ERROR(load, "outside its 10 bytes", file.read_at(~uint64_t{0}, buffer, 1));
  EXPECT_ERROR(load, "more than the limit of 9", file.read_all(9));
  CHECK(as_text(file.read_all(10)) == "0123456789");
  CHECK(file.unchanged());
  std::filesystem::resize_file(dir / "a", 5);
  EXPECT_ERROR(load, "was cut while it was read (5 bytes missing)", file.read_at(0, buffer, 10));
  CHECK_FALSE(file.unchanged());
}

TEST_CASE("a replaced file shows in its identity, the open one keeps its bytes") {
  const TempDir dir;
  write_file_atomically(dir / "a", std::string_view("old"));
  const File old = File::open(dir / "a");
  write_file_atomically(dir / "a", std::string_view("new"));
  CHECK(as_text(File::open(dir / "a").read_all(10)) == "new");
  CHECK_FALSE(File::open(dir / "a").identity() == old.identity());
  char buffer[3];
  old.read_at(0, buffer, 3);
  CHECK(std::string_view(buffer, 3) == "old");
}

TEST_CASE("atomic writes leave no temporary files") {
  const TempDir dir;
  write_file_atomically(dir / "a", std::string_view("1"));
  write_file_atomically(dir / "a", std::string_view("2"));
  CHECK(read_text_file(dir / "a") == "2");
  CHECK(count_files(dir.path()) == 1);
  std::filesystem::create_directory(dir / "folder");
  EXPECT_ERROR(load, "cannot replace", write_file_atomically(dir / "folder", std::string_view("x")));
  EXPECT_ERROR(load, "cannot create", write_file_atomically(dir / "absent/a", std::string_view("x")));
  EXPECT_ERROR(load, "cannot create", write_new_file(dir / "a", as_bytes("x")));
  CHECK(count_files(dir.path()) == 2);
}

TEST_CASE("a full disk keeps the old file and leaves nothing behind") {
  const TempDir dir;
  write_file_atomically(dir / "a", std::string_view("old"));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Bytes big(100'000);
  EXPECT_ERROR(load, "cannot write", write_file_atomically(dir / "a", big));
  EXPECT_ERROR(load, "cannot write", write_new_file(dir / "b", big));
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(read_text_file(dir / "a") == "old");
  CHECK(count_files(dir.path()) == 1);
}

TEST_CASE("mapped cache files") {
  const TempDir dir;
  write_file_atomically(dir / "a", std::string_view("mapped"));
  write_file_atomically(dir / "empty", std::string_view());
  MappedFile file = MappedFile::open(dir / "a");
  CHECK(as_text(file.bytes()) == "mapped");
  CHECK(reinterpret_cast<uintptr_t>(file.bytes().data()) % kHugePage == 0);
  file = MappedFile::open(dir / "empty");
  CHECK(file.bytes().empty());
  for (const size_t size : {size_t{4096}, size_t{4097}, kHugePage, kHugePage + 1}) {
    Bytes bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 % 251);
    write_file_atomically(dir / "b", bytes);
    const MappedFile mapped = MappedFile::open(dir / "b");
    CHECK(reinterpret_cast<uintptr_t>(mapped.bytes().data()) % kHugePage == 0);
    CHECK(std::ranges::equal(mapped.bytes(), bytes));
  }
  EXPECT_ERROR(load, "is a directory", MappedFile::open(dir.path()));
}

TEST_CASE("huge pages of a mapped file are restored while others read it") {
  const TempDir dir;
  Bytes bytes(8 * kHugePage + 4321);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 % 251);
  write_file_atomically(dir / "large", bytes);
  const MappedFile mapped = MappedFile::open(dir / "large");
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::atomic<int> passes{0};
  std::thread reader([&] {
    while (!done || passes == 0) {
      wrong += std::memcmp(mapped.bytes().data(), bytes.data(), bytes.size()) == 0 ? 0 : 1;
      ++passes;
    }
  });
  while (passes == 0) std::this_thread::yield();
  for (int i = 0; i < 3; ++i) restore_huge_pages(mapped.bytes(), {});
  done = true;
  reader.join();
  CHECK(wrong == 0);
  CHECK(std::ranges::equal(mapped.bytes(), bytes));

  std::stop_source stopped;
  stopped.request_stop();
  restore_huge_pages(mapped.bytes(), stopped.get_token());
  CHECK_FALSE(restore_huge_pages(mapped.bytes().first(100), {}));  // no whole piece
  CHECK_FALSE(restore_huge_pages({}, {}));
  CHECK(std::ranges::equal(mapped.bytes(), bytes));
}

TEST_CASE("paths") {
  CHECK(join_path("a", "b") == "a/b");
  CHECK(join_path("a/", "b") == "a/b");
  CHECK(join_path("", "b") == "b");
  CHECK(last_segment("/x/Qwen3-0.6B/") == "Qwen3-0.6B");
  CHECK(last_segment("F:\\models\\Qwen3-0.6B") == "Qwen3-0.6B");
  CHECK(last_segment("name") == "name");
  CHECK(last_segment("/") == "");
}
