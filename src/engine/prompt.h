// From what a caller said to the token ids of a prompt: where schema and body go, which template renders it, and which
// characters of it may be special tokens.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "engine/request.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace expert {

// How prompts of one expert look (manifest prompt_template, spelled in many ways).
enum class PromptFormat : uint8_t {
  model,   // the model's own chat template; without one the prompt stays raw
  chatml,  // the same, and ChatML where the model has none
  alpaca,  // ### Instruction: / ### Input: / ### Response:
  llama2,  // [INST] … [/INST]
  raw,     // no template
};

// `model_type` is config.json's: a template named like the model's own family is the model's own. Throws unsupported
// for one that is not built, by name.
PromptFormat prompt_format(std::string_view name, std::string_view model_type, const std::string& expert);

struct PromptOptions {
  PromptFormat format = PromptFormat::model;
  std::string dialect;  // of the leading expert's answers; stands before the schema
};

struct EncodedPrompt {
  std::vector<int32_t> ids;
  std::string text;           // as rendered
  std::string format;         // what `plan` calls it
  bool inside_think = false;  // ends within an open think block
};

// Immutable; thread-safe.
class PromptBuilder {
 public:
  // `chat_template` may be null.
  PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const ChatTemplate> chat_template);

  // Throws invalid_request (empty prompt, malformed messages, what the template raises), unsupported.
  EncodedPrompt encode(const Request& request, const PromptOptions& options) const;
  // The text a router looks at: the prompt, or the last user message.
  static std::string routing_text(const Request& request);

 private:
  EncodedPrompt encode_chat(const Request& request, const PromptOptions& options) const;
  EncodedPrompt encode_plain(std::string text, const char* format, const Request& request) const;
  std::string render(const Json& messages, const Request& request) const;
  std::vector<int32_t> encode_rendered(std::string_view rendered, std::string_view shield) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_template_;
  std::vector<std::string> special_tokens_;  // longest first
};

}  // namespace expert
