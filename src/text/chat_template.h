// A model's chat template: messages → prompt text, equal to what Transformers' apply_chat_template renders.
//
// Jinja2 as Transformers configures it: trim_blocks and lstrip_blocks on, break and continue, {% generation %},
// raise_exception, strftime_now, its own tojson, and the immutable sandbox. Not supported and refused by name:
// block, extends, include, import, from, autoescape; the filters pprint, random, striptags, urlize, wordwrap and
// xmlattr; integers beyond 64 bits; names with characters beyond ASCII.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/template_limits.h"

namespace expert {

class ChatTemplate {  // immutable; const methods may run on any number of threads
 public:
  struct Options {
    Json tools;  // null, or an array of tool schemas
    bool add_generation_prompt = true;
    Json variables;  // null, or an object, e.g. {"enable_thinking": false}; it goes before the special tokens
    std::optional<std::chrono::system_clock::time_point> now;  // what strftime_now shows; the host's clock when absent
    TemplateLimits limits;
  };

  // Fails with ErrorCode::load on a syntax error or a construct that is not supported; the message names it and its
  // line.
  static std::shared_ptr<const ChatTemplate> parse(std::string_view source, std::string name);

  // chat_template.jinja, else the chat_template of tokenizer_config.json (a text, or a list of named ones, of which
  // "tool_use" serves requests with tools and "default" the others). Null when the directory has none. bos_token and
  // its kin become variables. Fails with ErrorCode::load on unreadable or malformed files. A template that does not
  // compile, or uses what is not supported, is no reason to refuse the model: render() then fails with that error.
  static std::shared_ptr<const ChatTemplate> load(const std::filesystem::path& model_dir);

  // messages: a non-empty array of objects. As Transformers does, keys of a message whose value is null are left out,
  // and reasoning_content, thinking and reasoning are filled from each other. Fails with ErrorCode::invalid_request on
  // what the template raises, on run-time type errors, and where the limits on steps, memory, recursion and output are
  // reached.
  std::string render(const Json& messages, const Options& options) const;
  // Why render() will fail whatever it is given; empty when all templates compiled.
  std::vector<std::string> problems() const;

  ~ChatTemplate();

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expert
