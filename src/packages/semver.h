// Semantic versions (semver.org 2.0.0): parsing and precedence.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace expert {

struct Version {
  uint64_t major = 0, minor = 0, patch = 0;
  std::vector<std::string> prerelease;  // dot-separated identifiers; empty for a release
  std::string build;                    // ignored by precedence

  // ErrorCode::manifest when `text` is not a version; at most 64 characters, so that it can be a folder name.
  static Version parse(std::string_view text, std::string_view source = "version");
  static bool valid(std::string_view text);
  std::string str() const;
  // Precedence as in semver 2.0.0 §11, build metadata ignored.
  std::weak_ordering operator<=>(const Version& other) const;
  bool operator==(const Version& other) const { return (*this <=> other) == 0; }
};

}  // namespace expert
