#include <algorithm>
#include <array>
#include <map>

#include "core/error.h"
#include "io/archive.h"

namespace expert {
namespace {

constexpr size_t kMaxSegment = 255;
constexpr size_t kMaxName = 1024;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

// Names Windows gives to devices, with any extension.
bool is_reserved(std::string_view segment) {
  static constexpr std::array<std::string_view, 8> kDevices = {"con",    "prn",     "aux", "nul",
                                                               "conin$", "conout$", "com", "lpt"};
  std::string stem = lower(segment.substr(0, segment.find('.')));
  while (stem.ends_with(' ')) stem.pop_back();
  if (stem.size() == 4 && stem.back() >= '0' && stem.back() <= '9') {
    return stem.starts_with("com") || stem.starts_with("lpt");
  }
  return std::find(kDevices.begin(), kDevices.begin() + 6, stem) != kDevices.begin() + 6;
}

// Printable form for messages: hostile names shall not reach a terminal as they are.
std::string in_quotes(std::string_view name) {
  std::string result = "\"";
  for (const char c : name.substr(0, 120)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else {
      result += c;
    }
  }
  return result + (name.size() > 120 ? "…\"" : "\"");
}

std::string_view wrong_character(std::string_view name) {
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return "control characters are not allowed";
    if (byte >= 0x80) return "only ASCII names mean the same file on every system";
    if (c == '\\') return "backslashes are not allowed";
    if (c == ':') return "drive letters and colons are not allowed";
    if (std::string_view("<>\"|?*").find(c) != std::string_view::npos) return "<>\"|?* are not allowed";
  }
  return {};
}

std::string_view wrong_segment(std::string_view segment) {
  if (segment.empty()) return "empty path segments are not allowed";
  if (segment == "." || segment == "..") return "\".\" and \"..\" are not allowed";
  if (segment.back() == '.' || segment.back() == ' ') return "segments must not end in a dot or a space";
  if (segment.front() == ' ') return "segments must not begin with a space";
  if (segment.size() > kMaxSegment) return "a segment is longer than 255 bytes";
  if (is_reserved(segment)) return "the name is reserved on Windows";
  return {};
}

std::string_view wrong_name(std::string_view name) {
  if (name.empty()) return "the name is empty";
  if (name.size() > kMaxName) return "the name is longer than 1024 bytes";
  if (name.front() == '/') return "absolute paths are not allowed";
  if (const std::string_view wrong = wrong_character(name); !wrong.empty()) return wrong;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (const std::string_view wrong = wrong_segment(name.substr(begin, end - begin)); !wrong.empty()) return wrong;
    begin = end + 1;
  }
  return {};
}

}  // namespace

void check_entry_name(std::string_view name, std::string_view source) {
  if (const std::string_view wrong = wrong_name(name); !wrong.empty()) {
    fail(ErrorCode::load, "{}: entry {}: {}", source, in_quotes(name), wrong);
  }
}

void check_entry_names_together(const std::vector<std::string>& names, std::string_view source) {
  std::map<std::string, std::string_view> seen;  // lower case → as given
  for (const std::string& name : names) {
    const auto [at, added] = seen.try_emplace(lower(name), name);
    if (added) continue;
    if (at->second == name) fail(ErrorCode::load, "{}: entry {} is there twice", source, in_quotes(name));
    fail(ErrorCode::load, "{}: entries {} and {} differ only in letter case", source, in_quotes(at->second), in_quotes(name));
  }
  for (const auto& [folded, name] : seen) {
    for (size_t slash = folded.find('/'); slash != std::string::npos; slash = folded.find('/', slash + 1)) {
      if (const auto file = seen.find(folded.substr(0, slash)); file != seen.end()) {
        fail(ErrorCode::load, "{}: entry {} is both a file and a folder", source, in_quotes(file->second));
      }
    }
  }
}

}  // namespace expert
