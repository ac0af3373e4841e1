// expert._core: the C interface for Python, as thin as it can be. Checking, defaults and friendly names are Python's
// part (bindings/python/expert). Text crosses as bytes in UTF-8; the interpreter lock is released around every call
// that may take time.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "interop.h"

using namespace expert_python;

namespace {

// expert.errors decides which class a status is.
void raise_in_python(const Failure& failure) {
  const py::object error =
      py::module_::import("expert.errors")
          .attr("from_status")(expert_status_name(failure.status), to_str(failure.message), to_str(failure.hint));
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

struct Expert {
  ExpertHandle handle;
};

// (Expert, None, weight) or (None, name, weight).
using Use = std::tuple<std::shared_ptr<Expert>, OptionalText, float>;

// Owns what a C array of expert_use points to.
struct Uses {
  std::vector<Use> given;
  std::vector<expert_use> uses;

  explicit Uses(std::vector<Use> list) : given(std::move(list)) {
    for (const auto& [expert, name, weight] : given) {
      uses.push_back({expert ? expert->handle.get() : nullptr, or_null(name), weight});
    }
  }
};

// A request as Python fills it in. Its strings outlive the C struct that view() makes of it.
struct Request {
  OptionalText prompt, messages, tools, template_variables, schema, body, caller, cache_salt;
  std::optional<std::vector<Use>> experts;  // none: the router
  std::vector<std::string> stop;
  std::vector<int32_t> logit_bias_tokens;
  std::vector<float> logit_bias_values;
  bool raw = false, plain_text = false, ignore_eos = false, trace = false;
  float temperature = EXPERT_UNSET_FLOAT, top_p = EXPERT_UNSET_FLOAT, min_p = EXPERT_UNSET_FLOAT;
  float repetition_penalty = EXPERT_UNSET_FLOAT, presence_penalty = EXPERT_UNSET_FLOAT;
  float frequency_penalty = EXPERT_UNSET_FLOAT;
  int32_t top_k = EXPERT_UNSET_INT, max_tokens = EXPERT_UNSET_INT, logprobs = 0, priority = 0;
  uint64_t seed = EXPERT_UNSET_SEED;
  double deadline_ms = 0;
};

void set_text(const OptionalText& text, const char*& pointer, size_t& length) {
  if (!text) return;
  pointer = text->data();
  length = text->size();
}

// Calls `use` with the C struct; everything it points to lives in `request` or in this frame.
template <typename Call>
expert_status with_request(const Request& request, Call&& call) {
  const Uses uses(request.experts.value_or(std::vector<Use>()));
  std::vector<const char*> stop;
  for (const std::string& text : request.stop) stop.push_back(text.c_str());
  expert_request view = EXPERT_REQUEST_INIT;
  set_text(request.prompt, view.prompt, view.prompt_length);
  set_text(request.schema, view.schema, view.schema_length);
  set_text(request.body, view.body, view.body_length);
  view.messages = or_null(request.messages);
  view.tools = or_null(request.tools);
  view.template_variables = or_null(request.template_variables);
  view.experts = uses.uses.data();
  view.expert_count = uses.uses.size();
  if (request.experts && request.experts->empty()) view.flags |= EXPERT_REQUEST_BASE_ONLY;
  if (request.raw) view.flags |= EXPERT_REQUEST_RAW;
  if (request.plain_text) view.flags |= EXPERT_REQUEST_PLAIN_TEXT;
  if (request.ignore_eos) view.flags |= EXPERT_REQUEST_IGNORE_EOS;
  if (request.trace) view.flags |= EXPERT_REQUEST_TRACE;
  view.temperature = request.temperature;
  view.top_p = request.top_p;
  view.min_p = request.min_p;
  view.repetition_penalty = request.repetition_penalty;
  view.presence_penalty = request.presence_penalty;
  view.frequency_penalty = request.frequency_penalty;
  view.top_k = request.top_k;
  view.max_tokens = request.max_tokens;
  view.logprobs = request.logprobs;
  view.seed = request.seed;
  view.stop = stop.data();
  view.stop_count = stop.size();
  view.logit_bias_tokens = request.logit_bias_tokens.data();
  view.logit_bias_values = request.logit_bias_values.data();
  view.logit_bias_count = request.logit_bias_tokens.size();
  view.priority = request.priority;
  view.deadline_ms = request.deadline_ms;
  view.caller = or_null(request.caller);
  view.cache_salt = or_null(request.cache_salt);
  return call(&view);
}

// A result as long as Python may ask for the rest of it. Its owner is the result itself, or the chunk that carries it.
struct ResultDocument {
  std::shared_ptr<const void> owner;
  const expert_result* result;
  py::str json() const { return expert_result_json(result); }
};

py::list experts_of(const expert_result* result) {
  py::list experts;
  for (size_t i = 0; i < expert_result_expert_count(result); ++i) {
    const char* name = nullptr;
    const char* version = nullptr;
    float weight = 0;
    check(expert_result_expert(result, i, &name, &version, &weight));
    experts.append(py::make_tuple(name, version, weight));
  }
  return experts;
}

// ((text, output, tokens, experts used, finish reason, usage, timings), document).
py::tuple parts_of(const expert_result* result, std::shared_ptr<const void> owner) {
  expert_usage usage = EXPERT_USAGE_INIT;
  expert_timings timings = EXPERT_TIMINGS_INIT;
  check(expert_result_usage(result, &usage));
  check(expert_result_timings(result, &timings));
  size_t text_length = 0;
  size_t output_length = 0;
  size_t count = 0;
  const char* text = expert_result_text(result, &text_length);
  const char* output = expert_result_output(result, &output_length);
  const int32_t* tokens = expert_result_tokens(result, &count);
  const py::tuple fields = py::make_tuple(
      to_str(text, text_length), to_str(output, output_length), std::vector<int32_t>(tokens, tokens + count),
      experts_of(result), expert_finish_reason_name(expert_result_finish_reason(result)),
      py::make_tuple(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.prompt_virtual_tokens,
                     usage.cached_tokens),
      py::make_tuple(timings.queue_ms, timings.prefill_ms, timings.first_token_ms, timings.decode_ms, timings.total_ms,
                     timings.tokens_per_second));
  return py::make_tuple(fields, ResultDocument{std::move(owner), result});
}

class Stream {
 public:
  explicit Stream(expert_stream* stream) : stream_(stream) {}

  // (text, tokens, parts of the result or None), or None at the end.
  py::object next(int64_t timeout_ms) {
    expert_chunk* given = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(expert_stream_next(stream_.get(), timeout_ms, &given));
    }
    const std::shared_ptr<expert_chunk> chunk = ChunkHandle(given);
    if (chunk == nullptr) return py::none();
    size_t length = 0;
    const char* text = expert_chunk_text(chunk.get(), &length);
    size_t count = 0;
    const int32_t* tokens = expert_chunk_tokens(chunk.get(), &count);
    const expert_result* result = expert_chunk_result(chunk.get());
    return py::make_tuple(to_str(text, length), std::vector<int32_t>(tokens, tokens + count),
                          result != nullptr ? py::object(parts_of(result, chunk)) : py::none());
  }

  py::tuple wait(int64_t timeout_ms) {
    expert_result* given = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(expert_stream_wait(stream_.get(), timeout_ms, &given));
    }
    const std::shared_ptr<expert_result> result = ResultHandle(given);
    return parts_of(given, result);
  }

  bool done() const { return expert_stream_done(stream_.get()) != 0; }
  void cancel() { expert_cancel(stream_.get()); }

 private:
  StreamHandle stream_;
};

class Engine {
 public:
  Engine(const OptionalText& base_model, const OptionalText& device, const OptionalText& weights,
         const OptionalText& kv, const OptionalText& rope_scaling, const OptionalText& home, int64_t context_size,
         uint64_t memory_limit, int32_t threads, int32_t max_queue, int32_t max_batch, int32_t max_experts,
         uint64_t prefix_cache_bytes, uint64_t expert_cache_bytes, bool use_weight_cache, const py::object& listener) {
    Progress progress(listener);
    expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
    options.base_model = or_null(base_model);
    options.device = or_null(device);
    options.weights = or_null(weights);
    options.kv = or_null(kv);
    options.rope_scaling = or_null(rope_scaling);
    options.home = or_null(home);
    options.context_size = context_size;
    options.memory_limit = memory_limit;
    options.threads = threads;
    options.max_queue = max_queue;
    options.max_batch = max_batch;
    options.max_experts = max_experts;
    options.prefix_cache_bytes = prefix_cache_bytes;
    options.expert_cache_bytes = expert_cache_bytes;
    if (!use_weight_cache) options.flags |= EXPERT_ENGINE_NO_WEIGHT_CACHE;
    options.progress = Progress::report;
    options.progress_user_data = &progress;
    open(options, progress);
  }

  void close(bool drain) {
    py::gil_scoped_release unlocked;
    check(expert_engine_close(engine_.get(), drain ? EXPERT_CLOSE_DRAIN : 0));
  }

  std::shared_ptr<Expert> load(const std::string& source) {
    expert_expert* loaded = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(expert_load(engine_.get(), source.c_str(), &loaded));
    }
    return std::make_shared<Expert>(Expert{ExpertHandle(loaded)});
  }

  std::shared_ptr<Expert> find(const std::string& name) {
    expert_expert* found = nullptr;
    check(expert_engine_find(engine_.get(), name.c_str(), &found));
    return std::make_shared<Expert>(Expert{ExpertHandle(found)});
  }

  bool closed() const { return expert_engine_closed(engine_.get()) != 0; }

  void unload(const std::shared_ptr<Expert>& expert) {
    py::gil_scoped_release unlocked;
    check(expert_unload(engine_.get(), expert->handle.get()));
  }

  std::unique_ptr<Stream> submit(const Request& request) {
    expert_stream* stream = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(with_request(request,
                         [&](const expert_request* view) { return expert_submit(engine_.get(), view, &stream); }));
    }
    return std::make_unique<Stream>(stream);
  }

  py::str route(const Request& request) const {
    return text_from([&](char** out) {
      return with_request(request, [&](const expert_request* view) { return expert_route(engine_.get(), view, out); });
    });
  }

  std::vector<int32_t> tokenize(const std::string& text, bool special_in_text, bool add_special) const {
    py::gil_scoped_release unlocked;
    const uint32_t flags =
        (special_in_text ? 0 : EXPERT_TOKENIZE_PLAIN_TEXT) | (add_special ? EXPERT_TOKENIZE_ADD_SPECIAL : 0);
    int32_t* ids = nullptr;
    size_t count = 0;
    check(expert_tokenize(engine_.get(), text.data(), text.size(), flags, &ids, &count));
    const Tokens owned(ids);
    return {ids, ids + count};
  }

  py::str detokenize(const std::vector<int32_t>& ids, bool skip_special) const {
    char* text = nullptr;
    size_t length = 0;
    check(expert_detokenize(engine_.get(), ids.data(), ids.size(), skip_special ? EXPERT_DETOKENIZE_SKIP_SPECIAL : 0,
                            &text, &length));
    const Text owned(text);
    return to_str(text, length);
  }

  py::str apply_chat_template(const std::string& messages, const OptionalText& tools, const OptionalText& variables,
                              bool add_generation_prompt) const {
    char* text = nullptr;
    size_t length = 0;
    check(expert_apply_chat_template(engine_.get(), messages.c_str(), or_null(tools), or_null(variables),
                                     add_generation_prompt ? 0 : EXPERT_TEMPLATE_NO_GENERATION_PROMPT, &text, &length));
    const Text owned(text);
    return to_str(text, length);
  }

  // Into `out`, a writable buffer of float32.
  void logits(const std::vector<int32_t>& ids, std::vector<Use> experts, const py::buffer& out) {
    const py::buffer_info room = out.request(true);
    const Uses uses(std::move(experts));
    py::gil_scoped_release unlocked;
    check(expert_logits(engine_.get(), ids.data(), ids.size(), uses.uses.data(), uses.uses.size(),
                        static_cast<float*>(room.ptr), floats_in(room)));
  }

  void embed(const std::string& text, const std::string& pooling, bool normalize, std::vector<Use> experts,
             const py::buffer& out) {
    const py::buffer_info room = out.request(true);
    const Uses uses(std::move(experts));
    py::gil_scoped_release unlocked;
    check(expert_embed(engine_.get(), text.data(), text.size(), pooling.c_str(), uses.uses.data(), uses.uses.size(),
                       normalize ? 0 : EXPERT_EMBED_NO_NORMALIZE, static_cast<float*>(room.ptr), floats_in(room)));
  }

  int32_t vocab_size() const {
    int32_t size = 0;
    check(expert_engine_vocab_size(engine_.get(), &size));
    return size;
  }
  int32_t hidden_size() const {
    int32_t size = 0;
    check(expert_engine_hidden_size(engine_.get(), &size));
    return size;
  }
  int32_t context_size() const {
    int32_t size = 0;
    check(expert_engine_context_size(engine_.get(), &size));
    return size;
  }
  py::str info() const {
    return text_from([&](char** out) { return expert_engine_info(engine_.get(), out); });
  }
  py::str stats() const {
    return text_from([&](char** out) { return expert_engine_stats(engine_.get(), out); });
  }
  py::str metrics() const {
    return text_from([&](char** out) { return expert_engine_metrics(engine_.get(), out); });
  }
  py::str experts() const {
    return text_from([&](char** out) { return expert_engine_experts(engine_.get(), out); });
  }

 private:
  void open(const expert_engine_options& options, Progress& progress) {
    expert_engine* engine = nullptr;
    std::optional<Failure> failure;
    {
      py::gil_scoped_release unlocked;
      try {
        check(expert_engine_open(&options, &engine));
      } catch (const Failure& caught) {
        failure = caught;
      }
    }
    engine_.reset(engine);
    progress.finish(failure);
  }

  static size_t floats_in(const py::buffer_info& room) { return static_cast<size_t>(room.size); }

  EngineHandle engine_;
};

OptionalText optional_text(const py::object& value) {
  return value.is_none() ? OptionalText() : OptionalText(value.cast<std::string>());
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.attr("version") = expert_version();
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Failure& failure) {
      raise_in_python(failure);
    }
  });

  py::class_<Expert, std::shared_ptr<Expert>>(m, "Expert")
      .def_property_readonly("name", [](const Expert& e) { return std::string(expert_expert_name(e.handle.get())); })
      .def_property_readonly("version",
                             [](const Expert& e) { return std::string(expert_expert_version(e.handle.get())); })
      .def_property_readonly("kinds", [](const Expert& e) { return std::string(expert_expert_kinds(e.handle.get())); })
      .def_property_readonly("manifest",
                             [](const Expert& e) { return std::string(expert_expert_manifest(e.handle.get())); })
      .def_property_readonly("warnings",
                             [](const Expert& e) { return std::string(expert_expert_warnings(e.handle.get())); })
      .def_property_readonly("unloaded", [](const Expert& e) { return expert_expert_unloaded(e.handle.get()) != 0; })
      .def_property_readonly("size_bytes", [](const Expert& e) { return expert_expert_size_bytes(e.handle.get()); });

  bind_library(m);

  py::class_<Request>(m, "Request")
      .def(py::init<>())
      .def_readwrite("prompt", &Request::prompt)
      .def_readwrite("messages", &Request::messages)
      .def_readwrite("tools", &Request::tools)
      .def_readwrite("template_variables", &Request::template_variables)
      .def_readwrite("schema", &Request::schema)
      .def_readwrite("body", &Request::body)
      .def_readwrite("caller", &Request::caller)
      .def_readwrite("cache_salt", &Request::cache_salt)
      .def_readwrite("experts", &Request::experts)
      .def_readwrite("stop", &Request::stop)
      .def_readwrite("logit_bias_tokens", &Request::logit_bias_tokens)
      .def_readwrite("logit_bias_values", &Request::logit_bias_values)
      .def_readwrite("raw", &Request::raw)
      .def_readwrite("plain_text", &Request::plain_text)
      .def_readwrite("ignore_eos", &Request::ignore_eos)
      .def_readwrite("trace", &Request::trace)
      .def_readwrite("temperature", &Request::temperature)
      .def_readwrite("top_p", &Request::top_p)
      .def_readwrite("min_p", &Request::min_p)
      .def_readwrite("repetition_penalty", &Request::repetition_penalty)
      .def_readwrite("presence_penalty", &Request::presence_penalty)
      .def_readwrite("frequency_penalty", &Request::frequency_penalty)
      .def_readwrite("top_k", &Request::top_k)
      .def_readwrite("max_tokens", &Request::max_tokens)
      .def_readwrite("logprobs", &Request::logprobs)
      .def_readwrite("priority", &Request::priority)
      .def_readwrite("seed", &Request::seed)
      .def_readwrite("deadline_ms", &Request::deadline_ms);

  py::class_<ResultDocument>(m, "ResultDocument").def("json", &ResultDocument::json);

  py::class_<Stream>(m, "Stream")
      .def("next", &Stream::next, py::arg("timeout_ms"))
      .def("wait", &Stream::wait, py::arg("timeout_ms"))
      .def("done", &Stream::done)
      .def("cancel", &Stream::cancel);

  py::class_<Engine>(m, "Engine")
      .def(py::init([](const py::object& base_model, const py::object& device, const py::object& weights,
                       const py::object& kv, const py::object& rope_scaling, const py::object& home,
                       int64_t context_size, uint64_t memory_limit, int32_t threads, int32_t max_queue,
                       int32_t max_batch, int32_t max_experts, uint64_t prefix_cache_bytes,
                       uint64_t expert_cache_bytes, bool use_weight_cache, const py::object& progress) {
             return std::make_unique<Engine>(optional_text(base_model), optional_text(device), optional_text(weights),
                                             optional_text(kv), optional_text(rope_scaling), optional_text(home),
                                             context_size, memory_limit, threads, max_queue, max_batch, max_experts,
                                             prefix_cache_bytes, expert_cache_bytes, use_weight_cache, progress);
           }),
           py::arg("base_model"), py::arg("device"), py::arg("weights"), py::arg("kv"), py::arg("rope_scaling"),
           py::arg("home"), py::arg("context_size"), py::arg("memory_limit"), py::arg("threads"), py::arg("max_queue"),
           py::arg("max_batch"), py::arg("max_experts"), py::arg("prefix_cache_bytes"), py::arg("expert_cache_bytes"),
           py::arg("use_weight_cache"), py::arg("progress"))
      .def("close", &Engine::close, py::arg("drain"))
      .def("load", &Engine::load, py::arg("source"))
      .def("find", &Engine::find, py::arg("name"))
      .def("closed", &Engine::closed)
      .def("unload", &Engine::unload, py::arg("expert"))
      .def("submit", &Engine::submit, py::arg("request"))
      .def("route", &Engine::route, py::arg("request"))
      .def("tokenize", &Engine::tokenize, py::arg("text"), py::arg("special_in_text"), py::arg("add_special"))
      .def("detokenize", &Engine::detokenize, py::arg("ids"), py::arg("skip_special"))
      .def("apply_chat_template", &Engine::apply_chat_template, py::arg("messages"), py::arg("tools"),
           py::arg("variables"), py::arg("add_generation_prompt"))
      .def("logits", &Engine::logits, py::arg("ids"), py::arg("experts"), py::arg("out"))
      .def("embed", &Engine::embed, py::arg("text"), py::arg("pooling"), py::arg("normalize"), py::arg("experts"),
           py::arg("out"))
      .def("vocab_size", &Engine::vocab_size)
      .def("hidden_size", &Engine::hidden_size)
      .def("context_size", &Engine::context_size)
      .def("info", &Engine::info)
      .def("stats", &Engine::stats)
      .def("metrics", &Engine::metrics)
      .def("experts", &Engine::experts);
}
