// What every part of expert._core needs: failures, text, and who frees what.
#pragma once

#include <expert/expert.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace py = pybind11;

namespace expert_python {

struct Failure {
  expert_status status;
  std::string message;
  std::string hint;
};

// To be called on the thread that made the failing call, before anything else is called.
inline void check(expert_status status) {
  if (status == EXPERT_OK) return;
  const expert_error* error = expert_last_error();
  throw Failure{status, error->message, error->hint};
}

inline py::str to_str(const char* text, size_t length) {
  PyObject* decoded = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(length), "replace");
  if (decoded == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(decoded);
}

inline py::str to_str(const std::string& text) { return to_str(text.data(), text.size()); }

// expert.errors decides which class a status is.
inline void raise_in_python(const Failure& failure) {
  const py::object error =
      py::module_::import("expert.errors")
          .attr("from_status")(expert_status_name(failure.status), to_str(failure.message), to_str(failure.hint));
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

struct Deleter {
  void operator()(expert_engine* engine) const {
    py::gil_scoped_release unlocked;  // waits for the engine's thread
    expert_engine_free(engine);
  }
  void operator()(expert_expert* expert) const { expert_expert_free(expert); }
  void operator()(expert_stream* stream) const { expert_stream_free(stream); }
  void operator()(expert_result* result) const { expert_result_free(result); }
  void operator()(expert_chunk* chunk) const { expert_chunk_free(chunk); }
  void operator()(void* memory) const { expert_free(memory); }
};

using EngineHandle = std::unique_ptr<expert_engine, Deleter>;
using ExpertHandle = std::unique_ptr<expert_expert, Deleter>;
using StreamHandle = std::unique_ptr<expert_stream, Deleter>;
using ResultHandle = std::unique_ptr<expert_result, Deleter>;
using ChunkHandle = std::unique_ptr<expert_chunk, Deleter>;
using Text = std::unique_ptr<char, Deleter>;
using Tokens = std::unique_ptr<int32_t, Deleter>;
using OptionalText = std::optional<std::string>;

inline const char* or_null(const OptionalText& text) { return text ? text->c_str() : nullptr; }

// Runs `call(&text)` unlocked; the text it gives becomes a str.
template <typename Call>
py::str text_from(Call&& call) {
  Text text;
  {
    py::gil_scoped_release unlocked;
    char* given = nullptr;
    check(call(&given));
    text.reset(given);
  }
  return to_str(text.get(), std::char_traits<char>::length(text.get()));
}

// The user data of an expert_progress_callback: asks Python now and then whether Ctrl-C was pressed, and tells
// `listener` (a callable or None) how far the call is. What either raises ends the call and is raised again by
// finish().
class Progress {
 public:
  explicit Progress(py::object listener) : listener_(std::move(listener)) {}

  static int report(void* user_data, double fraction) {
    py::gil_scoped_acquire locked;
    return static_cast<Progress*>(user_data)->tell(fraction) ? 0 : 1;
  }

  // With the lock held, after the call.
  void finish(const std::optional<Failure>& failure) {
    if (raised_) {
      raised_->restore();
      throw py::error_already_set();
    }
    if (failure) throw *failure;
  }

 private:
  bool tell(double fraction) {
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!listener_.is_none()) listener_(fraction);
      return true;
    } catch (py::error_already_set& error) {
      raised_.emplace(std::move(error));
      return false;
    }
  }

  py::object listener_;
  std::optional<py::error_already_set> raised_;
};

// library.cpp: what needs no engine.
void bind_library(py::module_& m);

}  // namespace expert_python
