// The options that several commands share, and what they become in expert.h's structs.
#pragma once

#include <expert/expert.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "library.h"

namespace cli {

// Of the whole program.
struct Common {
  bool json = false;
  bool debug = false;
};

struct ModelOptions {
  std::string model;
  std::string device;
  std::string weights;
  std::string kv;
  std::string rope_scaling;
  int64_t context_size = 0;
  uint64_t memory_limit = 0;
  int32_t threads = 0;
  std::optional<int32_t> max_queue;
  std::optional<int32_t> max_experts;
  std::optional<uint64_t> prefix_cache_bytes;
  uint64_t expert_cache_bytes = 0;

  void add_to(CLI::App& app);
};

struct RequestOptions {
  std::optional<std::string> prompt;
  std::vector<std::string> experts;
  bool auto_experts = false;
  std::string schema;
  std::string body;
  bool raw = false;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int32_t> top_k;
  std::optional<int32_t> max_tokens;
  std::optional<uint64_t> seed;
  std::optional<int32_t> logprobs;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool plain_text = false;
  int32_t priority = 0;
  double deadline_ms = 0;
  std::string caller;
  std::string cache_salt;
  std::string trace;  // file for what happened to the request
  std::string grammar;
  std::string json_schema;

  void add_experts_to(CLI::App& app);  // also what the router looks at
  void add_to(CLI::App& app);          // everything
};

// One element of --experts.
struct NamedExpert {
  std::string name;  // or path
  float weight = 1.0F;
};

// "sql,json:0.5". A value that names a file or directory is one expert, whatever its characters. "" is the base.
std::vector<NamedExpert> parse_experts(const std::vector<std::string>& values);

// A request and everything it points to.
class PreparedRequest {
 public:
  explicit PreparedRequest(const RequestOptions& options);
  PreparedRequest(const PreparedRequest&) = delete;
  PreparedRequest& operator=(const PreparedRequest&) = delete;

  void set_prompt(std::string prompt);
  void set_messages(std::string messages);  // JSON, instead of a prompt
  const expert_request* get() const { return &request_; }

 private:
  void set_sampling(const RequestOptions& options);

  expert_request request_ = EXPERT_REQUEST_INIT;
  std::string prompt_;
  std::string messages_;
  std::string schema_;
  std::string body_;
  std::string caller_;
  std::string cache_salt_;
  std::vector<NamedExpert> named_;
  std::vector<expert_use> uses_;
  std::vector<std::string> stop_;
  std::vector<const char*> stop_pointers_;
};

// The prompt: the argument; stdin for "-", or for none when stdin is no terminal.
std::string read_prompt(const std::optional<std::string>& argument);

// Opens the engine, with a progress bar, and refuses by name what is not built yet. Ctrl-C ends it.
Engine open_engine(const ModelOptions& options);

// nullptr for "", as expert.h spells "not given".
const char* or_null(const std::string& text);

}  // namespace cli
