#include "result.h"

#include <array>
#include <charconv>

namespace expert_python {

namespace {

enum Field : size_t { kText, kOutput, kTokens, kExpertsUsed, kFinishReason, kUsage, kTimings, kFields };

// Most callers look at two or three fields, so each is made when it is first asked for: a request finds the caches cold,
// and every object that is not touched is time saved. Written in C because a class of pybind11 or of Python would touch
// more than the result itself.
struct ResultObject {
  PyObject_HEAD
  const expert_result* result;  // NULL: made from fields, by copy and pickle
  expert_result* owned;         // one of these two owns it
  expert_chunk* chunk;
  PyObject* fields[kFields];
  PyObject* document;  // the JSON, where there is no `result`
};

// The classes of results.py.
struct Types {
  PyTypeObject* result;
  PyTypeObject* expert_used;
  PyTypeObject* usage;
  PyTypeObject* timings;
};
Types types;

PyTypeObject* base_type = nullptr;

ResultObject* self_of(PyObject* object) { return reinterpret_cast<ResultObject*>(object); }

PyObject* another(PyObject* object) {  // Py_NewRef is younger than Python 3.9
  Py_INCREF(object);
  return object;
}

// A row of a NamedTuple; steals `values`. NULL when one of them is.
template <size_t N>
PyObject* row(PyTypeObject* type, const std::array<PyObject*, N>& values) {
  bool complete = true;
  for (PyObject* value : values) complete = complete && value != nullptr;
  PyObject* out = complete ? type->tp_alloc(type, N) : nullptr;
  for (size_t i = 0; i < N; ++i) {
    if (out != nullptr) {
      PyTuple_SET_ITEM(out, static_cast<Py_ssize_t>(i), values[i]);
    } else {
      Py_XDECREF(values[i]);
    }
  }
  return out;
}

PyObject* text_of(const char* text, size_t length) {
  return PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(length), "replace");
}

PyObject* list_of(const int32_t* tokens, size_t count) {
  PyObject* out = PyList_New(static_cast<Py_ssize_t>(count));
  for (size_t i = 0; out != nullptr && i < count; ++i) {
    PyObject* token = PyLong_FromLong(tokens[i]);
    if (token == nullptr) Py_CLEAR(out);
    if (out != nullptr) PyList_SET_ITEM(out, static_cast<Py_ssize_t>(i), token);
  }
  return out;
}

// The double that prints as short as the float does, as in the JSON: 0.3, not 0.30000001192092896.
PyObject* shortest(float value) {
  char digits[32] = {};
  static_cast<void>(std::to_chars(digits, digits + sizeof digits - 1, value));
  return PyFloat_FromDouble(PyOS_string_to_double(digits, nullptr, nullptr));
}

PyObject* experts_of(const expert_result* result) {
  const size_t count = expert_result_expert_count(result);
  PyObject* out = PyList_New(static_cast<Py_ssize_t>(count));
  for (size_t i = 0; out != nullptr && i < count; ++i) {
    const char* name = "";
    const char* version = "";
    float weight = 0;
    check(expert_result_expert(result, i, &name, &version, &weight));
    PyObject* used = row<3>(types.expert_used,
                            {PyUnicode_FromString(name), PyUnicode_FromString(version), shortest(weight)});
    if (used == nullptr) Py_CLEAR(out);
    if (out != nullptr) PyList_SET_ITEM(out, static_cast<Py_ssize_t>(i), used);
  }
  return out;
}

PyObject* usage_of(const expert_result* result) {
  expert_usage usage = EXPERT_USAGE_INIT;
  check(expert_result_usage(result, &usage));
  return row<5>(types.usage, {PyLong_FromLong(usage.prompt_tokens), PyLong_FromLong(usage.completion_tokens),
                              PyLong_FromLong(usage.total_tokens), PyLong_FromLong(usage.prompt_virtual_tokens),
                              PyLong_FromLong(usage.cached_tokens)});
}

PyObject* timings_of(const expert_result* result) {
  expert_timings timings = EXPERT_TIMINGS_INIT;
  check(expert_result_timings(result, &timings));
  return row<6>(types.timings, {PyFloat_FromDouble(timings.queue_ms), PyFloat_FromDouble(timings.prefill_ms),
                                PyFloat_FromDouble(timings.first_token_ms), PyFloat_FromDouble(timings.decode_ms),
                                PyFloat_FromDouble(timings.total_ms), PyFloat_FromDouble(timings.tokens_per_second)});
}

PyObject* make_field(const expert_result* result, Field field) {
  size_t length = 0;
  switch (field) {
    case kText: {
      const char* text = expert_result_text(result, &length);
      return text_of(text, length);
    }
    case kOutput: {
      const char* output = expert_result_output(result, &length);
      return text_of(output, length);
    }
    case kTokens: {
      const int32_t* tokens = expert_result_tokens(result, &length);
      return list_of(tokens, length);
    }
    case kExpertsUsed:
      return experts_of(result);
    case kFinishReason:
      return PyUnicode_FromString(expert_finish_reason_name(expert_result_finish_reason(result)));
    case kUsage:
      return usage_of(result);
    default:
      return timings_of(result);
  }
}

PyObject* get_field(PyObject* object, void* which) {
  ResultObject* self = self_of(object);
  const auto field = static_cast<Field>(reinterpret_cast<uintptr_t>(which));
  if (self->fields[field] == nullptr) {
    PyObject* made = nullptr;
    try {
      if (self->result != nullptr) made = make_field(self->result, field);
    } catch (const Failure& failure) {
      PyErr_SetString(PyExc_RuntimeError, failure.message.c_str());
      return nullptr;
    }
    if (made == nullptr) {
      if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_AttributeError, "an expert.Result comes from an engine");
      return nullptr;
    }
    // Making it may have run the garbage collector, and so anything; the first one stays.
    if (self->fields[field] == nullptr) {
      self->fields[field] = made;
    } else {
      Py_DECREF(made);
    }
  }
  return another(self->fields[field]);
}

// ResultBase(text, output, tokens, experts_used, finish_reason, usage, timings, document): a copy.
PyObject* create(PyTypeObject* type, PyObject* arguments, PyObject* /*keywords*/) {
  PyObject* given[kFields + 1] = {};
  if (PyArg_UnpackTuple(arguments, "Result", kFields + 1, kFields + 1, &given[0], &given[1], &given[2], &given[3],
                        &given[4], &given[5], &given[6], &given[7]) == 0) {
    return nullptr;
  }
  PyObject* made = type->tp_alloc(type, 0);
  if (made == nullptr) return nullptr;
  for (size_t i = 0; i < kFields; ++i) self_of(made)->fields[i] = another(given[i]);
  self_of(made)->document = another(given[kFields]);
  return made;
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  ResultObject* self = self_of(object);
  for (PyObject* field : self->fields) Py_VISIT(field);
  Py_VISIT(self->document);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

// Fields of a result are made anew when asked for, so the collector may take them.
int clear(PyObject* object) {
  ResultObject* self = self_of(object);
  for (PyObject*& field : self->fields) Py_CLEAR(field);
  Py_CLEAR(self->document);
  return 0;
}

void deallocate(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  expert_result_free(self_of(object)->owned);
  expert_chunk_free(self_of(object)->chunk);
  type->tp_free(object);
  Py_DECREF(type);
}

void* closure(Field field) { return reinterpret_cast<void*>(static_cast<uintptr_t>(field)); }

PyGetSetDef getters[] = {
    {"text", get_field, nullptr, nullptr, closure(kText)},
    {"output", get_field, nullptr, nullptr, closure(kOutput)},
    {"tokens", get_field, nullptr, nullptr, closure(kTokens)},
    {"experts_used", get_field, nullptr, nullptr, closure(kExpertsUsed)},
    {"finish_reason", get_field, nullptr, nullptr, closure(kFinishReason)},
    {"usage", get_field, nullptr, nullptr, closure(kUsage)},
    {"timings", get_field, nullptr, nullptr, closure(kTimings)},
    {},
};
PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(create)},
    {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_getset, getters},
    {0, nullptr},
};
PyType_Spec spec = {"expert._core.ResultBase", sizeof(ResultObject), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};

ResultObject* allocate() {
  PyObject* made = types.result->tp_alloc(types.result, 0);
  if (made == nullptr) throw py::error_already_set();
  return self_of(made);
}

py::object finished(ResultObject* made) { return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(made)); }

PyTypeObject* kept(const py::type& type) { return reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr()); }

void set_types(const py::type& result, const py::type& expert_used, const py::type& usage, const py::type& timings) {
  if (PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(result.ptr()), base_type) == 0) {
    throw py::type_error("a Result is a ResultBase");
  }
  types = {kept(result), kept(expert_used), kept(usage), kept(timings)};
}

py::object json_of(const py::object& result) {
  if (PyObject_TypeCheck(result.ptr(), base_type) == 0) throw py::type_error("not a Result");
  const ResultObject* self = self_of(result.ptr());
  if (self->document != nullptr) return py::reinterpret_borrow<py::object>(self->document);
  return py::str(expert_result_json(self->result));
}

}  // namespace

py::object make_result(ResultHandle result) {
  ResultObject* made = allocate();
  made->result = made->owned = result.release();
  return finished(made);
}

py::object make_result(ChunkHandle chunk) {
  ResultObject* made = allocate();
  made->result = expert_chunk_result(chunk.get());
  made->chunk = chunk.release();
  return finished(made);
}

py::object tokens_of(const int32_t* tokens, size_t count) {
  PyObject* made = list_of(tokens, count);
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

void bind_result(py::module_& m) {
  const auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
  if (!type) throw py::error_already_set();
  base_type = reinterpret_cast<PyTypeObject*>(type.ptr());
  m.attr("ResultBase") = type;
  m.def("result_json", json_of, py::arg("result"));
  m.def("set_types", set_types, py::arg("result"), py::arg("expert_used"), py::arg("usage"), py::arg("timings"));
}

}  // namespace expert_python
