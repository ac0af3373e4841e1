#include "text/chat_template.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "support/volume.h"
#include "template/template_files.h"

using expert::ChatTemplate;
using expert::Error;
using expert::ErrorCode;
using expert::Json;

namespace {

const Json kHello = Json::array({{{"role", "user"}, {"content", "Hello"}}});

std::string render(std::string_view source, const Json& variables = Json::object(), const Json& messages = kHello) {
  ChatTemplate::Options options;
  options.variables = variables;
  return ChatTemplate::parse(source, "test")->render(messages, options);
}

template <typename F>
ErrorCode code_of(F&& f, std::string* message = nullptr) {
  try {
    f();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return ErrorCode::ok;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A directory of its own, gone at the end.
class Directory {
 public:
  Directory() {
    static int count = 0;
    path = std::filesystem::temp_directory_path() /
           ("expert_template_" + std::to_string(std::hash<std::thread::id>()(std::this_thread::get_id())) + "_" +
            std::to_string(count++));
    std::filesystem::create_directories(path);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
  }
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("golden: every rendering equals Transformers', every failure fails") {
  const Json golden = expert::read_golden();
  for (const auto& [key, entry] : golden.items()) {
    const std::string name = key;
    CAPTURE(name);
    const std::string source = entry.contains("file")
                                   ? read(std::filesystem::path(EXPERT_SOURCE_DIR) / entry["file"].get<std::string>())
                                   : entry["template"].get<std::string>();
    for (const Json& item : entry["cases"]) {
      std::string text, message;
      const ErrorCode code =
          code_of([&] { text = expert::render_case(*ChatTemplate::parse(source, name), item); }, &message);
      CAPTURE(message);
      if (item["text"].is_null()) {
        CHECK((code == ErrorCode::load || code == ErrorCode::invalid_request));
      } else {
        CHECK(code == ErrorCode::ok);
        CHECK(text == item["text"].get<std::string>());
      }
    }
  }
}

TEST_CASE("what is outside the subset is refused by name and line when the template is read") {
  const std::pair<const char*, const char*> refused[] = {
      {"x\n{% include 'a' %}", "line 2: the statement 'include'"},
      {"{% extends 'a' %}", "'extends'"},
      {"{% block a %}{% endblock %}", "'block'"},
      {"{% import 'a' as b %}", "'import'"},
      {"{% from 'a' import b %}", "'from'"},
      {"{% autoescape true %}{% endautoescape %}", "'autoescape'"},
      {"\n\n{{ [1]|random }}", "line 3: the filter 'random'"},
      {"{{ x|pprint }}", "'pprint'"},
      {"{% if false %}{{ x|urlize }}{% endif %}", "'urlize'"},
      {"{{ x|nothing }}", "no filter named 'nothing'"},
      {"{{ x is nothing }}", "no test named 'nothing'"},
      {"{% do x %}", "'do'"},
      {"{{ self.x() }}", "'self'"},
      {"{{ 99999999999999999999 }}", "64 bits"},
      {"{{ '\\N{DASH}' }}", "\\N"},
      {"{{ größe }}", "ASCII"},
      {"{% if x %}", "endif"},
      {"{% endif %}", "endif"},
      {"{{ 'x }}", "string"},
      {"{{ (1] }}", "unexpected ']'"},
      {"{% break %}", "outside of a loop"},
      {"{# x", "comment"},
      {"{% raw %}x", "raw"},
      {"\xff", "UTF-8"},
  };
  for (const auto& [refused_source, words] : refused) {
    const std::string source = refused_source;
    CAPTURE(source);
    std::string message;
    CHECK(code_of([&, text = source] { ChatTemplate::parse(text, "bad.jinja"); }, &message) == ErrorCode::load);
    CAPTURE(message);
    CHECK(message.find(words) != std::string::npos);
    CHECK(message.find("bad.jinja") != std::string::npos);
  }
}

TEST_CASE("what the template raises is the caller's error") {
  std::string message;
  CHECK(code_of([] { render("{{ raise_exception('roles must alternate') }}"); }, &message) ==
        ErrorCode::invalid_request);
  CHECK(message.find("roles must alternate") != std::string::npos);
  CHECK(code_of([] { render("a\n{{ missing.x }}"); }, &message) == ErrorCode::invalid_request);
  CHECK(message.find("line 2: 'missing' is undefined") != std::string::npos);
  for (const char* source :
       {"{{ 1 + 'a' }}", "{{ {'a': 1}.update({}) }}", "{{ [1].append(2) }}", "{{ 1 // 0 }}", "{{ ''.__class__.x }}",
        "{{ 9223372036854775807 + 1 }}", "{{ 2 ** 64 }}", "{% for i in 5 %}{% endfor %}", "{{ none() }}"}) {
    CAPTURE(source);
    CHECK(code_of([&] { render(source); }) == ErrorCode::invalid_request);
  }
}

TEST_CASE("limits end what would not end") {
  const char* endless[] = {
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{{ range(100001)|list }}",
      "{{ 'a' * 1000000000 }}",
      "{{ [0] * 1000000000 }}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set n = namespace(g=[1]) %}{% for i in range(20000) %}{% set n.g = n.g|map('string') %}{% endfor %}{{ n.g|list }}",
      "{{ '%1000000d' % 5 }}",
      "{{ '{:1000000}'.format(5) }}",
      "{{ 'a'.center(1000000000) }}",
      "{% set ns = namespace() %}{% set ns.n = ns %}{{ ns }}",
  };
  const char* endless_and_slow[] = {
      "{% set n=namespace(a=1,b=1) %}{% for i in range(60) %}{% set n.a=[n.a,n.a] %}{% set n.b=[n.b,n.b] %}{% endfor %}{{ n.a==n.b }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
  };
  const auto ends = [](const char* source) {
    CAPTURE(source);
    CHECK(code_of([&] { render(source); }) == ErrorCode::invalid_request);
  };
  for (const char* source : endless) ends(source);
  for (const char* source : endless_and_slow) {
    if (expert::test::thorough()) ends(source);
  }
  CHECK(code_of([] { ChatTemplate::parse("{{ " + std::string(100000, '(') + "1", "t"); }) == ErrorCode::load);
  CHECK(code_of([] { ChatTemplate::parse("{{ " + std::string(100000, '-') + "1 }}", "t"); }) == ErrorCode::load);
}

TEST_CASE("cycles are freed with the rendering") {
  CHECK(
      render(
          "{% set ns = namespace(a=1) %}{% set ns.me = ns %}{% macro f() %}{{ ns.me.me.a }}{% endmacro %}{{ f() }}") ==
      "1");
}

TEST_CASE("messages are normalised as Transformers does") {
  const Json messages = Json::array({{{"role", "assistant"}, {"content", nullptr}, {"reasoning", "why"}}});
  CHECK(render("{{ messages[0]|tojson }}", Json::object(), messages) ==
        R"({"thinking": "why", "role": "assistant", "reasoning": "why", "reasoning_content": "why"})");
  CHECK(code_of([] { render("x", Json::object(), Json::array()); }) == ErrorCode::invalid_request);
  CHECK(code_of([] { render("x", {{"messages", 1}}); }) == ErrorCode::invalid_request);
  CHECK(code_of([] { render("x", Json::object(), Json::array({"text"})); }) == ErrorCode::invalid_request);
  CHECK(code_of([] {
          render("x", Json::object(), Json::array({{{"n", 18446744073709551615u}}}));
        }) == ErrorCode::invalid_request);
  CHECK(code_of([] { render("x", Json::object(), Json::array({{{"t", "\xff"}}})); }) == ErrorCode::invalid_request);
}

TEST_CASE("strftime_now shows the given time") {
  ChatTemplate::Options options;
  std::tm noon{};
  noon.tm_year = 124, noon.tm_mon = 6, noon.tm_mday = 5, noon.tm_hour = 15, noon.tm_min = 4, noon.tm_sec = 9,
  noon.tm_isdst = -1;
  options.now = std::chrono::system_clock::from_time_t(std::mktime(&noon));
  const auto show = [&](const std::string& format) {
    return ChatTemplate::parse("{{ strftime_now('" + format + "') }}", "t")->render(kHello, options);
  };
  CHECK(show("%d %b %Y") == "05 Jul 2024");
  CHECK(show("%A, %B %-d %H:%M:%S %I%p %j %y%%") == "Friday, July 5 15:04:09 03PM 187 24%");
  CHECK(show("%F %T|%z%Z|%G-W%V-%u|%e|%U %W") == "2024-07-05 15:04:09||2024-W27-5| 5|26 27");
  CHECK(code_of([&] { show("%Q"); }) == ErrorCode::invalid_request);
}

TEST_CASE("loading from a model directory") {
  const Directory directory;
  CHECK(ChatTemplate::load(directory.path) == nullptr);
  directory.write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "config{{ bos_token }}{{ eos_token }}{{ pad_token }}"})");
  directory.write("special_tokens_map.json", R"({"eos_token": "other", "pad_token": {"content": "<pad>"}})");
  CHECK(ChatTemplate::load(directory.path)->render(kHello, {}) == "config<s>other<pad>");
  ChatTemplate::Options options;
  options.variables = {{"bos_token", "mine"}};
  CHECK(ChatTemplate::load(directory.path)->render(kHello, options) == "configmineother<pad>");
  directory.write("chat_template.jinja", "file{{ bos_token }}{{ eos_token }}{{ image_token }}{{ audio_token }}{{ add_bos_token }}");
  directory.write(
      "tokenizer_config.json",
      R"({"added_tokens_decoder": {}, "bos_token": "<s>", "eos_token": null, "audio_token": "<au>", "add_bos_token": true, "extra_special_tokens": {"image_token": "<img>"}})");
  CHECK(ChatTemplate::load(directory.path)->render(kHello, {}) == "file<s><img><au>");
}

TEST_CASE("a list of named templates: tool_use serves requests with tools") {
  const Directory directory;
  directory.write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}, {"name": "rag", "template": "{% broken"}]})");
  const auto chat_template = ChatTemplate::load(directory.path);
  CHECK(chat_template->render(kHello, {}) == "d");
  ChatTemplate::Options options;
  options.tools = Json::array();
  CHECK(chat_template->render(kHello, options) == "t");
  directory.write("chat_template.jinja", "file");
  CHECK(ChatTemplate::load(directory.path)->render(kHello, options) == "file");
  std::filesystem::create_directory(directory.path / "additional_chat_templates");
  directory.write("additional_chat_templates/tool_use.jinja", "file for tools");
  CHECK(ChatTemplate::load(directory.path)->render(kHello, options) == "file for tools");
}

TEST_CASE("broken files are load errors that name the file") {
  const std::pair<const char*, std::string> broken[] = {
      {"tokenizer_config.json", "{"},
      {"tokenizer_config.json", "[]"},
      {"tokenizer_config.json", R"({"chat_template": 5})"},
      {"tokenizer_config.json", R"({"chat_template": [{"name": 1}]})"},
      {"tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})"},
      {"tokenizer_config.json", R"({"a": )" + std::string(100000, '[')},
      {"chat_template.jinja", std::string((1 << 20) + 1, 'x')}};
  for (const auto& [name, text] : broken) {
    const Directory directory;
    directory.write(name, text);
    std::string message;
    CHECK(code_of([&] { ChatTemplate::load(directory.path); }, &message) == ErrorCode::load);
    CAPTURE(message);
    CHECK(message.find(name) != std::string::npos);
  }
  const Directory directory;
  std::filesystem::create_directory(directory.path / "chat_template.jinja");
  CHECK(code_of([&] { ChatTemplate::load(directory.path); }) == ErrorCode::load);
}

TEST_CASE("a template that does not compile is an error of those who render it, not of the model") {
  const Directory directory;
  directory.write("chat_template.jinja", "{{ 1 +");
  const auto broken = ChatTemplate::load(directory.path);
  REQUIRE(broken->problems().size() == 1);
  CHECK(broken->problems()[0].find("chat_template.jinja: ") != std::string::npos);
  std::string message;
  CHECK(code_of([&] { broken->render(kHello, {}); }, &message) == ErrorCode::load);
  CHECK(message == broken->problems()[0]);

  directory.write("tokenizer_config.json",
                  R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "{% include 'x' %}"}]})");
  std::filesystem::remove(directory.path / "chat_template.jinja");
  const auto half = ChatTemplate::load(directory.path);
  CHECK(half->problems().size() == 1);
  CHECK(half->render(kHello, {}) == "d");
  ChatTemplate::Options options;
  options.tools = Json::array();
  CHECK(code_of([&] { half->render(kHello, options); }) == ErrorCode::load);
  CHECK(code_of([&] { ChatTemplate::parse("{{ 1 +", "t"); }) == ErrorCode::load);
}

TEST_CASE("one template serves many threads") {
  const auto chat_template =
      ChatTemplate::parse("{% for m in messages %}{{ 'äöü'|length }}{{ m.content|upper }}{% endfor %}", "t");
  std::vector<std::string> texts(8);
  std::vector<std::thread> threads;
  for (std::string& text : texts) {
    threads.emplace_back([&text, &chat_template] {
      for (int i = 0; i < 200; ++i) text = chat_template->render(kHello, {});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) CHECK(text == "3HELLO");
}
