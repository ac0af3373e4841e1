// Prompts and keywords as sequences of words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace expert {

struct Word {
  std::string text;      // folded to lower case
  bool follows = false;  // nothing but white space or a hyphen stands between it and the word before
};

// Runs of letters, digits and underscores; "c++" and "c#" keep their signs; in scripts written without spaces (Han,
// kana) every character is a word. Bytes that are not UTF-8 separate words.
std::vector<Word> split_words(std::string_view text);

}  // namespace expert
