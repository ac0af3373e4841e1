#include "engine/prompt.h"

#include <algorithm>

#include "core/error.h"
#include "core/strings.h"

namespace expert {
namespace {

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error(ErrorCode::invalid_request, std::move(message), std::move(hint));
}

bool one_of(std::string_view value, std::initializer_list<std::string_view> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

std::string joined(std::initializer_list<std::string_view> paragraphs) {
  std::string text;
  for (const std::string_view paragraph : paragraphs) {
    if (paragraph.empty()) continue;
    if (!text.empty()) text += "\n\n";
    text += paragraph;
  }
  return text;
}

std::string schema_text(const Request& request, const PromptOptions& options) {
  if (request.schema.empty()) return {};
  const std::string dialect = options.dialect.empty() ? "" : "Dialect: " + options.dialect + "\n";
  return dialect + "Schema:\n" + request.schema;
}

// --- messages --------------------------------------------------------------------------------------------------------

bool has_role(const Json& message, const char* role) {
  const auto found = message.find("role");
  return found != message.end() && found->is_string() && found->get_ref<const std::string&>() == role;
}

std::string* text_of(Json& message) {
  const auto content = message.find("content");
  return content != message.end() && content->is_string() ? content->get_ptr<std::string*>() : nullptr;
}

void check_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) refuse("messages must be a list with at least one message");
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!message.is_object()) refuse(fmt::format("messages[{}] must be an object with role and content", i));
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) refuse(fmt::format("messages[{}]: role must be a string", i));
  }
}

void check_request(const Request& request) {
  const bool has_messages = !request.messages.is_null();
  if (has_messages && !request.prompt.empty()) refuse("give either prompt or messages, not both");
  if (!has_messages && request.prompt.empty()) refuse("the prompt is empty");
  if (has_messages) check_messages(request.messages);
  if (!request.tools.is_null() && !request.tools.is_array()) refuse("tools must be a list");
  if (!request.template_variables.is_null() && !request.template_variables.is_object()) {
    refuse("template variables must be an object");
  }
}

// Where there is no chat template there is no place for these.
void check_plain(const Request& request, const char* why) {
  const auto check = [&](const Json& value, const char* name) {
    if (!value.is_null()) refuse(fmt::format("{} needs a chat template: {}", name, why), "give a prompt");
  };
  check(request.messages, "messages");
  check(request.tools, "tools");
  check(request.template_variables, "template variables");
}

void add_schema(Json& messages, const std::string& schema) {
  if (schema.empty()) return;
  if (!has_role(messages.front(), "system")) {
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", schema}});
    return;
  }
  std::string* system = text_of(messages.front());
  if (system == nullptr) refuse("schema needs a system message whose content is text");
  *system = joined({schema, *system});
}

void add_body(Json& messages, const std::string& body) {
  if (body.empty()) return;
  for (size_t i = messages.size(); i-- > 0;) {
    if (!has_role(messages[i], "user")) continue;
    std::string* text = text_of(messages[i]);
    if (text == nullptr) refuse("body needs a last user message whose content is text");
    *text = joined({*text, body});
    return;
  }
  refuse("body needs a user message");
}

Json messages_of(const Request& request, const PromptOptions& options) {
  Json messages = request.messages;
  if (messages.is_null()) messages = Json::array({Json{{"role", "user"}, {"content", request.prompt}}});
  add_schema(messages, schema_text(request, options));
  add_body(messages, request.body);
  return messages;
}

std::string chatml_text(const Json& messages) {
  std::string text;
  for (Json message : messages) {
    const std::string* content = text_of(message);
    if (content == nullptr) refuse("the chatml layout takes messages whose content is text");
    text += "<|im_start|>" + message["role"].get<std::string>() + "\n" + *content + "<|im_end|>\n";
  }
  return text + "<|im_start|>assistant\n";
}

std::string alpaca_text(const Request& request, const PromptOptions& options) {
  const std::string input = joined({schema_text(request, options), request.body});
  return "### Instruction:\n" + request.prompt + (input.empty() ? "" : "\n\n### Input:\n" + input) +
         "\n\n### Response:\n";
}

std::string llama2_text(const Request& request, const PromptOptions& options) {
  const std::string system = schema_text(request, options);
  return "[INST] " + (system.empty() ? "" : "<<SYS>>\n" + system + "\n<</SYS>>\n\n") +
         joined({request.prompt, request.body}) + " [/INST]";
}

// --- text that must not become special tokens ------------------------------------------------------------------------

// Whether a special token could begin at text[at]: it is there whole, or begins and is cut off by the end of the text,
// where a template may put it next to another one (blanks at the end do not count: templates strip them).
bool may_begin_special(std::string_view text, size_t at, const std::vector<std::string>& special_tokens) {
  const size_t end = text.find_last_not_of(" \t\r\n") + 1;
  for (const std::string& token : special_tokens) {
    const std::string_view whole = text.substr(at, token.size());
    if (whole == token) return true;
    if (at < end && end - at < token.size() &&
        text.substr(at, end - at) == std::string_view(token).substr(0, end - at)) {
      return true;
    }
  }
  return false;
}

size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Puts `shield` behind the first character of everything in `text` that may begin a special token.
std::string shielded(std::string_view text, std::string_view shield, const std::vector<std::string>& special_tokens) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::min(character_length(text[at]), text.size() - at);
    result += text.substr(at, length);
    if (may_begin_special(text, at, special_tokens)) result += shield;
    at += length;
  }
  return result;
}

void for_each_string(Json& value, const std::function<void(std::string&)>& visit) {
  if (value.is_string()) return visit(value.get_ref<std::string&>());
  if (value.is_object()) {
    Json rebuilt = Json::object();
    for (auto& [key, child] : value.items()) {
      std::string visited_key = key;
      visit(visited_key);
      for_each_string(child, visit);
      rebuilt[visited_key] = std::move(child);
    }
    value = std::move(rebuilt);
  } else if (value.is_array()) {
    for (Json& child : value) for_each_string(child, visit);
  }
}

// A noncharacter (U+FDD0 … U+FDEF) that stands nowhere in the texts: no tokenizer, template or user means anything by
// it.
std::string choose_shield(const std::vector<Json*>& values) {
  std::string all;
  for (Json* value : values) for_each_string(*value, [&](std::string& text) { all += text; });
  for (unsigned char last = 0x90; last <= 0xAF; ++last) {
    const std::string shield = {'\xEF', '\xB7', static_cast<char>(last)};
    if (all.find(shield) == std::string::npos) return shield;
  }
  refuse("the prompt holds every Unicode noncharacter from U+FDD0 to U+FDEF");
}

std::string without(std::string_view text, std::string_view removed) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t next = std::min(text.find(removed, at), text.size());
    result += text.substr(at, next - at);
    at = next + (next < text.size() ? removed.size() : 0);
  }
  return result;
}

}  // namespace

PromptFormat prompt_format(std::string_view name, std::string_view model_type, const std::string& expert) {
  const std::string wanted = lower_ascii(name);
  if (one_of(wanted, {"", "default", "auto", "custom"})) return PromptFormat::model;
  if (one_of(wanted, {"chatml", "qwen", "qwen2", "qwen2.5", "qwen3"})) return PromptFormat::chatml;
  if (wanted == "alpaca") return PromptFormat::alpaca;
  if (one_of(wanted, {"llama2", "llama-2"})) return PromptFormat::llama2;
  if (one_of(wanted, {"raw", "none"})) return PromptFormat::raw;
  if (!model_type.empty() && wanted.starts_with(lower_ascii(model_type))) return PromptFormat::model;
  throw Error(ErrorCode::unsupported, fmt::format("{}: prompt_template \"{}\" is not supported", expert, name),
              "supported: chatml and the qwen family, alpaca, llama2, raw, and the base model's own family");
}

PromptBuilder::PromptBuilder(std::shared_ptr<const Tokenizer> tokenizer,
                             std::shared_ptr<const ChatTemplate> chat_template)
    : tokenizer_(std::move(tokenizer)), chat_template_(std::move(chat_template)) {
  for (int32_t id = 0; id < tokenizer_->size(); ++id) {
    if (tokenizer_->is_special(id)) special_tokens_.emplace_back(tokenizer_->token(id));
  }
  std::sort(special_tokens_.begin(), special_tokens_.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
}

std::string PromptBuilder::routing_text(const Request& request) {
  if (!request.messages.is_array()) return request.prompt;
  for (size_t i = request.messages.size(); i-- > 0;) {
    Json message = request.messages[i];
    if (!message.is_object() || !has_role(message, "user")) continue;
    if (const std::string* text = text_of(message)) return *text;
  }
  return {};
}

EncodedPrompt PromptBuilder::encode(const Request& request, const PromptOptions& options) const {
  check_request(request);
  EncodedPrompt prompt;
  if (request.raw || options.format == PromptFormat::raw) {
    check_plain(request, request.raw ? "raw was asked for" : "the expert's prompt_template is raw");
    prompt = encode_plain(joined({schema_text(request, options), request.prompt, request.body}), "raw", request);
  } else if (options.format == PromptFormat::alpaca) {
    check_plain(request, "the expert's prompt_template is alpaca");
    prompt = encode_plain(alpaca_text(request, options), "alpaca", request);
  } else if (options.format == PromptFormat::llama2) {
    check_plain(request, "the expert's prompt_template is llama2");
    prompt = encode_plain(llama2_text(request, options), "llama2", request);
  } else if (chat_template_ == nullptr && options.format == PromptFormat::model) {
    check_plain(request, "the model has none");
    prompt = encode_plain(joined({schema_text(request, options), request.prompt, request.body}), "raw", request);
  } else {
    prompt = encode_chat(request, options);
  }
  if (prompt.ids.empty()) refuse("the prompt is empty");
  const std::string_view text = prompt.text;
  const size_t last = text.find_last_not_of(" \t\r\n");
  prompt.inside_think = last != std::string_view::npos && text.substr(0, last + 1).ends_with("<think>");
  return prompt;
}

EncodedPrompt PromptBuilder::encode_plain(std::string text, const char* format, const Request& request) const {
  EncodedPrompt prompt;
  prompt.ids = tokenizer_->encode(text, {request.special_in_text, /*add_post_processor=*/true});
  prompt.text = std::move(text);
  prompt.format = format;
  return prompt;
}

EncodedPrompt PromptBuilder::encode_chat(const Request& request, const PromptOptions& options) const {
  if (chat_template_ == nullptr && !tokenizer_->id_of("<|im_start|>")) {
    throw Error(ErrorCode::incompatible,
                "the expert's prompt_template is chatml, but the model has neither a chat "
                "template nor the token <|im_start|>",
                "use another base model, or raw");
  }
  EncodedPrompt prompt;
  prompt.format = chat_template_ != nullptr ? "chat_template" : "chatml";
  Json messages = messages_of(request, options);
  if (request.special_in_text) {
    prompt.text = render(messages, request);
    prompt.ids = tokenizer_->encode(prompt.text);
    return prompt;
  }

  Request shielded_request;
  shielded_request.tools = request.tools;
  shielded_request.template_variables = request.template_variables;
  const std::vector<Json*> values = {&messages, &shielded_request.tools, &shielded_request.template_variables};
  const std::string shield = choose_shield(values);
  for (Json* value : values) {
    for_each_string(*value, [&](std::string& text) { text = shielded(text, shield, special_tokens_); });
  }
  prompt.text = render(messages, shielded_request);
  prompt.ids = encode_rendered(prompt.text, shield);
  prompt.text = without(prompt.text, shield);
  return prompt;
}

std::string PromptBuilder::render(const Json& messages, const Request& request) const {
  if (chat_template_ == nullptr) {
    if (!request.tools.is_null() || !request.template_variables.is_null()) {
      refuse("tools and template variables need a chat template: the model has none");
    }
    return chatml_text(messages);
  }
  ChatTemplate::Options options;
  options.tools = request.tools;
  options.variables = request.template_variables;
  return chat_template_->render(messages, options);
}

// Special tokens that are whole here were written by the template. What stands between them is plain text once its
// shields are gone. Without a shield anywhere the text is encoded in one piece, as Transformers would.
std::vector<int32_t> PromptBuilder::encode_rendered(std::string_view rendered, std::string_view shield) const {
  if (rendered.find(shield) == std::string_view::npos) return tokenizer_->encode(rendered);
  std::vector<int32_t> ids;
  size_t plain = 0;
  const auto encode_until = [&](size_t end) {
    const std::string text = without(rendered.substr(plain, end - plain), shield);
    if (text.empty()) return;
    const auto part = tokenizer_->encode(text, {/*special_in_text=*/false, /*add_post_processor=*/false});
    ids.insert(ids.end(), part.begin(), part.end());
  };
  for (size_t at = 0; at < rendered.size();) {
    const auto token = std::find_if(special_tokens_.begin(), special_tokens_.end(), [&](const std::string& special) {
      return rendered.substr(at).starts_with(special);
    });
    if (token == special_tokens_.end()) {
      ++at;
      continue;
    }
    encode_until(at);
    ids.push_back(*tokenizer_->id_of(*token));
    at += token->size();
    plain = at;
  }
  encode_until(rendered.size());
  return ids;
}

}  // namespace expert
