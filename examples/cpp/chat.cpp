// A chat: every line of standard input is a turn, the answer streams to standard output.
#include <cstdio>
#include <expert/expert.hpp>
#include <iostream>
#include <string>

namespace {

// The text as a JSON string, so that a user's words stay words.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\' || byte < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string message(const std::string& role, const std::string& text) {
  return "{\"role\":\"" + role + "\",\"content\":" + quoted(text) + "}";
}

}  // namespace

int main() try {
  const expert::Engine engine;
  std::string messages;
  std::string line;
  while (std::getline(std::cin, line)) {
    messages += (messages.empty() ? "" : ",") + message("user", line);
    std::string text;
    expert::Stream answer = engine.stream({.messages = "[" + messages + "]",
                                           .experts = std::vector<expert::Use>(),  // the base alone
                                           .max_tokens = 48,
                                           .special_in_text = false});
    for (const expert::Chunk& chunk : answer) {
      std::cout << chunk.text() << std::flush;
      text += chunk.text();
    }
    std::cout << "\n";
    messages += "," + message("assistant", text);
  }
} catch (const expert::Error& error) {
  std::cerr << "error: " << error.what() << "\n  hint: " << error.hint() << "\n";
  return 1;
}
