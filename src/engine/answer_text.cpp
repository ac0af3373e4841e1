#include "engine/answer_text.h"

#include "core/strings.h"

namespace expert {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndOfThink = "</think>";

}  // namespace

AnswerText::AnswerText(std::shared_ptr<const Tokenizer> tokenizer, std::vector<std::string> stops)
    : tokenizer_(std::move(tokenizer)), stream_(tokenizer_, /*skip_special=*/true), stops_(std::move(stops)) {}

std::string AnswerText::push(int32_t token) {
  // A configuration may pad the vocabulary with rows that no token has; they have no text.
  if (!tokenizer_->has_id(token)) return {};
  return release(stops_.push(stream_.push(token)));
}

std::string AnswerText::finish() {
  std::string piece = stops_.push(stream_.flush());
  piece += stops_.finish();
  return release(std::move(piece));
}

std::string AnswerText::release(std::string piece) {
  text_ += piece;
  return piece;
}

std::string output_of(std::string_view text, bool inside_think) {
  text = trimmed(text);
  if (text.starts_with(kThink)) inside_think = true;
  if (!inside_think) return std::string(text);
  const size_t end = text.find(kEndOfThink);
  if (end == std::string_view::npos) return {};
  return std::string(trimmed(text.substr(end + kEndOfThink.size())));
}

}  // namespace expert
