#include "packages/semver.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/error.h"

namespace expert {
namespace {

constexpr size_t kMaxLength = 64;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_numeric(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), is_digit); }

bool is_identifier(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
  });
}

// Numbers without leading zeros that fit 64 bits.
std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  if (!is_numeric(text) || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::optional<Version> try_parse(std::string_view text) {
  if (text.size() > kMaxLength) return std::nullopt;
  Version version;
  if (const size_t plus = text.find('+'); plus != std::string_view::npos) {
    version.build = text.substr(plus + 1);
    for (const std::string_view part : split(version.build, '.')) {
      if (!is_identifier(part)) return std::nullopt;
    }
    text = text.substr(0, plus);
  }
  if (const size_t dash = text.find('-'); dash != std::string_view::npos) {
    for (const std::string_view part : split(text.substr(dash + 1), '.')) {
      if (!is_identifier(part) || (is_numeric(part) && !parse_number(part))) return std::nullopt;
      version.prerelease.emplace_back(part);
    }
    text = text.substr(0, dash);
  }
  const std::vector<std::string_view> core = split(text, '.');
  if (core.size() != 3) return std::nullopt;
  const auto major = parse_number(core[0]), minor = parse_number(core[1]), patch = parse_number(core[2]);
  if (!major || !minor || !patch) return std::nullopt;
  version.major = *major, version.minor = *minor, version.patch = *patch;
  return version;
}

// Numbers by value and before words; words by bytes.
std::weak_ordering compare_identifiers(const std::string& a, const std::string& b) {
  const auto x = parse_number(a), y = parse_number(b);
  if (x && y) return *x <=> *y;
  if (x || y) return x ? std::weak_ordering::less : std::weak_ordering::greater;
  return a <=> b;
}

}  // namespace

Version Version::parse(std::string_view text, std::string_view source) {
  std::optional<Version> version = try_parse(text);
  if (!version) {
    fail(ErrorCode::manifest, "{}: \"{}\" is no semantic version such as 1.2.3", source, text.substr(0, kMaxLength));
  }
  return *version;
}

bool Version::valid(std::string_view text) { return try_parse(text).has_value(); }

std::string Version::str() const {
  std::string text = fmt::format("{}.{}.{}", major, minor, patch);
  if (!prerelease.empty()) text += fmt::format("-{}", fmt::join(prerelease, "."));
  return build.empty() ? text : text + "+" + build;
}

std::weak_ordering Version::operator<=>(const Version& other) const {
  if (const auto order = major <=> other.major; order != 0) return order;
  if (const auto order = minor <=> other.minor; order != 0) return order;
  if (const auto order = patch <=> other.patch; order != 0) return order;
  if (prerelease.empty() || other.prerelease.empty()) return other.prerelease.size() <=> prerelease.size();
  for (size_t i = 0; i < std::min(prerelease.size(), other.prerelease.size()); ++i) {
    if (const auto order = compare_identifiers(prerelease[i], other.prerelease[i]); order != 0) return order;
  }
  return prerelease.size() <=> other.prerelease.size();
}

}  // namespace expert
