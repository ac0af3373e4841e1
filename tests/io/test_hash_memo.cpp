#include <doctest/doctest.h>
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "io/hash_memo.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;

TEST_CASE("files changed a moment ago are not remembered") {
  const TempDir dir;
  HashMemo memo;
  FileIdentity identity;
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  identity.mtime_ns = identity.ctime_ns = now;
  CHECK(memo_key("test", {{"a", identity}}).empty());
  identity.mtime_ns = now - 1'000'000'000;
  CHECK(memo_key("test", {{"a", identity}}).empty());
  identity.ctime_ns = identity.mtime_ns;
  CHECK(memo_key("test", {{"a", identity}}).size() == 64);
  CHECK(memo_key("test", {}).empty());
  memo.record("", std::string(64, 'a'));
  memo.record(std::string(64, 'b'), "no hash");
  CHECK(memo.find("").empty());
  CHECK(memo.find(std::string(64, 'b')).empty());
}

TEST_CASE("a damaged memo, or one that cannot be written, costs only its saving") {
  const TempDir dir;
  const std::string key(64, 'c');
  create_directories(dir / "memo");
  write_file_atomically(dir / "memo/" + key, std::string_view("cut"));
  HashMemo memo(dir / "memo");
  CHECK(memo.find(key).empty());
  memo.record(key, std::string(64, 'd'));
  CHECK(memo.find(key) == std::string(64, 'd'));
  CHECK(HashMemo(dir / "memo").find(key) == std::string(64, 'd'));
  write_file_atomically(dir / "file", std::string_view("x"));
  HashMemo nowhere(dir / "file/below");
  nowhere.record(key, std::string(64, 'd'));
  CHECK(nowhere.find(key) == std::string(64, 'd'));
}

TEST_CASE("a memo on disk does not grow for ever: the older half goes") {
  const TempDir dir;
  const std::filesystem::path folder = std::filesystem::path(dir.path()) / "memo";
  std::filesystem::create_directories(folder);
  const auto hour_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(1);
  constexpr int kEarlier = 4100;
  for (int i = 0; i < kEarlier; ++i) {
    const std::filesystem::path file = folder / fmt::format("{:064x}", i + 1);
    std::ofstream(file) << std::string(64, 'a');
    std::filesystem::last_write_time(file, hour_ago + std::chrono::milliseconds(i));
  }
  const auto count = [&] { return std::distance(std::filesystem::directory_iterator(folder), {}); };
  HashMemo memo(folder.string());
  memo.record(std::string(63, 'b') + "1", std::string(64, 'c'));
  CHECK(count() == kEarlier + 1);
  const std::string key = std::string(62, 'd') + "00";
  memo.record(key, std::string(64, 'c'));
  CHECK(count() == 2048);
  const HashMemo later(folder.string());
  CHECK(later.find(key) == std::string(64, 'c'));
  CHECK(later.find(fmt::format("{:064x}", kEarlier)) == std::string(64, 'a'));
  CHECK(later.find(fmt::format("{:064x}", 1)).empty());
}
