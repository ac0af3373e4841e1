// Hashes by the identity of the files they were taken of (device, inode, size, times): files that nobody touched since
// they were last read through are not read through again. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/file.h"

namespace expert {

class HashMemo {
 public:
  // Files in `directory` (created when needed) keep the memo between processes, some thousands at most; empty: this process
  // only. An entry that cannot be read or written is only a lost saving.
  explicit HashMemo(std::string directory = {}) : directory_(std::move(directory)) {}

  // The hash recorded under this key, else empty.
  std::string find(const std::string& key) const;
  void record(const std::string& key, const std::string& hash);

 private:
  std::string directory_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::string> known_;
};

// The key of `what` is hashed of these files, by name and identity as they were opened; empty where one of them changed
// so short a time before that a later change could leave the same times, and where there are none.
std::string memo_key(std::string_view what, const std::vector<std::pair<std::string, FileIdentity>>& files);

}  // namespace expert
