// expert._core: the C interface for Python, as thin as it can be. Checking, defaults and friendly names are Python's
// part (bindings/python/expert). Text crosses as bytes in UTF-8; the interpreter lock is released around every call
// that may take time.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "request.h"
#include "result.h"

using namespace expert_python;

namespace {

class Stream {
 public:
  explicit Stream(expert_stream* stream) : stream_(stream) {}

  // (text, tokens, result or None), or None at the end.
  py::object next(int64_t timeout_ms) {
    expert_chunk* given = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(expert_stream_next(stream_.get(), timeout_ms, &given));
    }
    ChunkHandle chunk(given);
    if (chunk == nullptr) return py::none();
    size_t length = 0;
    const char* bytes = expert_chunk_text(chunk.get(), &length);
    py::object text = to_str(bytes, length);
    size_t count = 0;
    const int32_t* ids = expert_chunk_tokens(chunk.get(), &count);
    py::object tokens = tokens_of(ids, count);
    const bool last = expert_chunk_result(chunk.get()) != nullptr;
    return py::make_tuple(std::move(text), std::move(tokens), last ? make_result(std::move(chunk)) : py::none());
  }

  py::object wait(int64_t timeout_ms) {
    expert_result* given = nullptr;
    {
      py::gil_scoped_release unlocked;
      check(expert_stream_wait(stream_.get(), timeout_ms, &given));
    }
    return make_result(ResultHandle(given));
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
         uint64_t prefix_cache_bytes, uint64_t expert_cache_bytes, bool use_weight_cache, bool head_screen,
         const py::object& listener) {
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
    if (!head_screen) options.flags |= EXPERT_ENGINE_NO_HEAD_SCREEN;
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

  expert_engine* handle() const { return engine_.get(); }

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

  bind_result(m);

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
                       uint64_t expert_cache_bytes, bool use_weight_cache, bool head_screen,
                       const py::object& progress) {
             return std::make_unique<Engine>(optional_text(base_model), optional_text(device), optional_text(weights),
                                             optional_text(kv), optional_text(rope_scaling), optional_text(home),
                                             context_size, memory_limit, threads, max_queue, max_batch, max_experts,
                                             prefix_cache_bytes, expert_cache_bytes, use_weight_cache, head_screen,
                                             progress);
           }),
           py::arg("base_model"), py::arg("device"), py::arg("weights"), py::arg("kv"), py::arg("rope_scaling"),
           py::arg("home"), py::arg("context_size"), py::arg("memory_limit"), py::arg("threads"), py::arg("max_queue"),
           py::arg("max_batch"), py::arg("max_experts"), py::arg("prefix_cache_bytes"), py::arg("expert_cache_bytes"),
           py::arg("use_weight_cache"), py::arg("head_screen"), py::arg("progress"))
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

  m.def(
      "infer_function", [](const py::object& engine) { return make_infer(engine, engine.cast<Engine&>().handle()); },
      py::arg("engine"));
}
