#include "text/chat_template.h"

#include <array>
#include <map>
#include <sstream>

#include "io/json.h"
#include "text/jinja_parser.h"
#include "text/jinja_runtime.h"
#include "text/jinja_unicode.h"

namespace expert {
namespace {

namespace fs = std::filesystem;
using jinja::Value;

constexpr size_t kTemplateLimit = size_t{1} << 20;
constexpr size_t kConfigLimit = size_t{64} << 20;
constexpr int kJsonDepth = 150;

Value to_value(jinja::Heap& heap, const Json& json, int depth = 0) {
  if (depth > kJsonDepth) fail(ErrorCode::invalid_request, "a message nests deeper than {} levels", kJsonDepth);
  switch (json.type()) {
    case Json::value_t::null:
    case Json::value_t::discarded:
      return Value::none();
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX)
        fail(ErrorCode::invalid_request, "the integer {} does not fit 64 bits", json.get<uint64_t>());
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::floating(json.get<double>());
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (!jinja::is_utf8(text)) fail(ErrorCode::invalid_request, "a text in the messages is not valid UTF-8");
      return heap.string(text);
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(to_value(heap, item, depth + 1));
      return heap.list(std::move(items));
    }
    case Json::value_t::object: {
      const Value dict = heap.dict();
      for (const auto& [key, item] : json.items()) {
        heap.charge(sizeof(Value) * 8);
        dict.dict().set(to_value(heap, Json(key), depth + 1), to_value(heap, item, depth + 1));
      }
      return dict;
    }
    case Json::value_t::binary:
      break;
  }
  fail(ErrorCode::invalid_request, "binary data in the messages");
}

// Null keys go, and the three names for a message's reasoning are filled from each other.
Json normalized(const Json& message) {
  if (!message.is_object()) fail(ErrorCode::invalid_request, "each message must be an object");
  static constexpr std::array<const char*, 3> kReasoning = {"reasoning_content", "thinking", "reasoning"};
  Json reasoning;
  for (const char* field : kReasoning) {
    const auto found = message.find(field);
    if (found != message.end() && !found->is_null() && reasoning.is_null()) reasoning = *found;
  }
  Json out = Json::object();
  if (!reasoning.is_null()) out["thinking"] = reasoning;
  for (const auto& [key, value] : message.items()) {
    if (!value.is_null()) out[key] = value;
  }
  if (!reasoning.is_null()) out["reasoning_content"] = reasoning;
  return out;
}

// An absent file is an empty object.
Json read_object(const fs::path& path) {
  if (!entry_exists(path.string())) return Json::object();
  Json json = read_json_file(path.string(), {.max_bytes = kConfigLimit, .max_depth = kJsonDepth});
  if (!json.is_object()) fail(ErrorCode::load, "{}: not a JSON object", path.string());
  return json;
}

// token: "<s>" or {"content": "<s>", ...}
void add_token(const std::string& name, const Json& token, Json& variables) {
  if (token.is_string()) variables[name] = token;
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    variables[name] = token["content"];
}

// The standard ones ("bos_token") and the model's own ("image_token").
void add_special_tokens(const Json& config, Json& variables) {
  for (const auto& [name, token] : config.items()) {
    if (name.ends_with("_token")) add_token(name, token, variables);
  }
  for (const char* more : {"extra_special_tokens", "model_specific_special_tokens"}) {
    if (!config.contains(more) || !config[more].is_object()) continue;
    for (const auto& [name, token] : config[more].items()) add_token(name, token, variables);
  }
}

}  // namespace

struct ChatTemplate::Impl {
  struct Source {
    jinja::Heap constants{jinja::Limits()};
    jinja::Program program;
    std::optional<Error> problem;  // why it cannot be rendered
  };

  std::string name;
  std::unique_ptr<Source> standard, tool_use;
  Json special_tokens = Json::object();

  static std::unique_ptr<Source> compile(std::string_view source, const std::string& name) {
    if (source.size() > kTemplateLimit) {
      fail(ErrorCode::load, "{}: {} bytes, more than the limit of {}", name, source.size(), kTemplateLimit);
    }
    if (!jinja::is_utf8(source)) fail(ErrorCode::load, "{}: not valid UTF-8", name);
    auto compiled = std::make_unique<Source>();
    try {
      compiled->program = jinja::resolve(jinja::parse(source, compiled->constants));
    } catch (const Error& error) {
      compiled->problem.emplace(ErrorCode::load, fmt::format("{}: {}", name, error.what()), error.hint());
    }
    return compiled;
  }

  void compile_files(const fs::path& model_dir) {
    const auto compile_file = [&](const fs::path& path, std::unique_ptr<Source>& place) {
      const auto source = read_text_if_present(path.string(), kTemplateLimit);
      if (!source) return;
      name = path.string();
      place = compile(*source, name);
    };
    compile_file(model_dir / "additional_chat_templates" / "tool_use.jinja", tool_use);
    compile_file(model_dir / "chat_template.jinja", standard);
  }

  void compile_config(const Json& chat_template) {
    if (chat_template.is_string()) {
      standard = compile(chat_template.get_ref<const std::string&>(), name);
      return;
    }
    if (!chat_template.is_array()) fail(ErrorCode::load, "{}: chat_template is neither a text nor a list", name);
    for (const Json& entry : chat_template) {
      const bool named = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                         entry.contains("template") && entry["template"].is_string();
      if (!named) fail(ErrorCode::load, "{}: an entry of chat_template has no name or no template", name);
      const auto& label = entry["name"].get_ref<const std::string&>();
      if (label != "default" && label != "tool_use") continue;
      auto& place = label == "default" ? standard : tool_use;
      place = compile(entry["template"].get_ref<const std::string&>(), fmt::format("{} ({})", name, label));
    }
    if (!standard && !tool_use) fail(ErrorCode::load, "{}: chat_template has no entry named 'default'", name);
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

std::shared_ptr<const ChatTemplate> ChatTemplate::parse(std::string_view source, std::string name) {
  auto impl = std::make_unique<Impl>();
  impl->standard = Impl::compile(source, name);
  if (impl->standard->problem) throw *impl->standard->problem;
  impl->name = std::move(name);
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

std::shared_ptr<const ChatTemplate> ChatTemplate::load(const fs::path& model_dir) {
  auto impl = std::make_unique<Impl>();
  const fs::path config_path = model_dir / "tokenizer_config.json";
  const Json config = read_object(config_path);
  impl->compile_files(model_dir);
  if (!impl->standard && !impl->tool_use) {
    if (!config.contains("chat_template") || config["chat_template"].is_null()) return nullptr;
    impl->name = config_path.string();
    impl->compile_config(config["chat_template"]);
  }
  add_special_tokens(config, impl->special_tokens);
  // An older file, which counts where the configuration does not list its tokens itself.
  if (!config.contains("added_tokens_decoder"))
    add_special_tokens(read_object(model_dir / "special_tokens_map.json"), impl->special_tokens);
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

std::vector<std::string> ChatTemplate::problems() const {
  std::vector<std::string> problems;
  for (const Impl::Source* source : {impl_->standard.get(), impl_->tool_use.get()}) {
    if (source != nullptr && source->problem) problems.emplace_back(source->problem->what());
  }
  return problems;
}

std::string ChatTemplate::render(const Json& messages, const Options& options) const {
  if (!messages.is_array() || messages.empty()) fail(ErrorCode::invalid_request, "messages must be a non-empty list");
  if (!options.tools.is_null() && !options.tools.is_array()) fail(ErrorCode::invalid_request, "tools must be a list");
  if (!options.variables.is_null() && !options.variables.is_object())
    fail(ErrorCode::invalid_request, "template variables must be an object");
  for (const char* name : {"messages", "tools"}) {
    if (options.variables.is_object() && options.variables.contains(name)) {
      fail(ErrorCode::invalid_request, "'{}' is not a template variable but an argument of its own", name);
    }
  }
  const bool with_tools = !options.tools.is_null() && impl_->tool_use;
  const Impl::Source* source = with_tools ? impl_->tool_use.get() : impl_->standard.get();
  if (source == nullptr)
    fail(ErrorCode::invalid_request, "{}: has no template for a request without tools", impl_->name);
  if (source->problem) throw *source->problem;

  jinja::Runtime runtime(options.limits, options.now.value_or(std::chrono::system_clock::now()));
  const auto set = [&](const std::string& name, const Json& value) {
    runtime.set_variable(name, to_value(runtime.heap(), value));
  };
  for (const auto& [name, value] : impl_->special_tokens.items()) set(name, value);
  std::vector<Value> chat;
  for (const Json& message : messages) chat.push_back(to_value(runtime.heap(), normalized(message)));
  runtime.set_variable("messages", runtime.heap().list(std::move(chat)));
  set("tools", options.tools);
  set("documents", nullptr);
  set("add_generation_prompt", options.add_generation_prompt);
  if (options.variables.is_object()) {
    for (const auto& [name, value] : options.variables.items()) set(name, value);
  }
  try {
    return runtime.run(source->program);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("chat template {}, {}", impl_->name, error.what()), error.hint());
  }
}

}  // namespace expert
