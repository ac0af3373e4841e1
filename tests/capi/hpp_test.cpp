// expert.hpp: owners, ranges, exceptions. What each call gives is the scenario's part (tests/scenario).
#include <doctest/doctest.h>

#include <condition_variable>
#include <expert/expert.hpp>
#include <mutex>
#include <ranges>
#include <stdexcept>

static_assert(std::ranges::input_range<expert::Stream>);
static_assert(std::is_base_of_v<expert::LoadError, expert::ManifestError>);
static_assert(std::is_base_of_v<expert::InferenceError, expert::CancelledError>);
static_assert(std::is_base_of_v<std::runtime_error, expert::Error>);

namespace {

const std::string kModels = std::string(EXPERT_SOURCE_DIR) + "/models";

expert::Engine open_engine() {
  return expert::Engine({.base_model = kModels + "/base", .home = "/nonexistent/expert-home", .threads = 1});
}

const expert::Engine& engine() {
  static const expert::Engine shared = open_engine();
  return shared;
}

expert::Request base(int32_t max_tokens) {
  return {.prompt = "Hello",
          .experts = std::vector<expert::Use>(),
          .max_tokens = max_tokens,
          .temperature = 0.0F,
          .ignore_eos = true};
}

}  // namespace

TEST_CASE("a stream is a range that keeps its engine open") {
  std::string text;
  std::optional<expert::Result> last;
  expert::Stream stream = open_engine().stream(base(12));  // the engine itself is gone after this line
  for (const expert::Chunk& chunk : stream) {
    text += chunk.text();
    last = chunk.result();
  }
  REQUIRE(last);
  CHECK(last->text() == text);
  CHECK(last->tokens().size() == 12);
  CHECK(last->finish_reason_name() == "length");
  CHECK(stream.done());
  CHECK(!stream.next());
  CHECK(std::ranges::equal(stream.result().tokens(), last->tokens()));
}

TEST_CASE("cancelling throws with what there was") {
  const expert::Stream stream = engine().stream(base(900));
  CHECK_THROWS_AS(stream.result(std::chrono::milliseconds(1)), expert::TimeoutError);
  stream.cancel();
  try {
    stream.result();
    FAIL("not cancelled");
  } catch (const expert::CancelledError& error) {
    REQUIRE(error.partial() != nullptr);
    CHECK(error.partial()->finish_reason() == EXPERT_FINISH_CANCELLED);
  }
}

TEST_CASE("listeners are told on another thread") {
  std::mutex mutex;
  std::condition_variable changed;
  int chunks = 0;
  bool ended = false;
  std::exception_ptr failure;
  expert::Stream stream = engine().stream(base(900));
  stream.listen(
      [&](const expert::Chunk&) -> bool {
        if (++chunks == 2) throw std::runtime_error("a listener that throws");
        return true;
      },
      [&](std::exception_ptr error) {
        const std::lock_guard lock(mutex);
        failure = error;
        ended = true;
        changed.notify_all();
      });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return ended; });
  CHECK(chunks >= 2);
  CHECK(failure == nullptr);
  CHECK_THROWS_AS(stream.result(), expert::CancelledError);
}

TEST_CASE("only an eventfd can be told of the end") {
  const expert::Stream stream = engine().stream(base(1));
  CHECK_THROWS_AS(stream.signal_end(-1), expert::Error);
}

TEST_CASE("experts, batches, evaluation") {
  const expert::Expert sql = engine().load_expert(kModels + "/experts/sql");
  CHECK(sql.name() == "expert-sql");
  CHECK(engine().find_expert("sql").version() == sql.version());
  expert::Request both = base(3);
  both.experts = {{sql, 1.0F}, {"jsonfmt", 0.5F}};
  CHECK(engine().infer(both).experts_used().size() == 2);
  const std::vector<expert::Request> requests = {base(2), both};
  CHECK(engine().infer_batch(requests).size() == 2);
  const std::vector<int32_t> ids = engine().tokenize("Hello there");
  CHECK(engine().detokenize(ids) == "Hello there");
  CHECK(engine().logits(ids, {sql}).size() == ids.size() * static_cast<size_t>(engine().vocab_size()));
  CHECK(engine().embed("Hello").size() == static_cast<size_t>(engine().hidden_size()));
  CHECK(engine().tokenize("").empty());
  engine().unload(sql);
  CHECK(sql.unloaded());
  CHECK_THROWS_AS(engine().infer(both), expert::ClosedError);
}

TEST_CASE("errors have the class of their status") {
  CHECK_THROWS_AS(engine().infer(""), expert::InvalidRequestError);
  CHECK_THROWS_AS(engine().infer("x", {.temperature = -1.0F}), expert::InvalidRequestError);
  CHECK_THROWS_AS(engine().load_expert("/nothing/here.expert"), expert::LoadError);
  CHECK_THROWS_AS(expert::Engine({.base_model = "/nothing/here"}), expert::LoadError);
  CHECK_THROWS_AS(expert::packages::verify("x"), expert::UnsupportedError);
  CHECK_THROWS_AS(expert::trust::list(), expert::UnsupportedError);
  const std::vector<expert::Request> requests = {base(2), {.prompt = ""}};
  CHECK_THROWS_AS(engine().infer_batch(requests), expert::InvalidRequestError);
  const expert::Engine closed = open_engine();
  closed.close();
  closed.close();
  CHECK(closed.closed());
  CHECK_THROWS_AS(closed.infer("x"), expert::ClosedError);
  try {
    engine().load_expert("/nothing/here.expert");
  } catch (const expert::Error& error) {
    CHECK(error.status() == EXPERT_ERROR_LOAD);
    CHECK(!std::string(error.what()).empty());
  }
}

TEST_CASE("progress is told, and what it throws comes out") {
  double last = 0;
  expert::EngineOptions options{.base_model = kModels + "/base", .threads = 1};
  options.progress = [&](double fraction) {
    last = fraction;
    return true;
  };
  const expert::Engine opened(options);
  CHECK(last > 0);
  options.progress = [](double) { return false; };
  CHECK_THROWS_AS(expert::Engine{options}, expert::CancelledError);
  options.progress = [](double) -> bool { throw std::domain_error("mine"); };
  CHECK_THROWS_AS(expert::Engine{options}, std::domain_error);
}
