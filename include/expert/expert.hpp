// libexpert for C++20: expert.h with owners, exceptions and ranges. Header only; nothing but expert.h and the standard
// library is needed.
//
//   #include <expert/expert.hpp>
//   #include <iostream>
//
//   int main() {
//     expert::Engine engine;  // the default model, every processor
//     std::cout << engine.infer("Find all users older than 25", {.schema = "users(id,name,age)"}).output() << "\n";
//   }
//
// Objects are handles: copying one shares it, and any thread may use it. What can fail throws an expert::Error; the
// classes are those of every language. What a call means, its units and its limits stand in expert.h, beside the
// function of the same name.
#ifndef EXPERT_EXPERT_HPP
#define EXPERT_EXPERT_HPP

#include <expert/expert.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace expert {
inline namespace v0 {  // apart from the names inside the library, also when that is linked statically

class Result;

// ---- errors --------------------------------------------------------------------------------------------------------

class Error : public std::runtime_error {
 public:
  Error(expert_status status, const std::string& message, std::string hint = "")
      : std::runtime_error(message), status_(status), hint_(std::move(hint)) {}
  expert_status status() const noexcept { return status_; }
  const std::string& hint() const noexcept { return hint_; }  // what can be done about it, or ""

 private:
  expert_status status_;
  std::string hint_;
};

class LoadError : public Error {  // a file that cannot be used
  using Error::Error;
};
class ManifestError : public LoadError {
  using LoadError::LoadError;
};
class SignatureError : public LoadError {
  using LoadError::LoadError;
};
class IncompatibleError : public LoadError {
  using LoadError::LoadError;
};
class UnsupportedError : public LoadError {
  using LoadError::LoadError;
};
class InferenceError : public Error {  // a request that failed
  using Error::Error;
};
class InvalidRequestError : public InferenceError {
  using InferenceError::InferenceError;
};
class OutOfMemoryError : public InferenceError {
  using InferenceError::InferenceError;
};
class GrammarError : public InferenceError {
  using InferenceError::InferenceError;
};
class ClosedError : public InferenceError {
  using InferenceError::InferenceError;
};
class TimeoutError : public InferenceError {
  using InferenceError::InferenceError;
};
class CancelledError : public InferenceError {
 public:
  using InferenceError::InferenceError;
  explicit CancelledError(std::shared_ptr<const Result> partial)
      : InferenceError(EXPERT_ERROR_CANCELLED, "the request was cancelled"), partial_(std::move(partial)) {}
  const Result* partial() const noexcept { return partial_.get(); }  // the answer until then, or nullptr

 private:
  std::shared_ptr<const Result> partial_;
};

namespace detail {

[[noreturn]] inline void raise(expert_status status, const std::string& message, const std::string& hint) {
  switch (status) {
    case EXPERT_ERROR_INVALID_REQUEST:
      throw InvalidRequestError(status, message, hint);
    case EXPERT_ERROR_LOAD:
      throw LoadError(status, message, hint);
    case EXPERT_ERROR_MANIFEST:
      throw ManifestError(status, message, hint);
    case EXPERT_ERROR_SIGNATURE:
      throw SignatureError(status, message, hint);
    case EXPERT_ERROR_INCOMPATIBLE:
      throw IncompatibleError(status, message, hint);
    case EXPERT_ERROR_OUT_OF_MEMORY:
      throw OutOfMemoryError(status, message, hint);
    case EXPERT_ERROR_GRAMMAR:
      throw GrammarError(status, message, hint);
    case EXPERT_ERROR_CANCELLED:
      throw CancelledError(status, message, hint);
    case EXPERT_ERROR_UNSUPPORTED:
      throw UnsupportedError(status, message, hint);
    case EXPERT_ERROR_INFERENCE:
      throw InferenceError(status, message, hint);
    case EXPERT_ERROR_CLOSED:
      throw ClosedError(status, message, hint);
    case EXPERT_ERROR_TIMEOUT:
      throw TimeoutError(status, message, hint);
    case EXPERT_OK:
    case EXPERT_ERROR_INTERNAL:
      break;
  }
  throw Error(status, message, hint);
}

inline void check(expert_status status) {
  if (status == EXPERT_OK) return;
  const expert_error* error = expert_last_error();
  raise(status, error->message, error->hint);
}

template <typename T>
T* some(const std::shared_ptr<T>& handle, const char* what) {
  if (handle == nullptr) throw InvalidRequestError(EXPERT_ERROR_INVALID_REQUEST, std::string(what) + " is empty");
  return handle.get();
}

// The text of a C function with an `out_text` parameter.
template <typename Call>
std::string text_from(Call&& call) {
  char* given = nullptr;
  size_t length = EXPERT_NUL_TERMINATED;
  check(call(&given, &length));
  const std::unique_ptr<char, void (*)(void*)> owned(given, expert_free);
  return length == EXPERT_NUL_TERMINATED ? std::string(given) : std::string(given, length);
}

inline const char* or_null(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }
inline const char* or_null(const std::optional<std::string>& text) { return text ? text->c_str() : nullptr; }

inline int64_t milliseconds(std::optional<std::chrono::milliseconds> timeout) {
  return timeout ? std::max<int64_t>(timeout->count(), 0) : -1;
}

}  // namespace detail

// ---- experts -------------------------------------------------------------------------------------------------------

// A loaded expert: expert_load().
class Expert {
 public:
  explicit Expert(expert_expert* owned) : handle_(owned, expert_expert_free) {}
  std::string_view name() const { return expert_expert_name(get()); }
  std::string_view version() const { return expert_expert_version(get()); }
  std::string_view kinds() const { return expert_expert_kinds(get()); }        // JSON
  std::string_view manifest() const { return expert_expert_manifest(get()); }  // JSON
  std::string_view warnings() const { return expert_expert_warnings(get()); }  // JSON
  uint64_t size_bytes() const { return expert_expert_size_bytes(get()); }
  bool unloaded() const { return expert_expert_unloaded(get()) != 0; }
  expert_expert* get() const noexcept { return handle_.get(); }

 private:
  std::shared_ptr<expert_expert> handle_;
};

// One expert of a composition: a handle, or a name or path; and its weight.
struct Use {
  std::optional<Expert> expert;
  std::string name;
  float weight = 1.0F;

  Use(Expert loaded, float by = 1.0F) : expert(std::move(loaded)), weight(by) {}     // NOLINT: implicit on purpose
  Use(std::string called, float by = 1.0F) : name(std::move(called)), weight(by) {}  // NOLINT
  Use(const char* called, float by = 1.0F) : name(called), weight(by) {}             // NOLINT
};

// ---- requests ------------------------------------------------------------------------------------------------------

// expert_request with owners; what is not set comes from the expert, the model or the library.
struct Request {
  std::optional<std::string> prompt{};
  std::optional<std::string> messages{};            // JSON
  std::optional<std::string> tools{};               // JSON
  std::optional<std::string> template_variables{};  // JSON
  std::optional<std::string> schema{};
  std::optional<std::string> body{};
  std::optional<std::vector<Use>> experts{};  // none: the router; empty: the base
  std::optional<int32_t> max_tokens{};
  std::optional<float> temperature{};
  std::optional<float> top_p{};
  std::optional<int32_t> top_k{};
  std::optional<float> min_p{};
  std::optional<float> repetition_penalty{};
  std::optional<float> presence_penalty{};
  std::optional<float> frequency_penalty{};
  std::optional<uint64_t> seed{};
  std::vector<std::string> stop{};
  std::vector<std::pair<int32_t, float>> logit_bias{};
  int32_t logprobs = 0;
  bool ignore_eos = false;
  bool trace = false;  // json() then has what happened to the request, step by step
  bool raw = false;
  bool special_in_text = true;
  int32_t priority = 0;
  double deadline_ms = 0;
  std::optional<std::string> caller{};
  std::optional<std::string> cache_salt{};
};

namespace detail {

// The C struct over a Request, and the arrays it points to. The Request must outlive it.
class RequestView {
 public:
  explicit RequestView(const Request& from) {
    set(from.prompt, view_.prompt, view_.prompt_length);
    set(from.schema, view_.schema, view_.schema_length);
    set(from.body, view_.body, view_.body_length);
    view_.messages = or_null(from.messages);
    view_.tools = or_null(from.tools);
    view_.template_variables = or_null(from.template_variables);
    view_.caller = or_null(from.caller);
    view_.cache_salt = or_null(from.cache_salt);
    set_numbers(from);
    set_flags(from);
    set_arrays(from);
  }
  RequestView(const RequestView&) = delete;
  RequestView& operator=(const RequestView&) = delete;
  const expert_request* get() const noexcept { return &view_; }

 private:
  static void set(const std::optional<std::string>& text, const char*& pointer, size_t& length) {
    if (!text) return;
    pointer = text->data();
    length = text->size();
  }
  template <typename T>
  static void set(const std::optional<T>& value, T& field) {
    if (value) field = *value;
  }
  void set_numbers(const Request& from) {
    set(from.max_tokens, view_.max_tokens);
    set(from.temperature, view_.temperature);
    set(from.top_p, view_.top_p);
    set(from.top_k, view_.top_k);
    set(from.min_p, view_.min_p);
    set(from.repetition_penalty, view_.repetition_penalty);
    set(from.presence_penalty, view_.presence_penalty);
    set(from.frequency_penalty, view_.frequency_penalty);
    set(from.seed, view_.seed);
    view_.logprobs = from.logprobs;
    view_.priority = from.priority;
    view_.deadline_ms = from.deadline_ms;
  }
  void set_flags(const Request& from) {
    if (from.experts && from.experts->empty()) view_.flags |= EXPERT_REQUEST_BASE_ONLY;
    if (from.raw) view_.flags |= EXPERT_REQUEST_RAW;
    if (!from.special_in_text) view_.flags |= EXPERT_REQUEST_PLAIN_TEXT;
    if (from.ignore_eos) view_.flags |= EXPERT_REQUEST_IGNORE_EOS;
    if (from.trace) view_.flags |= EXPERT_REQUEST_TRACE;
  }
  void set_arrays(const Request& from) {
    if (from.experts) {
      for (const Use& use : *from.experts) uses_.push_back(to_c(use));
    }
    for (const std::string& text : from.stop) stop_.push_back(text.c_str());
    for (const auto& [token, value] : from.logit_bias) {
      bias_tokens_.push_back(token);
      bias_values_.push_back(value);
    }
    view_.experts = uses_.data();
    view_.expert_count = uses_.size();
    view_.stop = stop_.data();
    view_.stop_count = stop_.size();
    view_.logit_bias_tokens = bias_tokens_.data();
    view_.logit_bias_values = bias_values_.data();
    view_.logit_bias_count = bias_tokens_.size();
  }

 public:
  static expert_use to_c(const Use& use) {
    return {use.expert ? use.expert->get() : nullptr, use.expert ? nullptr : use.name.c_str(), use.weight};
  }

 private:
  expert_request view_ = EXPERT_REQUEST_INIT;
  std::vector<expert_use> uses_;
  std::vector<const char*> stop_;
  std::vector<int32_t> bias_tokens_;
  std::vector<float> bias_values_;
};

inline std::vector<expert_use> uses_of(const std::vector<Use>& experts) {
  std::vector<expert_use> out;
  for (const Use& use : experts) out.push_back(RequestView::to_c(use));
  return out;
}

}  // namespace detail

// ---- results -------------------------------------------------------------------------------------------------------

struct ExpertUsed {
  std::string name;
  std::string version;
  float weight;
};

struct Logprob {
  int32_t token;
  float logprob;
};

// A whole answer. Views live as long as a copy of the result.
class Result {
 public:
  explicit Result(expert_result* owned) : handle_(owned, expert_result_free) {}
  // One that lives in another object, a chunk.
  Result(std::shared_ptr<const void> owner, const expert_result* inside) : handle_(std::move(owner), inside) {}

  std::string_view text() const { return view(expert_result_text); }
  std::string_view output() const { return view(expert_result_output); }
  std::span<const int32_t> tokens() const {
    size_t count = 0;
    const int32_t* ids = expert_result_tokens(get(), &count);
    return {ids, count};
  }
  std::vector<ExpertUsed> experts_used() const {
    std::vector<ExpertUsed> out;
    for (size_t i = 0; i < expert_result_expert_count(get()); ++i) {
      const char* name = nullptr;
      const char* version = nullptr;
      float weight = 0;
      detail::check(expert_result_expert(get(), i, &name, &version, &weight));
      out.push_back({name, version, weight});
    }
    return out;
  }
  expert_finish_reason finish_reason() const { return expert_result_finish_reason(get()); }
  std::string_view finish_reason_name() const { return expert_finish_reason_name(finish_reason()); }
  expert_usage usage() const {
    expert_usage out = EXPERT_USAGE_INIT;
    detail::check(expert_result_usage(get(), &out));
    return out;
  }
  expert_timings timings() const {
    expert_timings out = EXPERT_TIMINGS_INIT;
    detail::check(expert_result_timings(get(), &out));
    return out;
  }
  double latency_ms() const { return timings().total_ms; }
  size_t logprob_count() const { return expert_result_logprob_count(get()); }
  Logprob logprob(size_t position, size_t rank = 0) const {
    Logprob out{};
    detail::check(expert_result_logprob(get(), position, rank, &out.token, &out.logprob));
    return out;
  }
  std::string_view plan() const { return expert_result_plan(get()); }  // JSON
  std::string_view json() const { return expert_result_json(get()); }
  const expert_result* get() const noexcept { return handle_.get(); }

 private:
  std::string_view view(const char* (*getter)(const expert_result*, size_t*)) const {
    size_t length = 0;
    const char* text = getter(get(), &length);
    return {text, length};
  }
  std::shared_ptr<const expert_result> handle_;
};

class Chunk {
 public:
  explicit Chunk(expert_chunk* owned) : handle_(owned, expert_chunk_free) {}
  // One that is only lent, to a listener.
  explicit Chunk(const expert_chunk* lent) : handle_(std::shared_ptr<const expert_chunk>(), lent) {}

  std::string_view text() const {
    size_t length = 0;
    const char* text = expert_chunk_text(handle_.get(), &length);
    return {text, length};
  }
  std::span<const int32_t> tokens() const {
    size_t count = 0;
    const int32_t* ids = expert_chunk_tokens(handle_.get(), &count);
    return {ids, count};
  }
  // On the last chunk.
  std::optional<Result> result() const {
    const expert_result* inside = expert_chunk_result(handle_.get());
    return inside != nullptr ? std::optional<Result>(std::in_place, handle_, inside) : std::nullopt;
  }

 private:
  std::shared_ptr<const expert_chunk> handle_;
};

// ---- streams -------------------------------------------------------------------------------------------------------

using Timeout = std::optional<std::chrono::milliseconds>;  // none: for ever

// A running request: a range of chunks, or something to wait for. When the last copy goes, the request is cancelled.
class Stream {
 public:
  Stream(expert_stream* owned, std::shared_ptr<expert_engine> engine)
      : engine_(std::move(engine)), handle_(owned, expert_stream_free) {}

  // The next chunk, none at the end. Throws TimeoutError when nothing came in time, and the request's error once.
  std::optional<Chunk> next(Timeout timeout = std::nullopt) {
    expert_chunk* given = nullptr;
    detail::check(expert_stream_next(get(), detail::milliseconds(timeout), &given));
    return given != nullptr ? std::optional<Chunk>(std::in_place, given) : std::nullopt;
  }
  // The whole answer; throws CancelledError with what there was when the request was cancelled.
  Result result(Timeout timeout = std::nullopt) const {
    expert_result* given = nullptr;
    detail::check(expert_stream_wait(get(), detail::milliseconds(timeout), &given));
    Result out(given);
    if (out.finish_reason() == EXPERT_FINISH_CANCELLED) throw CancelledError(std::make_shared<const Result>(out));
    return out;
  }
  bool done() const { return expert_stream_done(get()) != 0; }
  void cancel() const { expert_cancel(get()); }

  // Told on a thread of the library, for as long as the stream runs: `on_chunk` returns false to cancel, `on_end` gets
  // the error or nullptr and is the last to be called. Keep the stream until then.
  void listen(std::function<bool(const Chunk&)> on_chunk, std::function<void(std::exception_ptr)> on_end = nullptr,
              uint32_t flags = 0) {
    auto listener = std::make_unique<Listener>(Listener{std::move(on_chunk), std::move(on_end), nullptr});
    detail::check(expert_stream_listen(get(), flags, Listener::hear, listener.get()));
    static_cast<void>(listener.release());
  }
  // For event loops: adds 1 to this eventfd (EFD_NONBLOCK) when the request ends, at once when it has.
  void signal_end(int event_fd) const { detail::check(expert_stream_signal_end(get(), event_fd)); }

  class Iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = Chunk;
    using difference_type = std::ptrdiff_t;
    Iterator() = default;
    explicit Iterator(Stream* stream) : stream_(stream), chunk_(stream->next()) {}
    const Chunk& operator*() const { return *chunk_; }
    const Chunk* operator->() const { return &*chunk_; }
    Iterator& operator++() {
      chunk_ = stream_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& iterator, std::default_sentinel_t) { return !iterator.chunk_; }

   private:
    Stream* stream_ = nullptr;
    std::optional<Chunk> chunk_;
  };
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const noexcept { return {}; }
  expert_stream* get() const noexcept { return handle_.get(); }

 private:
  struct Listener {
    std::function<bool(const Chunk&)> on_chunk;
    std::function<void(std::exception_ptr)> on_end;
    std::exception_ptr failure;

    static int hear(void* self_pointer, const expert_chunk* chunk, const expert_error* error) {
      auto* self = static_cast<Listener*>(self_pointer);
      if (chunk != nullptr) return self->on_chunk(Chunk(chunk)) ? 0 : 1;
      if (error != nullptr) {
        self->failure = to_exception(*error);
        return 0;
      }
      const std::unique_ptr<Listener> last(self);
      if (self->on_end) self->on_end(self->failure);
      return 0;
    }
    static std::exception_ptr to_exception(const expert_error& error) {
      try {
        detail::raise(error.status, error.message, error.hint);
      } catch (...) {
        return std::current_exception();
      }
    }
  };

  std::shared_ptr<expert_engine> engine_;  // stays open while the stream is held
  std::shared_ptr<expert_stream> handle_;
};

// ---- engine --------------------------------------------------------------------------------------------------------

struct EngineOptions {
  std::string base_model{};
  std::string device{};
  std::string weights{};
  std::string kv{};
  std::string rope_scaling{};  // JSON
  std::string home{};
  int64_t context_size = 0;
  uint64_t memory_limit = 0;
  int32_t threads = 0;
  int32_t max_queue = 256;
  int32_t max_batch = 16;
  int32_t max_experts = 0;
  uint64_t prefix_cache_bytes = EXPERT_UNSET_BYTES;
  uint64_t expert_cache_bytes = 0;
  bool use_weight_cache = true;
  bool head_screen = true;
  std::function<bool(double fraction)> progress{};  // returns false to stop loading
};

// One resident base model and its loaded experts. The last copy closes it.
class Engine {
 public:
  explicit Engine(const EngineOptions& options = {}) {
    Loading loading{options.progress, nullptr};
    expert_engine_options view = EXPERT_ENGINE_OPTIONS_INIT;
    view.base_model = detail::or_null(options.base_model);
    view.device = detail::or_null(options.device);
    view.weights = detail::or_null(options.weights);
    view.kv = detail::or_null(options.kv);
    view.rope_scaling = detail::or_null(options.rope_scaling);
    view.home = detail::or_null(options.home);
    view.context_size = options.context_size;
    view.memory_limit = options.memory_limit;
    view.threads = options.threads;
    view.max_queue = options.max_queue;
    view.max_batch = options.max_batch;
    view.max_experts = options.max_experts;
    view.prefix_cache_bytes = options.prefix_cache_bytes;
    view.expert_cache_bytes = options.expert_cache_bytes;
    if (!options.use_weight_cache) view.flags |= EXPERT_ENGINE_NO_WEIGHT_CACHE;
    if (!options.head_screen) view.flags |= EXPERT_ENGINE_NO_HEAD_SCREEN;
    if (options.progress) {
      view.progress = Loading::report;
      view.progress_user_data = &loading;
    }
    expert_engine* opened = nullptr;
    const expert_status status = expert_engine_open(&view, &opened);
    if (loading.thrown) std::rethrow_exception(loading.thrown);
    detail::check(status);
    handle_.reset(opened, expert_engine_free);
  }

  Expert load_expert(const std::string& source) const {
    expert_expert* loaded = nullptr;
    detail::check(expert_load(get(), source.c_str(), &loaded));
    return Expert(loaded);
  }
  Expert find_expert(const std::string& name) const {
    expert_expert* found = nullptr;
    detail::check(expert_engine_find(get(), name.c_str(), &found));
    return Expert(found);
  }
  void unload(const Expert& expert) const { detail::check(expert_unload(get(), expert.get())); }

  Result infer(const Request& request) const {
    expert_result* given = nullptr;
    detail::check(expert_infer(get(), detail::RequestView(request).get(), &given));
    Result out(given);
    if (out.finish_reason() == EXPERT_FINISH_CANCELLED) throw CancelledError(std::make_shared<const Result>(out));
    return out;
  }
  Result infer(std::string_view prompt, Request rest = {}) const { return infer(with(prompt, std::move(rest))); }

  // A range of chunks; also what submit() is called elsewhere.
  Stream stream(const Request& request) const {
    expert_stream* submitted = nullptr;
    detail::check(expert_submit(get(), detail::RequestView(request).get(), &submitted));
    return {submitted, handle_};
  }
  Stream stream(std::string_view prompt, Request rest = {}) const { return stream(with(prompt, std::move(rest))); }

  // Results in the order of the requests. After all have ended the error of the first that failed is thrown.
  std::vector<Result> infer_batch(std::span<const Request> requests) const {
    std::vector<std::unique_ptr<detail::RequestView>> views;
    std::vector<const expert_request*> pointers;
    for (const Request& request : requests) {
      pointers.push_back(views.emplace_back(std::make_unique<detail::RequestView>(request))->get());
    }
    std::vector<expert_result*> given(requests.size());
    const expert_status status = expert_infer_batch(get(), pointers.data(), pointers.size(), given.data(), nullptr);
    std::vector<Result> out;
    for (expert_result* result : given) out.emplace_back(result);
    detail::check(status);
    return out;
  }

  // JSON: {experts: [{name, weight, score, reason}], parameters, confidence, explanation}
  std::string route(const Request& request) const {
    const detail::RequestView view(request);
    return detail::text_from([&](char** out, size_t* /*length*/) { return expert_route(get(), view.get(), out); });
  }
  std::string route(std::string_view prompt, Request rest = {}) const { return route(with(prompt, std::move(rest))); }

  std::vector<int32_t> tokenize(std::string_view text, uint32_t flags = 0) const {
    int32_t* given = nullptr;
    size_t count = 0;
    detail::check(
        expert_tokenize(get(), text.data() != nullptr ? text.data() : "", text.size(), flags, &given, &count));
    const std::unique_ptr<int32_t, void (*)(void*)> owned(given, expert_free);
    return {given, given + count};
  }
  std::string detokenize(std::span<const int32_t> ids, uint32_t flags = 0) const {
    return detail::text_from([&](char** out, size_t* length) {
      return expert_detokenize(get(), ids.data(), ids.size(), flags, out, length);
    });
  }
  // All three are JSON.
  std::string apply_chat_template(const std::string& messages, const std::optional<std::string>& tools = std::nullopt,
                                  const std::optional<std::string>& variables = std::nullopt,
                                  uint32_t flags = 0) const {
    return detail::text_from([&](char** out, size_t* length) {
      return expert_apply_chat_template(get(), messages.c_str(), detail::or_null(tools), detail::or_null(variables),
                                        flags, out, length);
    });
  }
  // [ids.size(), vocab_size()], row by row.
  std::vector<float> logits(std::span<const int32_t> ids, const std::vector<Use>& experts = {}) const {
    const auto uses = detail::uses_of(experts);
    std::vector<float> out(ids.size() * static_cast<size_t>(vocab_size()));
    detail::check(expert_logits(get(), ids.data(), ids.size(), uses.data(), uses.size(), out.data(), out.size()));
    return out;
  }
  // [hidden_size()]
  std::vector<float> embed(std::string_view text, const std::string& pooling = "last", bool normalize = true,
                           const std::vector<Use>& experts = {}) const {
    const auto uses = detail::uses_of(experts);
    std::vector<float> out(static_cast<size_t>(hidden_size()));
    detail::check(expert_embed(get(), text.data() != nullptr ? text.data() : "", text.size(), pooling.c_str(),
                               uses.data(), uses.size(), normalize ? 0 : EXPERT_EMBED_NO_NORMALIZE, out.data(),
                               out.size()));
    return out;
  }

  int32_t vocab_size() const { return number(expert_engine_vocab_size); }
  int32_t hidden_size() const { return number(expert_engine_hidden_size); }
  int32_t context_size() const { return number(expert_engine_context_size); }
  std::string info() const { return json(expert_engine_info); }
  std::string stats() const { return json(expert_engine_stats); }
  std::string metrics() const { return json(expert_engine_metrics); }  // Prometheus' text format
  std::string experts() const { return json(expert_engine_experts); }
  bool closed() const { return expert_engine_closed(get()) != 0; }
  // Running requests end as cancelled, or are waited for; later calls throw ClosedError.
  void close(bool drain = false) const { detail::check(expert_engine_close(get(), drain ? EXPERT_CLOSE_DRAIN : 0)); }
  expert_engine* get() const noexcept { return handle_.get(); }

 private:
  struct Loading {
    const std::function<bool(double)>& progress;
    std::exception_ptr thrown;

    static int report(void* self_pointer, double fraction) {
      auto* self = static_cast<Loading*>(self_pointer);
      try {
        return self->progress(fraction) ? 0 : 1;
      } catch (...) {
        self->thrown = std::current_exception();
        return 1;
      }
    }
  };

  static Request with(std::string_view prompt, Request rest) {
    rest.prompt = std::string(prompt);
    return rest;
  }
  int32_t number(expert_status (*ask)(const expert_engine*, int32_t*)) const {
    int32_t out = 0;
    detail::check(ask(get(), &out));
    return out;
  }
  std::string json(expert_status (*ask)(const expert_engine*, char**)) const {
    return detail::text_from([&](char** out, size_t* /*length*/) { return ask(get(), out); });
  }

  std::shared_ptr<expert_engine> handle_;
};

// ---- without an engine; `home` empty: $EXPERT_HOME, else ~/.expert. Everything is JSON
// -------------------------------

namespace packages {

inline std::string install(const std::string& source, uint32_t flags = 0, const std::string& home = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_package_install(detail::or_null(home), source.c_str(), flags, out);
  });
}
inline void uninstall(const std::string& name, const std::string& home = "") {
  detail::check(expert_package_uninstall(detail::or_null(home), name.c_str()));
}
inline std::string update(const std::string& name, uint32_t flags = 0, const std::string& home = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_package_update(detail::or_null(home), name.c_str(), flags, out);
  });
}
inline std::string list(uint32_t flags = 0, const std::string& home = "") {
  return detail::text_from(
      [&](char** out, size_t* /*length*/) { return expert_package_list(detail::or_null(home), flags, out); });
}
inline std::string info(const std::string& name_or_path, const std::string& home = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_package_info(detail::or_null(home), name_or_path.c_str(), out);
  });
}
inline std::string verify(const std::string& name_or_path, const std::string& home = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_package_verify(detail::or_null(home), name_or_path.c_str(), out);
  });
}
inline std::string create(const std::string& directory, const std::string& output, const std::string& manifest = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_package_create(directory.c_str(), detail::or_null(manifest), output.c_str(), out);
  });
}
inline void sign(const std::string& file, const std::string& key) {
  detail::check(expert_package_sign(file.c_str(), key.c_str()));
}

}  // namespace packages

namespace models {

inline std::string add(const std::string& directory, const std::string& name = "", const std::string& home = "") {
  return detail::text_from([&](char** out, size_t* /*length*/) {
    return expert_model_add(detail::or_null(home), directory.c_str(), detail::or_null(name), out);
  });
}
inline void remove(const std::string& name, const std::string& home = "") {
  detail::check(expert_model_remove(detail::or_null(home), name.c_str()));
}
inline void set_default(const std::string& name, const std::string& home = "") {
  detail::check(expert_model_set_default(detail::or_null(home), name.c_str()));
}
inline std::string list(const std::string& home = "") {
  return detail::text_from(
      [&](char** out, size_t* /*length*/) { return expert_model_list(detail::or_null(home), out); });
}

}  // namespace models

namespace trust {

inline void add(const std::string& public_key, const std::string& name, const std::string& home = "") {
  detail::check(expert_trust_add(detail::or_null(home), public_key.c_str(), name.c_str()));
}
inline void remove(const std::string& name, const std::string& home = "") {
  detail::check(expert_trust_remove(detail::or_null(home), name.c_str()));
}
inline std::string list(const std::string& home = "") {
  return detail::text_from(
      [&](char** out, size_t* /*length*/) { return expert_trust_list(detail::or_null(home), out); });
}

}  // namespace trust

inline std::string generate_key(const std::string& output, const std::string& name = "") {
  return detail::text_from(
      [&](char** out, size_t* /*length*/) { return expert_key_generate(output.c_str(), detail::or_null(name), out); });
}
inline std::string bench(const std::string& options = "", expert_progress_callback progress = nullptr,
                         void* user_data = nullptr) {
  return detail::text_from(
      [&](char** out, size_t* /*length*/) { return expert_bench(detail::or_null(options), progress, user_data, out); });
}
inline std::string library_info() {
  return detail::text_from([](char** out, size_t* /*length*/) { return expert_library_info(out); });
}
inline std::string home() {
  return detail::text_from([](char** out, size_t* /*length*/) { return expert_home(out); });
}
inline std::string_view version() { return expert_version(); }

}  // namespace v0
}  // namespace expert

#endif
