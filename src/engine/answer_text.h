// From generated ids to the text of an answer: detokenised, cut at stop strings, never in the middle of a character.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/stop_matcher.h"
#include "text/tokenizer.h"

namespace expert {

class AnswerText {
 public:
  AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops);

  // The text that became certain with this token.
  std::string push(int32_t token);
  // What was still held back.
  std::string finish();
  // A stop string was found: the text ends before it.
  bool stopped() const noexcept { return stops_.found(); }
  const std::string& text() const noexcept { return text_; }

 private:
  std::string release(std::string piece);

  std::shared_ptr<const Tokenizer> tokenizer_;
  TokenStream stream_;
  StopMatcher stops_;
  std::string text_;
};

// `text` without a leading think block and outer blank space. `inside_think`: the prompt itself opened the block.
// A block that never ends leaves nothing.
std::string output_of(std::string_view text, bool inside_think);

}  // namespace expert
