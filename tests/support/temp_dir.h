// A folder that lives as long as the test.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

namespace expert::test {

class TempDir {
 public:
  TempDir() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() / fmt::format("expert-test-{:08x}{:08x}", random(), random());
    std::filesystem::create_directories(path_);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// Waits until the times of a file that was written before tell its states apart.
inline void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(150)); }

}  // namespace expert::test
