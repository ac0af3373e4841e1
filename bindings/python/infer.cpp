// Engine.infer() in one step: the arguments become the C struct, the result an expert.Result, with nothing in between.
// What the bindings add to a call is mostly memory that the model has pushed out of the caches, so this way touches as
// little as it can: no class of pybind11, no Python code. Arguments that are not plain, and all that are wrong, go
// through _request.build(), which knows every spelling and words every error.
#include <array>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "request.h"
#include "result.h"

namespace expert_python {

namespace {

constexpr int64_t kPollMs = 100;  // how long Ctrl-C may go unnoticed
constexpr size_t kMost = 8;       // plain experts, and stop strings

enum class Kind : uint8_t { text, c_text, number, real, integer, flag, no_flag, seed, experts, stop };

struct Option {
  const char* name;
  Kind kind;
  size_t offset;     // in expert_request; of a text the pointer, its length is the next member
  uint32_t bit = 0;  // EXPERT_REQUEST_*
};

// Frequent ones first.
constexpr std::array kOptions = {
    Option{"experts", Kind::experts, 0},
    Option{"max_tokens", Kind::integer, offsetof(expert_request, max_tokens)},
    Option{"temperature", Kind::number, offsetof(expert_request, temperature)},
    Option{"schema", Kind::text, offsetof(expert_request, schema)},
    Option{"body", Kind::text, offsetof(expert_request, body)},
    Option{"stop", Kind::stop, 0},
    Option{"seed", Kind::seed, 0},
    Option{"special_in_text", Kind::no_flag, 0, EXPERT_REQUEST_PLAIN_TEXT},
    Option{"ignore_eos", Kind::flag, 0, EXPERT_REQUEST_IGNORE_EOS},
    Option{"raw", Kind::flag, 0, EXPERT_REQUEST_RAW},
    Option{"trace", Kind::flag, 0, EXPERT_REQUEST_TRACE},
    Option{"top_p", Kind::number, offsetof(expert_request, top_p)},
    Option{"top_k", Kind::integer, offsetof(expert_request, top_k)},
    Option{"min_p", Kind::number, offsetof(expert_request, min_p)},
    Option{"repetition_penalty", Kind::number, offsetof(expert_request, repetition_penalty)},
    Option{"presence_penalty", Kind::number, offsetof(expert_request, presence_penalty)},
    Option{"frequency_penalty", Kind::number, offsetof(expert_request, frequency_penalty)},
    Option{"logprobs", Kind::integer, offsetof(expert_request, logprobs)},
    Option{"priority", Kind::integer, offsetof(expert_request, priority)},
    Option{"deadline_ms", Kind::real, offsetof(expert_request, deadline_ms)},
    Option{"caller", Kind::c_text, offsetof(expert_request, caller)},
    Option{"cache_salt", Kind::c_text, offsetof(expert_request, cache_salt)},
};

// From Python's side of this package, once somebody calls.
struct Python {
  PyObject* keys[kOptions.size()];  // the options' names, interned: keywords are compared by address
  PyObject* build;                 // _request.build
  PyTypeObject* expert;
  PyObject* core;  // "_core"
};
Python python;

// The C struct over arguments that stay alive and unchanged as long as it: strings and numbers of the caller.
class PlainRequest {
 public:
  // False: not plain. Nothing is raised.
  bool read(PyObject* prompt, PyObject* given) {
    if (prompt != Py_None && !set_text(prompt, view_.prompt, view_.prompt_length)) return false;
    Py_ssize_t position = 0;
    PyObject* key = nullptr;
    PyObject* value = nullptr;
    while (PyDict_Next(given, &position, &key, &value) != 0) {
      const Option* option = find(key);
      if (option == nullptr || (value != Py_None && !set(*option, value))) return false;
    }
    return true;
  }

  const expert_request* view() const { return &view_; }

 private:
  static const Option* find(PyObject* key) {
    for (size_t i = 0; i < kOptions.size(); ++i) {
      if (python.keys[i] == key) return &kOptions[i];
    }
    return nullptr;
  }

  template <typename T>
  T& at(size_t offset) {
    return *reinterpret_cast<T*>(reinterpret_cast<char*>(&view_) + offset);
  }

  bool set(const Option& option, PyObject* value) {
    switch (option.kind) {
      case Kind::text:
        return set_text(value, at<const char*>(option.offset), at<size_t>(option.offset + sizeof(char*)));
      case Kind::c_text:
        return set_c_text(value, at<const char*>(option.offset));
      case Kind::number: {
        double number = 0;
        float& out = at<float>(option.offset);
        return get_number(value, number) && std::isfinite(out = static_cast<float>(number));
      }
      case Kind::real:
        return get_number(value, at<double>(option.offset));
      case Kind::integer:
        return set_integer(value, at<int32_t>(option.offset));
      case Kind::flag:
      case Kind::no_flag:
        if (!PyBool_Check(value)) return false;
        if ((value == Py_True) == (option.kind == Kind::flag)) view_.flags |= option.bit;
        return true;
      case Kind::seed:
        return set_seed(value);
      case Kind::experts:
        return set_experts(value);
      case Kind::stop:
        return set_stop(value);
    }
    return false;
  }

  // A str keeps its UTF-8.
  static bool set_text(PyObject* value, const char*& text, size_t& length) {
    if (!PyUnicode_CheckExact(value)) return false;
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(value, &size);
    if (bytes == nullptr) {
      PyErr_Clear();
      return false;
    }
    text = bytes;
    length = static_cast<size_t>(size);
    return true;
  }

  static bool set_c_text(PyObject* value, const char*& text) {
    size_t length = 0;
    return set_text(value, text, length) && std::strlen(text) == length;
  }

  static bool get_number(PyObject* value, double& out) {
    if (PyFloat_CheckExact(value)) {
      out = PyFloat_AS_DOUBLE(value);
      return std::isfinite(out);
    }
    int32_t whole = 0;
    if (!set_integer(value, whole)) return false;
    out = whole;
    return true;
  }

  static bool set_integer(PyObject* value, int32_t& out) {
    if (!PyLong_CheckExact(value)) return false;
    int overflow = 0;
    const long whole = PyLong_AsLongAndOverflow(value, &overflow);
    if (overflow != 0 || whole > INT32_MAX || whole < -INT32_MAX) return false;
    out = static_cast<int32_t>(whole);
    return true;
  }

  bool set_seed(PyObject* value) {
    if (!PyLong_CheckExact(value)) return false;
    const unsigned long long seed = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() != nullptr) {
      PyErr_Clear();
      return false;
    }
    view_.seed = seed;
    return seed != EXPERT_UNSET_SEED;
  }

  // [Expert, "name", …] without weights.
  bool set_experts(PyObject* value) {
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) > static_cast<Py_ssize_t>(kMost)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i) {
      if (!set_expert(PyList_GET_ITEM(value, i), uses_[static_cast<size_t>(i)])) return false;
      ++view_.expert_count;
    }
    if (view_.expert_count == 0) view_.flags |= EXPERT_REQUEST_BASE_ONLY;
    view_.experts = uses_.data();
    return true;
  }

  bool set_expert(PyObject* entry, expert_use& use) {
    use = {nullptr, nullptr, 1.0F};
    if (Py_TYPE(entry) != python.expert) {
      keep(py::reinterpret_borrow<py::object>(entry));
      return PyUnicode_CheckExact(entry) && PyUnicode_IS_COMPACT_ASCII(entry) && set_c_text(entry, use.name);
    }
    const py::object& core = keep(py::reinterpret_steal<py::object>(PyObject_GetAttr(entry, python.core)));
    if (!core) throw py::error_already_set();
    use.expert = core.cast<const Expert&>().handle.get();
    return true;
  }

  bool set_stop(PyObject* value) {
    if (PyUnicode_CheckExact(value)) return add_stop(value);
    if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) > static_cast<Py_ssize_t>(kMost)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i) {
      if (!add_stop(PyList_GET_ITEM(value, i))) return false;
    }
    return true;
  }

  bool add_stop(PyObject* text) {
    view_.stop = stop_.data();
    keep(py::reinterpret_borrow<py::object>(text));
    return set_c_text(text, stop_[view_.stop_count++]);
  }

  // What stands in a list, which may change while the request is submitted.
  const py::object& keep(py::object object) { return kept_[kept_count_++] = std::move(object); }

  expert_request view_ = EXPERT_REQUEST_INIT;
  std::array<expert_use, kMost> uses_;
  std::array<const char*, kMost> stop_;
  std::array<py::object, 2 * kMost> kept_;
  size_t kept_count_ = 0;
};

// Without the interpreter lock.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() { PyEval_RestoreThread(state_); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// The result, or none when Ctrl-C is to be looked for; then `stream` is the request that runs.
ResultHandle wait(StreamHandle& stream) {
  expert_result* result = nullptr;
  const expert_status status = expert_stream_wait(stream.get(), kPollMs, &result);
  if (status != EXPERT_ERROR_TIMEOUT) check(status);
  if (result != nullptr) stream.reset();
  return ResultHandle(result);
}

ResultHandle run(expert_engine* engine, const expert_request* view) {
  StreamHandle stream;
  {
    const Unlocked unlocked;
    expert_stream* given = nullptr;
    check(expert_submit(engine, view, &given));
    stream.reset(given);
    if (ResultHandle result = wait(stream)) return result;
  }
  while (true) {
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();  // dropping the stream cancels the request
    const Unlocked unlocked;
    if (ResultHandle result = wait(stream)) return result;
  }
}

ResultHandle run(expert_engine* engine, PyObject* prompt, PyObject* given) {
  PlainRequest plain;
  if (plain.read(prompt, given)) return run(engine, plain.view());
  const auto arguments = py::make_tuple(py::reinterpret_borrow<py::object>(prompt));
  const auto built = py::reinterpret_steal<py::object>(PyObject_Call(python.build, arguments.ptr(), given));
  if (!built) throw py::error_already_set();
  return with_request(built.cast<const Request&>(),
                      [&](const expert_request* view) { return run(engine, view); });
}

struct Callee {
  py::object owner;
  expert_engine* engine;
};

constexpr const char* kCallee = "expert_engine";

PyObject* infer(const Callee& callee, PyObject* prompt, PyObject* given) {
  ResultHandle result = run(callee.engine, prompt, given);
  const bool cancelled = expert_result_finish_reason(result.get()) == EXPERT_FINISH_CANCELLED;
  py::object made = make_result(std::move(result));
  if (!cancelled) return made.release().ptr();
  const py::object type = py::module_::import("expert.errors").attr("CancelledError");
  PyErr_SetObject(type.ptr(), type("the request was cancelled", py::arg("partial") = made).ptr());
  return nullptr;
}

// (prompt, options)
PyObject* call(PyObject* capsule, PyObject* const* arguments, Py_ssize_t count) {
  const auto* callee = static_cast<const Callee*>(PyCapsule_GetPointer(capsule, kCallee));
  if (callee == nullptr) return nullptr;
  if (count != 2 || !PyDict_Check(arguments[1])) {
    PyErr_SetString(PyExc_TypeError, "expected a prompt and a dict of options");
    return nullptr;
  }
  try {
    try {
      return infer(*callee, arguments[0], arguments[1]);
    } catch (const Failure& failure) {
      raise_in_python(failure);
    }
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyMethodDef definition = {"infer", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call)), METH_FASTCALL,
                          nullptr};

void prepare() {
  if (python.build != nullptr) return;
  python.core = PyUnicode_InternFromString("_core");
  for (size_t i = 0; i < kOptions.size(); ++i) python.keys[i] = PyUnicode_InternFromString(kOptions[i].name);
  const py::object type = py::module_::import("expert.engine").attr("Expert");
  const py::object build = py::module_::import("expert._request").attr("build");
  python.expert = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
  python.build = build.inc_ref().ptr();
}

}  // namespace

py::object make_infer(py::object owner, expert_engine* engine) {
  prepare();
  auto callee = std::make_unique<Callee>(Callee{std::move(owner), engine});
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(callee.get(), kCallee, [](PyObject* dying) {
    delete static_cast<Callee*>(PyCapsule_GetPointer(dying, kCallee));
  }));
  if (!capsule) throw py::error_already_set();
  callee.release();
  PyObject* function = PyCFunction_New(&definition, capsule.ptr());
  if (function == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(function);
}

}  // namespace expert_python
