#include "io/hash_memo.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "core/error.h"
#include "io/sha256.h"

namespace expert {
namespace {

constexpr size_t kMostRemembered = 4096;  // in memory, and about as many on disk
constexpr int64_t kSettledNs = 100'000'000;  // file times advance in steps of up to 10 ms

bool is_hash(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

int64_t now_ns() {
  using std::chrono::duration_cast;
  return duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Without waiting for the disk: whatever a crash leaves behind that is no hash counts as nothing.
void write_quickly(const std::string& directory, const std::string& key, const std::string& hash) {
  static std::atomic<uint64_t> counter{0};
  try {
    create_directories(directory);
  } catch (const Error&) {
    return;
  }
  const std::string temporary = join_path(directory, fmt::format(".{}.{}.tmp", ::getpid(), counter++));
  std::error_code error;
  std::ofstream file(temporary, std::ios::binary);
  file << hash;
  file.close();
  if (file) std::filesystem::rename(temporary, join_path(directory, key), error);
  if (!file || error) std::filesystem::remove(temporary, error);
}

// Of too many files in the memo's folder, the older half goes: states that no file has any more are never asked for again,
// and nothing else tells them. Looked at once in 256 keys, which are hashes.
void prune(const std::string& directory, const std::string& key) {
  if (!key.ends_with("00")) return;
  std::error_code error;
  std::vector<std::pair<std::filesystem::file_time_type, std::filesystem::path>> files;
  std::filesystem::directory_iterator item(directory, error);
  for (; !error && item != std::filesystem::directory_iterator(); item.increment(error)) {
    const auto written = item->last_write_time(error);
    if (!error) files.emplace_back(written, item->path());
    error.clear();  // another process took it away
  }
  if (files.size() <= kMostRemembered) return;
  const auto keep = files.begin() + static_cast<std::ptrdiff_t>(files.size() - kMostRemembered / 2);
  std::nth_element(files.begin(), keep, files.end());
  for (auto file = files.begin(); file != keep; ++file) std::filesystem::remove(file->second, error);
}

}  // namespace

std::string HashMemo::find(const std::string& key) const {
  if (key.empty()) return {};
  const std::lock_guard lock(mutex_);
  if (const auto known = known_.find(key); known != known_.end()) return known->second;
  if (directory_.empty()) return {};
  try {
    const std::string path = join_path(directory_, key);
    std::string hash = file_exists(path) ? read_text_file(path, 64) : std::string();
    if (!is_hash(hash)) return {};
    known_[key] = hash;
    return hash;
  } catch (const Error&) {
    return {};
  }
}

void HashMemo::record(const std::string& key, const std::string& hash) {
  if (key.empty() || !is_hash(hash)) return;
  {
    const std::lock_guard lock(mutex_);
    if (known_.size() >= kMostRemembered) known_.clear();
    if (!known_.emplace(key, hash).second || directory_.empty()) return;
  }
  write_quickly(directory_, key, hash);
  prune(directory_, key);
}

std::string memo_key(std::string_view what, const std::vector<std::pair<std::string, FileIdentity>>& files) {
  if (files.empty()) return {};
  Sha256 key;
  key.update_framed(what);
  const int64_t settled = now_ns() - kSettledNs;
  for (const auto& [name, identity] : files) {
    if (std::max(identity.mtime_ns, identity.ctime_ns) > settled) return {};
    key.update_framed(name).update_number(identity.device).update_number(identity.inode).update_number(identity.size);
    key.update_number(static_cast<uint64_t>(identity.mtime_ns)).update_number(static_cast<uint64_t>(identity.ctime_ns));
  }
  return key.finish_hex();
}

}  // namespace expert
