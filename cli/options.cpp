#include "options.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <optional>

#include "interrupt.h"
#include "terminal.h"

namespace cli {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxText = size_t{64} << 20;
constexpr int kPatienceMs = 3000;

std::string read_stream(std::istream& stream, const std::string& name) {
  std::string text;
  char buffer[65536];
  while (stream.read(buffer, sizeof buffer) || stream.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(stream.gcount()));
    if (text.size() > kMaxText) throw usage_error(name + ": more than 64 MiB of text");
  }
  if (stream.bad()) throw Failure(kGeneral, "load", name + ": " + std::strerror(errno));
  return text;
}

std::string read_stdin() { return read_stream(std::cin, "standard input"); }

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0) fail();
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(descriptor_); }

  mode_t mode() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail();
    return status.st_mode;
  }
  // False: nothing came and nobody closed it within `milliseconds`.
  bool wait(int milliseconds) const {
    pollfd pipe{descriptor_, POLLIN, 0};
    return ::poll(&pipe, 1, milliseconds) != 0;
  }
  // nullopt: somebody could still write, but has not.
  std::optional<size_t> try_read(char* buffer, size_t size) {
    const ssize_t got = ::read(descriptor_, buffer, size);
    if (got < 0 && errno != EAGAIN) fail();
    return got < 0 ? std::nullopt : std::optional(static_cast<size_t>(got));
  }
  void block() { ::fcntl(descriptor_, F_SETFL, ::fcntl(descriptor_, F_GETFL) & ~O_NONBLOCK); }

 private:
  [[noreturn]] void fail() const { throw Failure(kGeneral, "load", path_ + ": " + std::strerror(errno)); }
  const std::string& path_;
  int descriptor_;
};

std::string read_file(const std::string& path) {
  if (path == "-") return read_stdin();
  Descriptor file(path);
  const mode_t mode = file.mode();
  if (S_ISDIR(mode)) throw Failure(kGeneral, "load", path + ": is a directory, not a text file");
  std::string text;
  char buffer[65536];
  if (S_ISFIFO(mode)) {
    // `<(command)` is a pipe and welcome, a writer that is a little late too; for one that never comes nobody waits.
    const bool silent = !file.wait(kPatienceMs);
    const std::optional<size_t> got = file.try_read(buffer, sizeof buffer);
    if (silent && got == size_t{0}) throw Failure(kGeneral, "load", path + ": is a FIFO that nobody writes to");
    text.append(buffer, got.value_or(0));
  }
  file.block();
  while (const size_t got = file.try_read(buffer, sizeof buffer).value_or(0)) {
    text.append(buffer, got);
    if (text.size() > kMaxText) throw usage_error(path + ": more than 64 MiB of text");
  }
  return text;
}

// Editors and echo end a text with a line end that nobody means.
std::string without_line_end(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (!text.empty() && text.back() == '\r') text.pop_back();
  return text;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string schema_of(const std::string& file_or_text) {
  std::error_code ignored;
  if (fs::exists(file_or_text, ignored)) return without_line_end(read_file(file_or_text));
  // A schema names columns; a lone path that leads nowhere is a slip, not a schema.
  if (file_or_text.find('/') != std::string::npos && file_or_text.find_first_of(" (\n\t,;") == std::string::npos) {
    throw Failure(kGeneral, "load", file_or_text + ": no such file",
                  "--schema takes a file or a text such as users(id,name,age)");
  }
  return file_or_text;
}

std::optional<float> number_of(const std::string& text) {
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  const float value = std::strtof(text.c_str(), &end);
  return *end == '\0' ? std::optional<float>(value) : std::nullopt;
}

NamedExpert parse_expert(const std::string& item) {
  if (item.empty()) throw usage_error("--experts: an empty name", "names are separated by single commas");
  const size_t colon = item.rfind(':');
  if (exists(item) || colon == std::string::npos) return {item, 1.0F};
  const std::string name = item.substr(0, colon);
  const std::string weight = item.substr(colon + 1);
  const std::optional<float> value = number_of(weight);
  // In a path a colon may be part of a name, as in C:\experts\sql.
  if (!value && weight.find_first_of("/\\") != std::string::npos) return {item, 1.0F};
  if (!value || !std::isfinite(*value)) {
    throw usage_error("--experts: the weight in \"" + item + "\" is not a finite number",
                      "write it as " + name + ":0.5");
  }
  if (name.empty()) throw usage_error("--experts: no name before the weight in \"" + item + "\"");
  return {name, *value};
}

float float_or_unset(const std::optional<double>& value) {
  return value ? static_cast<float>(*value) : EXPERT_UNSET_FLOAT;
}

// An empty value mostly comes from a variable that is not set; the default would answer in its place.
std::string not_empty(const std::string& value) { return value.empty() ? "is empty" : ""; }

// CLI11 would take -1 for the largest number.
std::string not_negative(const std::string& value) {
  return !value.empty() && value.front() == '-' ? "is " + value + ", must be 0 or more" : "";
}

}  // namespace

const char* or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

void ModelOptions::add_to(CLI::App& app) {
  const std::string group = "Model";
  app.add_option("--model", model, "base model: a directory or a registered name")
      ->check(not_empty)
      ->type_name("DIR|NAME")
      ->group(group);
  app.add_option("--device", device, "auto (CUDA where its plug-in finds a device, else cpu) | cpu | reference | cuda[:N]")
      ->type_name("NAME")
      ->group(group);
  app.add_option("--weights", weights, "auto (bf16 for BF16 files, else f32) | f32 | bf16 | int8 | int4 (int8 head) | int4-all")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8", "int4", "int4-all"}))
      ->type_name("FORMAT")
      ->group(group);
  app.add_option("--kv", kv, "auto | f32 | bf16 | int8")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}))
      ->type_name("FORMAT")
      ->group(group);
  app.add_option("--context-size", context_size, "tokens; default: the model's own")->group(group);
  app.add_option("--rope-scaling", rope_scaling, "JSON as in config.json, for a larger context")->group(group);
  app.add_option("--threads", threads, "default: every processor this process may use")->group(group);
  app.add_option("--memory-limit", memory_limit, "bytes for weights, experts and KV")->check(not_negative)->group(group);
  app.add_option("--max-queue", max_queue, "requests that wait or run")->group(group);
  app.add_option("--max-experts", max_experts, "experts of one request (10)")->group(group);
  app.add_option("--prefix-cache-bytes", prefix_cache_bytes, "KV kept for prefixes no request uses (all that is free); 0: none")
      ->group(group);
  app.add_option("--expert-cache-bytes", expert_cache_bytes, "experts kept in memory (a quarter of what is free)")
      ->group(group);
}

void RequestOptions::add_experts_to(CLI::App& app) {
  const std::string group = "Experts";
  CLI::Option* named =
      app.add_option("--experts", experts, "names or files with optional weight: sql,json:0.5; \"\" is the base alone")
          ->type_name("LIST")
          ->allow_extra_args(false)
          ->group(group);
  app.add_flag("--auto", auto_experts, "let the router choose (default)")->excludes(named)->group(group);
  app.add_option("--schema", schema, "what the question is about, e.g. users(id,name,age)")
      ->type_name("FILE|TEXT")
      ->group(group);
  app.add_option("--body", body, "text the prompt is about; - is standard input")->type_name("FILE")->group(group);
}

void RequestOptions::add_to(CLI::App& app) {
  add_experts_to(app);
  const std::string group = "Generation";
  app.add_option("--max-tokens", max_tokens)->group(group);
  app.add_option("--temperature", temperature, "0 is greedy")->group(group);
  app.add_option("--top-p", top_p)->group(group);
  app.add_option("--top-k", top_k, "0 is off")->group(group);
  app.add_option("--min-p", min_p)->group(group);
  app.add_option("--repetition-penalty", repetition_penalty)->group(group);
  app.add_option("--presence-penalty", presence_penalty)->group(group);
  app.add_option("--frequency-penalty", frequency_penalty)->group(group);
  app.add_option("--seed", seed, "default: random")->check(not_negative)->group(group);
  app.add_option("--stop", stop, "the answer ends before this text; may be given again")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--logprobs", logprobs, "with --json: this many best tokens per position")->group(group);
  app.add_flag("--ignore-eos", ignore_eos)->group(group);
  app.add_flag("--raw", raw, "no chat template")->group(group);
  app.add_flag("--plain-text", plain_text, "special tokens spelled in the prompt are ordinary text")->group(group);
  app.add_option("--grammar", grammar, "not yet")->type_name("FILE")->group(group);
  app.add_option("--json-schema", json_schema, "not yet")->type_name("FILE")->group(group);
  app.add_option("--priority", priority, "higher first")->group(group);
  app.add_option("--deadline-ms", deadline_ms, "end with what there is after this time")->group(group);
  app.add_option("--caller", caller)->group(group);
  app.add_option("--cache-salt", cache_salt)->group(group);
}

std::vector<NamedExpert> parse_experts(const std::vector<std::string>& values) {
  std::vector<NamedExpert> experts;
  for (const std::string& value : values) {
    if (value.empty()) continue;
    if (exists(value)) {
      experts.push_back({value, 1.0F});
      continue;
    }
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find(',', begin), value.size());
      experts.push_back(parse_expert(value.substr(begin, end - begin)));
      begin = end + 1;
    }
  }
  return experts;
}

PreparedRequest::PreparedRequest(const RequestOptions& options)
    : schema_(schema_of(options.schema)),
      body_(options.body.empty() ? "" : without_line_end(read_file(options.body))),
      caller_(options.caller),
      cache_salt_(options.cache_salt),
      named_(parse_experts(options.experts)),
      stop_(options.stop) {
  if (!options.grammar.empty()) throw not_supported_yet("--grammar");
  if (!options.json_schema.empty()) throw not_supported_yet("--json-schema");
  for (const NamedExpert& expert : named_) uses_.push_back({nullptr, expert.name.c_str(), expert.weight});
  for (const std::string& stop : stop_) stop_pointers_.push_back(stop.c_str());
  request_.experts = uses_.data();
  request_.expert_count = uses_.size();
  if (!options.experts.empty() && uses_.empty()) request_.flags |= EXPERT_REQUEST_BASE_ONLY;
  if (options.raw) request_.flags |= EXPERT_REQUEST_RAW;
  if (options.plain_text) request_.flags |= EXPERT_REQUEST_PLAIN_TEXT;
  if (options.ignore_eos) request_.flags |= EXPERT_REQUEST_IGNORE_EOS;
  if (!options.trace.empty()) request_.flags |= EXPERT_REQUEST_TRACE;
  if (!schema_.empty()) {
    request_.schema = schema_.data();
    request_.schema_length = schema_.size();
  }
  if (!body_.empty()) {
    request_.body = body_.data();
    request_.body_length = body_.size();
  }
  set_sampling(options);
}

void PreparedRequest::set_sampling(const RequestOptions& options) {
  for (const auto& [name, value] : {std::pair{"--temperature", &options.temperature},
                                    {"--top-p", &options.top_p},
                                    {"--min-p", &options.min_p},
                                    {"--repetition-penalty", &options.repetition_penalty},
                                    {"--presence-penalty", &options.presence_penalty},
                                    {"--frequency-penalty", &options.frequency_penalty}}) {
    if (*value && std::isnan(**value)) throw usage_error(std::string(name) + " is not a number");
  }
  request_.temperature = float_or_unset(options.temperature);
  request_.top_p = float_or_unset(options.top_p);
  request_.min_p = float_or_unset(options.min_p);
  request_.repetition_penalty = float_or_unset(options.repetition_penalty);
  request_.presence_penalty = float_or_unset(options.presence_penalty);
  request_.frequency_penalty = float_or_unset(options.frequency_penalty);
  request_.top_k = options.top_k.value_or(EXPERT_UNSET_INT);
  request_.max_tokens = options.max_tokens.value_or(EXPERT_UNSET_INT);
  request_.logprobs = options.logprobs.value_or(0);
  if (options.seed == EXPERT_UNSET_SEED)
    throw usage_error("--seed is at most " + std::to_string(EXPERT_UNSET_SEED - 1));
  request_.seed = options.seed.value_or(EXPERT_UNSET_SEED);
  request_.stop = stop_pointers_.data();
  request_.stop_count = stop_pointers_.size();
  request_.priority = options.priority;
  request_.deadline_ms = options.deadline_ms;
  request_.caller = or_null(caller_);
  request_.cache_salt = or_null(cache_salt_);
}

void PreparedRequest::set_prompt(std::string prompt) {
  prompt_ = std::move(prompt);
  request_.prompt = prompt_.data();
  request_.prompt_length = prompt_.size();
}

void PreparedRequest::set_messages(std::string messages) {
  messages_ = std::move(messages);
  request_.messages = messages_.c_str();
}

std::string read_prompt(const std::optional<std::string>& argument) {
  if (argument && *argument != "-") return *argument;
  if (!argument && stdin_is_terminal()) {
    throw usage_error("no prompt", "give it as an argument, or on standard input");
  }
  return without_line_end(read_stdin());
}

Engine open_engine(const ModelOptions& given) {
  ProgressBar bar("loading the model");
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = or_null(given.model);
  options.device = or_null(given.device);
  options.weights = or_null(given.weights);
  options.kv = or_null(given.kv);
  options.rope_scaling = or_null(given.rope_scaling);
  options.context_size = given.context_size;
  options.memory_limit = given.memory_limit;
  options.threads = given.threads;
  if (given.max_queue) options.max_queue = *given.max_queue;
  if (given.max_experts) options.max_experts = *given.max_experts;
  if (given.prefix_cache_bytes) options.prefix_cache_bytes = *given.prefix_cache_bytes;
  options.expert_cache_bytes = given.expert_cache_bytes;
  options.progress = [](void* shown, double fraction) {
    static_cast<ProgressBar*>(shown)->show(fraction);
    return interrupted() ? 1 : 0;
  };
  options.progress_user_data = &bar;
  expert_engine* engine = nullptr;
  check(expert_engine_open(&options, &engine));
  return Engine(engine);
}

}  // namespace cli
