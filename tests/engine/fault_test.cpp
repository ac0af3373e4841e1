// What breaks one request breaks no other, and everything comes back: blocks, experts, the engine itself.
#include <doctest/doctest.h>

#include <filesystem>
#include <new>

#include "engine/engine.h"
#include "engine_support.h"
#include "fake_model.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;
using namespace std::chrono_literals;

namespace fs = std::filesystem;

namespace {

Request failing_request(const std::string& prompt, int32_t max_tokens = 32) {
  Request request;
  request.prompt = prompt;
  request.base_only = true;
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

std::string text_of(const std::vector<int32_t>& tokens) {
  std::string text;
  for (const int32_t token : tokens) text += token < 256 ? static_cast<char>(token) : '\x01';
  return text;
}

// Throws what `fault` throws at the fifth token after a prompt that holds "poison"; the hash decides everything else.
FakeModel::Script poisoned_by(std::function<void()> fault) {
  return [fault = std::move(fault)](const std::vector<int32_t>& history) {
    const std::string text = text_of(history);
    const size_t answer = text.rfind("assistant\n");
    if (text.find("poison") != std::string::npos && answer != std::string::npos && text.size() - answer >= 15) fault();
    return -1;
  };
}

}  // namespace

TEST_CASE("a request that makes a step throw ends; the others of the step get the tokens they get alone") {
  const FakeEngine alone = fake_engine({.most_kept = 0, .max_batch = 1});
  const std::vector<std::function<void()>> faults = {[] { throw std::runtime_error("a defect"); },
                                                     [] { throw std::bad_alloc(); }, [] { throw 42; }};
  for (size_t i = 0; i < faults.size(); ++i) {
    CAPTURE(i);
    const FakeEngine fake = fake_engine({.kv_blocks = 64, .script = poisoned_by(faults[i])});
    std::vector<std::shared_ptr<Generation>> healthy;
    for (int r = 0; r < 6; ++r) healthy.push_back(fake.engine->submit(failing_request(std::string(40, static_cast<char>('a' + r)), 40)));
    const auto sick = fake.engine->submit(failing_request("poison", 40));
    expect_error(
        i == 1 ? ErrorCode::out_of_memory : ErrorCode::inference, "", [&] { sick->wait(kSoon); }, __FILE__, __LINE__);
    for (int r = 0; r < 6; ++r) {
      const auto expected = alone.engine->submit(failing_request(std::string(40, static_cast<char>('a' + r)), 40))->wait(kSoon);
      CHECK(healthy[static_cast<size_t>(r)]->wait(kSoon)->tokens == expected->tokens);
    }
    const Json stats = fake.engine->stats();
    CHECK(stats["kv"]["blocks_used"] == 0);
    CHECK(stats["requests"]["finished"]["error"] == 1);
    CHECK(stats["requests"]["finished"]["length"] == 6);
  }
}

TEST_CASE("steps that fail now and then change no token") {
  const FakeEngine calm = fake_engine({.most_kept = 0, .max_batch = 1});
  const FakeEngine fake = fake_engine({.kv_blocks = 40});
  std::vector<std::shared_ptr<Generation>> running;
  fake.model->delay_us = 200;
  fake.model->spare_single = true;  // the repetitions of a failed batch, one request each, succeed
  for (int r = 0; r < 12; ++r) running.push_back(fake.engine->submit(failing_request(std::string(60, static_cast<char>('a' + r)), 60)));
  for (int i = 0; i < 10; ++i) {
    fake.model->fail_steps = 1;
    std::this_thread::sleep_for(3ms);
  }
  for (int r = 0; r < 12; ++r) {
    const auto expected = calm.engine->submit(failing_request(std::string(60, static_cast<char>('a' + r)), 60))->wait(kSoon);
    CHECK(running[static_cast<size_t>(r)]->wait(kSoon)->tokens == expected->tokens);
  }
  CHECK(fake.model->failed_steps > 0);
  CHECK(fake.engine->stats()["kv"]["blocks_used"] == 0);
}

TEST_CASE("a request beyond the budget is refused before it runs, and says so; the queue has a bound") {
  const FakeEngine fake = fake_engine({.context = 4096, .kv_blocks = 8, .max_batch = 1, .max_queue = 2});
  EXPECT_ERROR(out_of_memory, "the KV cache has room for 128", fake.engine->submit(failing_request(std::string(500, 'a'))));
  fake.model->delay_us = 2000;
  const auto first = fake.engine->submit(failing_request("q", 100));
  const auto second = fake.engine->submit(failing_request("q", 100));
  EXPECT_ERROR(out_of_memory, "queue full: 2 requests", fake.engine->submit(failing_request("q")));
  CHECK(fake.engine->stats()["requests"]["refused"] == 2);
  first->cancel();
  second->cancel();
  first->wait(kSoon);
  second->wait(kSoon);
}

TEST_CASE("cancels, small pools and failures at random leave nothing behind") {
  const FakeEngine fake = fake_engine({.kv_blocks = 24, .max_batch = 6, .max_queue = 1000});
  std::vector<std::thread> threads;
  std::atomic<int> ended{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const auto generation =
            fake.engine->submit(failing_request(std::string(static_cast<size_t>(1 + (i * 37 + t) % 200), 'a'), 1 + i % 60));
        if (i % 4 == 1) generation->cancel();
        if (i % 7 == 3) fake.model->fail_steps = 1;
        try {
          generation->wait(kSoon);
        } catch (const Error& error) {
          CHECK(error.code() == ErrorCode::inference);
        }
        ++ended;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(ended == 160);
  const Json stats = fake.engine->stats();
  CHECK(stats["kv"]["blocks_used"] == 0);
  CHECK(stats["requests"]["running"] == 0);
  CHECK(stats["requests"]["waiting"] == 0);
}

TEST_CASE("an expert whose file vanished fails the request that names it, and no other") {
  const TempDir scratch;
  const fs::path models = fs::path(EXPERT_SOURCE_DIR) / "models";
  EngineOptions options;
  options.base_model = (models / "base").string();
  options.home = fs::path(scratch.path()) / "home";
  const auto engine = Engine::open(options);
  const fs::path copy = fs::path(scratch.path()) / "sql";
  fs::copy(models / "experts" / "sql", copy, fs::copy_options::recursive);
  Request request;
  request.prompt = "Count the users";
  request.experts = {{nullptr, copy.string(), 1.0F}};
  request.sampling.max_tokens = 60;
  request.sampling.ignore_eos = true;
  const auto running = engine->submit(request);
  fs::remove_all(copy);
  EXPECT_ERROR(invalid_request, "unknown expert", engine->submit(request));
  fs::create_directories(copy);
  EXPECT_ERROR(load, "", engine->submit(request));
  CHECK(running->wait(kSoon)->tokens.size() == 60);
  CHECK(engine->stats()["kv"]["blocks_used"] == 0);
}

TEST_CASE("what is counted: histograms, Prometheus text, the trace of one request") {
  const FakeEngine fake = fake_engine({});
  Request request = failing_request(std::string(100, 'a'), 10);
  request.trace = true;
  const auto result = fake.engine->submit(request)->wait(kSoon);
  REQUIRE(result->trace.is_array());
  std::vector<std::string> events;
  for (const Json& event : result->trace) events.push_back(event["event"].get<std::string>());
  CHECK(events.front() == "submitted");
  CHECK(events[2] == "admitted");
  CHECK(std::count(events.begin(), events.end(), "step") == 10);
  CHECK(events.back() == "ended");
  CHECK(fake.engine->submit(failing_request("q"))->wait(kSoon)->trace.is_null());

  const Json histograms = fake.engine->stats()["histograms"];
  CHECK(histograms["total_ms"]["count"] == 2);
  CHECK(histograms["step_rows"]["max"] == 119);
  CHECK(histograms["queue_ms"]["p50"].get<double>() <= histograms["queue_ms"]["p99"].get<double>());
  const std::string text = fake.engine->metrics();
  CHECK(text.find("expert_requests_total 2\n") != std::string::npos);
  CHECK(text.find("expert_requests_finished_total{reason=\"length\"} 2\n") != std::string::npos);
  CHECK(text.find("expert_step_rows_bucket{le=\"+Inf\"} ") != std::string::npos);
  CHECK(text.find("# TYPE expert_kv_blocks gauge\n") != std::string::npos);
}
