// Batches, listeners, log-probabilities and the small questions of the C interface.
#include <doctest/doctest.h>
#include <expert/expert.h>
#if defined(__linux__)
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#endif

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Freed {
  void operator()(expert_engine* handle) const { expert_engine_free(handle); }
  void operator()(expert_expert* handle) const { expert_expert_free(handle); }
  void operator()(expert_stream* handle) const { expert_stream_free(handle); }
  void operator()(expert_result* handle) const { expert_result_free(handle); }
  void operator()(char* text) const { expert_free(text); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freed>;

const std::string kModel = std::string(EXPERT_SOURCE_DIR) + "/models/base";

Owned<expert_engine> open_engine(int32_t max_queue = 256) {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  options.base_model = kModel.c_str();
  options.threads = 1;
  options.max_queue = max_queue;
  options.home = "/nonexistent/expert-home";
  expert_engine* engine = nullptr;
  REQUIRE_MESSAGE(expert_engine_open(&options, &engine) == EXPERT_OK, expert_last_error()->message);
  return Owned<expert_engine>(engine);
}

expert_engine* engine() {
  static const Owned<expert_engine> shared = open_engine();
  return shared.get();
}

expert_request request_for(const char* prompt, int32_t max_tokens = 4) {
  expert_request request = EXPERT_REQUEST_INIT;
  request.prompt = prompt;
  request.flags = EXPERT_REQUEST_BASE_ONLY | EXPERT_REQUEST_IGNORE_EOS;
  request.temperature = 0;
  request.max_tokens = max_tokens;
  return request;
}

std::vector<int32_t> tokens_of(const expert_result* result) {
  size_t count = 0;
  const int32_t* ids = expert_result_tokens(result, &count);
  return {ids, ids + count};
}

std::vector<int32_t> infer(const expert_request& request) {
  expert_result* result = nullptr;
  REQUIRE(expert_infer(engine(), &request, &result) == EXPERT_OK);
  return tokens_of(Owned<expert_result>(result).get());
}

// What a listener heard, and a way to wait for its last call.
struct Heard {
  std::mutex mutex;
  std::condition_variable changed;
  std::string text;
  int chunks = 0;
  int results = 0;
  expert_finish_reason reason = EXPERT_FINISH_ERROR;
  expert_status failure = EXPERT_OK;
  bool ended = false;
  bool throws = false;
  int answer = 0;

  static int hear(void* self_pointer, const expert_chunk* chunk, const expert_error* error) {
    auto& self = *static_cast<Heard*>(self_pointer);
    const std::lock_guard lock(self.mutex);
    if (error != nullptr) self.failure = error->status;
    if (chunk == nullptr && error == nullptr) {
      self.ended = true;
      self.changed.notify_all();
    }
    if (chunk == nullptr) return 0;
    ++self.chunks;
    self.text += expert_chunk_text(chunk, nullptr);
    if (expert_chunk_result(chunk) != nullptr) {
      ++self.results;
      self.reason = expert_result_finish_reason(expert_chunk_result(chunk));
    }
    if (self.throws) throw std::runtime_error("a listener that throws");
    return self.answer;
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return ended; });
  }
};

Owned<expert_stream> submit(const expert_request& request) {
  expert_stream* stream = nullptr;
  REQUIRE_MESSAGE(expert_submit(engine(), &request, &stream) == EXPERT_OK, expert_last_error()->message);
  return Owned<expert_stream>(stream);
}

#if defined(__linux__)
// A descriptor that is closed at the end.
struct EventFd {
  int fd;
  explicit EventFd(int flags = EFD_NONBLOCK) : fd(eventfd(0, flags)) {}
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  ~EventFd() { close(fd); }
  bool told(int timeout_ms) const {
    pollfd waited = {fd, POLLIN, 0};
    return poll(&waited, 1, timeout_ms) == 1;
  }
};
#endif

}  // namespace

TEST_CASE("a listener hears every chunk, the result, and the end") {
  Heard heard;
  const auto stream = submit(request_for("Hello", 12));
  REQUIRE(expert_stream_listen(stream.get(), 0, Heard::hear, &heard) == EXPERT_OK);
  heard.wait();
  expert_result* result = nullptr;
  REQUIRE(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
  const Owned<expert_result> owned(result);
  CHECK(heard.results == 1);
  CHECK(heard.text == expert_result_text(result, nullptr));
  CHECK(heard.reason == EXPERT_FINISH_LENGTH);
  CHECK(expert_stream_listen(stream.get(), 0, Heard::hear, &heard) == EXPERT_ERROR_INVALID_REQUEST);
  expert_chunk* chunk = nullptr;
  CHECK(expert_stream_next(stream.get(), 0, &chunk) == EXPERT_OK);  // one reader: the listener was it
  CHECK(chunk == nullptr);
}

TEST_CASE("a listener may want the result alone, and may outlive the handle") {
  Heard heard;
  {
    const auto stream = submit(request_for("Hello", 300));
    REQUIRE(expert_stream_listen(stream.get(), EXPERT_LISTEN_RESULT_ONLY, Heard::hear, &heard) == EXPERT_OK);
  }  // freed: cancels
  heard.wait();
  CHECK(heard.chunks == 1);
  CHECK(heard.reason == EXPERT_FINISH_CANCELLED);
}

TEST_CASE("a listener that refuses or throws cancels its request") {
  for (const bool throws : {false, true}) {
    Heard heard;
    heard.throws = throws;
    heard.answer = 1;
    const auto stream = submit(request_for("Hello", 900));
    REQUIRE(expert_stream_listen(stream.get(), 0, Heard::hear, &heard) == EXPERT_OK);
    heard.wait();
    CHECK(heard.reason == EXPERT_FINISH_CANCELLED);
  }
  const auto stream = submit(request_for("Hello"));
  CHECK(expert_stream_listen(stream.get(), 0, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_stream_listen(stream.get(), 64, Heard::hear, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_stream_listen(nullptr, 0, Heard::hear, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("a batch keeps order, survives what fails, and may be larger than the queue") {
  const std::vector<std::string> prompts = {"one", "two", "", "four", "five"};
  std::vector<expert_request> requests;
  for (const std::string& prompt : prompts) requests.push_back(request_for(prompt.c_str()));
  std::vector<const expert_request*> pointers;
  for (const expert_request& request : requests) pointers.push_back(&request);
  pointers.push_back(nullptr);
  std::vector<expert_result*> results(pointers.size(), nullptr);
  std::vector<expert_status> statuses(pointers.size());
  const auto small = open_engine(2);
  CHECK(expert_infer_batch(small.get(), pointers.data(), pointers.size(), results.data(), statuses.data()) ==
        EXPERT_ERROR_INVALID_REQUEST);
  CHECK(std::string(expert_last_error()->message).find("prompt") != std::string::npos);  // the first that failed
  for (size_t i = 0; i < results.size(); ++i) {
    CAPTURE(i);
    const Owned<expert_result> owned(results[i]);
    const bool bad = i == 2 || i == 5;
    CHECK((results[i] == nullptr) == bad);
    CHECK((statuses[i] == EXPERT_OK) == !bad);
    if (!bad) CHECK(tokens_of(results[i]) == infer(requests[i]));
  }
  CHECK(expert_infer_batch(engine(), nullptr, 0, nullptr, nullptr) == EXPERT_OK);
  CHECK(expert_infer_batch(engine(), nullptr, 1, results.data(), nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_infer_batch(nullptr, pointers.data(), 1, results.data(), nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(results[0] == nullptr);
  CHECK(expert_infer_batch(engine(), pointers.data(), 1, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("log-probabilities one by one") {
  expert_request request = request_for("Hello", 3);
  request.logprobs = 2;
  expert_result* given = nullptr;
  REQUIRE(expert_infer(engine(), &request, &given) == EXPERT_OK);
  const Owned<expert_result> result(given);
  REQUIRE(expert_result_logprob_count(given) >= 3);
  int32_t chosen = 0;
  int32_t best = 0;
  float logprob = 1;
  CHECK(expert_result_logprob(given, 0, 0, &chosen, &logprob) == EXPERT_OK);
  CHECK(logprob <= 0);
  CHECK(expert_result_logprob(given, 0, 1, &best, nullptr) == EXPERT_OK);
  CHECK(chosen == best);  // greedy
  CHECK(expert_result_logprob(given, 0, 3, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_result_logprob(given, 99, 0, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_result_logprob(nullptr, 0, 0, nullptr, nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_result_logprob_count(nullptr) == 0);
}

TEST_CASE("loaded experts are found by name, the latest first, and know their end") {
  const std::string sql = std::string(EXPERT_SOURCE_DIR) + "/models/experts/sql";
  const auto own = open_engine();
  expert_expert* found = nullptr;
  CHECK(expert_engine_find(own.get(), "sql", &found) == EXPERT_ERROR_INVALID_REQUEST);
  expert_expert* given = nullptr;
  REQUIRE(expert_load(own.get(), sql.c_str(), &given) == EXPERT_OK);
  const Owned<expert_expert> loaded(given);
  for (const char* name : {"sql", "expert-sql"}) {
    REQUIRE(expert_engine_find(own.get(), name, &found) == EXPERT_OK);
    const Owned<expert_expert> again(found);
    CHECK(std::string(expert_expert_name(found)) == "expert-sql");
  }
  CHECK(expert_expert_unloaded(given) == 0);
  REQUIRE(expert_unload(own.get(), given) == EXPERT_OK);
  CHECK(expert_expert_unloaded(given) == 1);
  CHECK(expert_expert_unloaded(nullptr) == 1);
  CHECK(expert_engine_find(own.get(), "sql", &found) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_engine_find(own.get(), nullptr, &found) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_engine_find(own.get(), "sql", nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_engine_find(nullptr, "sql", &found) == EXPERT_ERROR_INVALID_REQUEST);
}

TEST_CASE("small questions") {
  int32_t size = 0;
  CHECK(expert_engine_context_size(engine(), &size) == EXPERT_OK);
  CHECK(size > 0);
  CHECK(expert_engine_context_size(engine(), nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_engine_context_size(nullptr, &size) == EXPERT_ERROR_INVALID_REQUEST);
  const auto own = open_engine();
  CHECK(expert_engine_closed(own.get()) == 0);
  CHECK(expert_engine_close(own.get(), 0) == EXPERT_OK);
  CHECK(expert_engine_closed(own.get()) == 1);
  CHECK(expert_engine_closed(nullptr) == 1);
  CHECK(expert_engine_vocab_size(own.get(), &size) == EXPERT_OK);  // known after close, too
  char* text = nullptr;
  REQUIRE(expert_library_info(&text) == EXPERT_OK);
  CHECK(std::string(Owned<char>(text).get()).find(expert_version()) != std::string::npos);
  REQUIRE(expert_home(&text) == EXPERT_OK);
  CHECK(!std::string(Owned<char>(text).get()).empty());
  CHECK(expert_library_info(nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_home(nullptr) == EXPERT_ERROR_INVALID_REQUEST);
  CHECK(expert_last_error()->status == EXPERT_ERROR_INVALID_REQUEST);
  expert_clear_error();
  CHECK(expert_last_error()->status == EXPERT_OK);
}

TEST_CASE("what is not built yet says so by name") {
  char* text = reinterpret_cast<char*>(1);
  const auto refused = [&](expert_status status, const std::string& name) {
    CHECK(status == EXPERT_ERROR_UNSUPPORTED);
    CHECK(std::string(expert_last_error()->message).rfind(name, 0) == 0);
  };
  refused(expert_package_verify(nullptr, "x", &text), "expert_package_verify");
  CHECK(text == nullptr);
  refused(expert_package_update(nullptr, "x", 0, &text), "expert_package_update");
  refused(expert_package_create("x", nullptr, "y", &text), "expert_package_create");
  refused(expert_package_sign("x", "y"), "expert_package_sign");
  refused(expert_key_generate("x", nullptr, &text), "expert_key_generate");
  refused(expert_trust_add(nullptr, "x", "y"), "expert_trust_add");
  refused(expert_trust_remove(nullptr, "x"), "expert_trust_remove");
  refused(expert_trust_list(nullptr, nullptr), "expert_trust_list");
}

#if defined(__linux__)
TEST_CASE("an eventfd tells of the end, at once when it is over, and when the request failed") {
  const EventFd event;
  const auto stream = submit(request_for("Hello", 40));
  REQUIRE(expert_stream_signal_end(stream.get(), event.fd) == EXPERT_OK);
  REQUIRE(event.told(60000));
  CHECK(expert_stream_done(stream.get()) == 1);
  expert_result* result = nullptr;
  REQUIRE(expert_stream_wait(stream.get(), 0, &result) == EXPERT_OK);
  CHECK(tokens_of(Owned<expert_result>(result).get()).size() == 40);
  eventfd_t count = 0;
  CHECK((eventfd_read(event.fd, &count) == 0 && count == 1));
  CHECK(!event.told(0));
  REQUIRE(expert_stream_signal_end(stream.get(), event.fd) == EXPERT_OK);
  CHECK(event.told(0));

  const EventFd closing;
  const auto mine = open_engine();
  const expert_request request = request_for("Hello", 900);
  expert_stream* given = nullptr;
  REQUIRE(expert_submit(mine.get(), &request, &given) == EXPERT_OK);
  const Owned<expert_stream> running(given);
  REQUIRE(expert_stream_signal_end(running.get(), closing.fd) == EXPERT_OK);
  CHECK(expert_engine_close(mine.get(), 0) == EXPERT_OK);
  CHECK(closing.told(60000));
}

TEST_CASE("the caller may close his eventfd, free the stream, and name another one") {
  const EventFd last;
  {
    const EventFd first;
    const auto stream = submit(request_for("Hello", 40));
    REQUIRE(expert_stream_signal_end(stream.get(), first.fd) == EXPERT_OK);
    REQUIRE(expert_stream_signal_end(stream.get(), last.fd) == EXPERT_OK);
    expert_result* result = nullptr;
    REQUIRE(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
    expert_result_free(result);
    CHECK(last.told(60000));
    CHECK(!first.told(0));
  }
  const auto stream = submit(request_for("Hello", 40));
  {
    const EventFd gone;
    REQUIRE(expert_stream_signal_end(stream.get(), gone.fd) == EXPERT_OK);
  }
  expert_result* result = nullptr;
  CHECK(expert_stream_wait(stream.get(), -1, &result) == EXPERT_OK);
  expert_result_free(result);
}

TEST_CASE("what is no eventfd, or may block, is refused") {
  const auto stream = submit(request_for("Hello", 1));
  int ends[2] = {-1, -1};
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  const EventFd blocking(0);
  for (const int fd : {-1, 1 << 20, ends[0], ends[1], blocking.fd}) {
    CHECK(expert_stream_signal_end(stream.get(), fd) == EXPERT_ERROR_INVALID_REQUEST);
  }
  CHECK(expert_stream_signal_end(nullptr, EventFd().fd) == EXPERT_ERROR_INVALID_REQUEST);
  close(ends[0]);
  close(ends[1]);
}
#endif
