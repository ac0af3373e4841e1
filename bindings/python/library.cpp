// Installed experts, registered models, keys, measuring, the log.
#include "interop.h"

namespace expert_python {

namespace {

// One receiver per process. Never freed: a thread of the library may be on its way to it.
struct LogReceiver {
  py::object callback;  // under the interpreter's lock

  static LogReceiver& get() {
    static LogReceiver& receiver = *new LogReceiver;
    return receiver;
  }
  static void hear(void* /*user_data*/, expert_log_level level, const char* message) {
    const py::gil_scoped_acquire locked;
    const py::object callback = get().callback;
    if (!callback || callback.is_none()) return;
    try {
      callback(static_cast<int>(level), to_str(message, std::char_traits<char>::length(message)));
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("a log callback");
    }
  }
};

void set_log_callback(const py::object& callback, int least) {
  const bool silent = callback.is_none();
  LogReceiver::get().callback = callback;
  py::gil_scoped_release unlocked;
  expert_set_log_callback(silent ? nullptr : LogReceiver::hear, nullptr, static_cast<expert_log_level>(least));
}

py::str bench(const std::string& options, const py::object& listener) {
  Progress progress(listener);
  std::optional<Failure> failure;
  Text text;
  {
    py::gil_scoped_release unlocked;
    char* given = nullptr;
    try {
      check(expert_bench(options.c_str(), Progress::report, &progress, &given));
    } catch (const Failure& caught) {
      failure = caught;
    }
    text.reset(given);
  }
  progress.finish(failure);
  return py::str(text.get());
}

// Without the lock: these read and write files.
void run(expert_status (*call)(const char*, const char*), const OptionalText& home, const std::string& name) {
  py::gil_scoped_release unlocked;
  check(call(or_null(home), name.c_str()));
}

}  // namespace

void bind_library(py::module_& m) {
  m.def("library_info", [] { return text_from([](char** out) { return expert_library_info(out); }); });
  m.def("home", [] { return text_from([](char** out) { return expert_home(out); }); });
  m.def("set_log_callback", set_log_callback, py::arg("callback"), py::arg("least"));
  m.def("bench", bench, py::arg("options"), py::arg("progress"));

  m.def("package_install", [](const OptionalText& home, const std::string& source, uint32_t flags) {
    return text_from([&](char** out) { return expert_package_install(or_null(home), source.c_str(), flags, out); });
  });
  m.def("package_uninstall",
        [](const OptionalText& home, const std::string& name) { run(expert_package_uninstall, home, name); });
  m.def("package_update", [](const OptionalText& home, const std::string& name, uint32_t flags) {
    return text_from([&](char** out) { return expert_package_update(or_null(home), name.c_str(), flags, out); });
  });
  m.def("package_list", [](const OptionalText& home, uint32_t flags) {
    return text_from([&](char** out) { return expert_package_list(or_null(home), flags, out); });
  });
  m.def("package_info", [](const OptionalText& home, const std::string& name) {
    return text_from([&](char** out) { return expert_package_info(or_null(home), name.c_str(), out); });
  });
  m.def("package_verify", [](const OptionalText& home, const std::string& name) {
    return text_from([&](char** out) { return expert_package_verify(or_null(home), name.c_str(), out); });
  });
  m.def("package_create", [](const std::string& directory, const OptionalText& manifest, const std::string& output) {
    return text_from(
        [&](char** out) { return expert_package_create(directory.c_str(), or_null(manifest), output.c_str(), out); });
  });
  m.def("package_sign", [](const std::string& file, const std::string& key) {
    py::gil_scoped_release unlocked;
    check(expert_package_sign(file.c_str(), key.c_str()));
  });
  m.def("key_generate", [](const std::string& output, const OptionalText& name) {
    return text_from([&](char** out) { return expert_key_generate(output.c_str(), or_null(name), out); });
  });
  m.def("trust_add", [](const OptionalText& home, const std::string& key, const std::string& name) {
    py::gil_scoped_release unlocked;
    check(expert_trust_add(or_null(home), key.c_str(), name.c_str()));
  });
  m.def("trust_remove",
        [](const OptionalText& home, const std::string& name) { run(expert_trust_remove, home, name); });
  m.def("trust_list", [](const OptionalText& home) {
    return text_from([&](char** out) { return expert_trust_list(or_null(home), out); });
  });
  m.def("model_add", [](const OptionalText& home, const std::string& directory, const OptionalText& name) {
    return text_from(
        [&](char** out) { return expert_model_add(or_null(home), directory.c_str(), or_null(name), out); });
  });
  m.def("model_remove",
        [](const OptionalText& home, const std::string& name) { run(expert_model_remove, home, name); });
  m.def("model_set_default",
        [](const OptionalText& home, const std::string& name) { run(expert_model_set_default, home, name); });
  m.def("model_list", [](const OptionalText& home) {
    return text_from([&](char** out) { return expert_model_list(or_null(home), out); });
  });
}

}  // namespace expert_python
