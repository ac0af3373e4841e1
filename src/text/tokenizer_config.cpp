#include "text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "text/in_file.h"
#include "text/json_fields.h"
#include "core/json_reader.h"

namespace expert {
namespace {

constexpr std::array kNamed = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

AddedToken special_token(const Json& value) {
  if (value.is_object()) return read_added_token(value);
  AddedToken token;
  token.content = fields::text(value, "token");
  token.special = true;
  token.normalized = false;
  return token;
}

bool is_token(const Json& value) { return value.is_string() || (value.is_object() && value.contains("content")); }

// "added_tokens_decoder": {"151643": {"content": …}}
void read_declared(const Json& decoder, TokenizerConfig& config) {
  if (!decoder.is_object()) fail(ErrorCode::load, "field 'added_tokens_decoder' must be an object");
  for (const auto& [key, value] : decoder.items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0)
      fail(ErrorCode::load, "added_tokens_decoder: '{}' is not a token id", key);
    config.declared[id] = read_added_token(value);
  }
}

// Named tokens in their fixed order, then the model's own ("image_token": "<img>").
void read_named(const Json& settings, TokenizerConfig& config) {
  for (const char* name : kNamed)
    if (const Json* value = fields::find(settings, name)) config.named.emplace_back(name, special_token(*value));
  for (const auto& [key, value] : settings.items()) {
    const bool standard = std::find(kNamed.begin(), kNamed.end(), key) != kNamed.end();
    if (!standard && key.ends_with("_token") && is_token(value)) config.named.emplace_back(key, special_token(value));
  }
}

void read_extra(const Json& settings, TokenizerConfig& config) {
  for (const char* name : {"extra_special_tokens", "additional_special_tokens"}) {
    const Json* value = fields::find(settings, name);
    if (value == nullptr || value->empty()) continue;
    if (value->is_object()) {
      for (const auto& [key, token] : value->items()) config.named.emplace_back(key, special_token(token));
    } else if (value->is_array()) {
      for (const Json& token : *value) config.extra.push_back(special_token(token));
    } else {
      fail(ErrorCode::load, "field '{}' must be a list or an object", name);
    }
    return;
  }
}

// added_tokens.json: {"<tool_call>": 151657}
void read_added_tokens(const Json& ids, TokenizerConfig& config) {
  if (!ids.is_object()) fail(ErrorCode::load, "an object of tokens and ids was expected");
  const auto is_special = [&](const std::string& content) {
    const auto same = [&](const AddedToken& token) { return token.content == content; };
    return std::any_of(config.extra.begin(), config.extra.end(), same) ||
           std::any_of(config.named.begin(), config.named.end(), [&](const auto& n) { return same(n.second); });
  };
  for (const auto& [content, id] : ids.items()) {
    AddedToken token;
    token.content = content;
    token.special = is_special(content);
    token.normalized = !token.special;
    config.declared[fields::integer(id, content.c_str())] = token;
  }
}

std::string class_for_model_type(const std::string& model_type) {
  if (model_type == "qwen2" || model_type == "qwen3") return "Qwen2Tokenizer";
  if (model_type == "gpt2") return "GPT2Tokenizer";
  return "";
}

void read_settings(const Json& settings, TokenizerConfig& config) {
  config.add_prefix_space = fields::flag(settings, "add_prefix_space", false);
  config.add_bos_token = fields::flag(settings, "add_bos_token", false);
  config.add_eos_token = fields::flag(settings, "add_eos_token", false);
  if (fields::flag(settings, "split_special_tokens", false))
    fail(ErrorCode::unsupported, "split_special_tokens: true is not supported");
  config.tokenizer_class = fields::find_text(settings, "tokenizer_class").value_or("");
  if (config.tokenizer_class.ends_with("Fast")) config.tokenizer_class.resize(config.tokenizer_class.size() - 4);
}

}  // namespace

const AddedToken* TokenizerConfig::find_named(const std::string& key) const {
  const auto it = std::find_if(named.begin(), named.end(), [&](const auto& entry) { return entry.first == key; });
  return it == named.end() ? nullptr : &it->second;
}

AddedToken read_added_token(const Json& object) {
  AddedToken token;
  token.content = fields::need_text(object, "content");
  token.special = fields::flag(object, "special", false);
  token.normalized = fields::flag(object, "normalized", !token.special);
  token.single_word = fields::flag(object, "single_word", false);
  token.lstrip = fields::flag(object, "lstrip", false);
  token.rstrip = fields::flag(object, "rstrip", false);
  return token;
}

TokenizerConfig read_tokenizer_config(const TokenizerFiles& files, const std::string& name) {
  TokenizerConfig config;
  Json settings = Json::object();
  if (files.tokenizer_config_json) {
    in_file(name, "tokenizer_config.json", [&] {
      settings = parse_json(*files.tokenizer_config_json, "");
      read_settings(settings, config);
    });
  }
  const bool declares = fields::find(settings, "added_tokens_decoder") != nullptr;
  // Only directories older than added_tokens_decoder have their tokens in these two files.
  if (!declares && files.special_tokens_map_json) {
    in_file(name, "special_tokens_map.json", [&] {
      Json map = parse_json(*files.special_tokens_map_json, "");
      for (auto& [key, value] : map.items()) {
        if (value.is_object() && value.contains("content")) value["special"] = true;
        settings[key] = std::move(value);
      }
    });
  }
  in_file(name, "tokenizer_config.json", [&] {
    read_named(settings, config);
    read_extra(settings, config);
    if (declares) read_declared(settings["added_tokens_decoder"], config);
  });
  if (!declares && files.added_tokens_json)
    in_file(name, "added_tokens.json", [&] { read_added_tokens(parse_json(*files.added_tokens_json, ""), config); });
  if (config.tokenizer_class.empty() && files.config_json) {
    in_file(name, "config.json", [&] {
      const Json model = parse_json(*files.config_json, "");
      config.tokenizer_class = class_for_model_type(fields::find_text(model, "model_type").value_or(""));
    });
  }
  return config;
}

}  // namespace expert
