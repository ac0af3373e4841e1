#include "camel.h"

#include <algorithm>

namespace expert_node {

namespace {

// Behind the closing quote of the string that begins at `begin`.
size_t end_of_string(std::string_view json, size_t begin) {
  size_t at = begin + 1;
  while (at < json.size() && json[at] != '"') at += json[at] == '\\' ? 2 : 1;
  return at + 1;
}

void add_key(std::string& out, std::string_view key) {
  for (size_t i = 0; i < key.size(); ++i) {
    const char next = i + 1 < key.size() ? key[i + 1] : '\0';
    const bool letter = next >= 'a' && next <= 'z';
    if (key[i] != '_' || (!letter && !(next >= '0' && next <= '9'))) {
      out += key[i];
    } else {
      out += letter ? static_cast<char>(next - 'a' + 'A') : next;
      ++i;
    }
  }
}

}  // namespace

std::string camel_keys(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  size_t at = 0;
  while (at < json.size()) {
    const size_t quote = std::min(json.find('"', at), json.size());
    out += json.substr(at, quote - at);
    if (quote == json.size()) break;
    at = std::min(end_of_string(json, quote), json.size());
    const std::string_view text = json.substr(quote, at - quote);
    if (at < json.size() && json[at] == ':') {
      add_key(out, text);
    } else {
      out += text;
    }
  }
  return out;
}

}  // namespace expert_node
