// Experts that left memory come back from disk while others decode. What goes wrong on the way ends the requests that
// asked; the others get the tokens they get alone, and every pin and byte comes back.
#include <doctest/doctest.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <new>
#include <random>
#include <thread>

#include "engine_support.h"
#include "fake_model.h"
#include "support/expect_error.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

using namespace expert;
using namespace expert::test;
using namespace std::chrono_literals;

namespace fs = std::filesystem;

namespace {

std::atomic<bool> no_threads{false};

}  // namespace

// The system refuses a thread when a test says so.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*),
                              void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return no_threads ? EAGAIN : real(thread, attributes, run, argument);
}

namespace {

constexpr int kExperts = 6;

Json tier_config() {
  Json config = tiny_config();
  config["vocab_size"] = 300;
  config["max_position_embeddings"] = 1024;
  return config;
}

// Holds the loader before it reads, and does what a test wants done there.
class Gate {
 public:
  void close() {
    const std::lock_guard lock(mutex_);
    open_ = false;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void on_pass(std::function<void(const std::string&)> action) {
    const std::lock_guard lock(mutex_);
    action_ = std::move(action);
  }
  void pass(const std::string& name) {
    std::function<void(const std::string&)> action;
    {
      std::unique_lock lock(mutex_);
      ++waiting_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return open_; });
      --waiting_;
      action = action_;
    }
    if (action) action(name);
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void(const std::string&)> action_;
  bool open_ = true;
  int waiting_ = 0;
};

// A small true model and experts of equal size, in an engine that has room for some of them.
struct TierBed {
  TempDir dir;
  std::string base = write_tiny_model(dir / "base", tier_config());
  std::vector<std::string> experts;
  Gate gate;
  uint64_t size = 0;  // of one expert
  std::shared_ptr<Engine> engine, alone;

  explicit TierBed(uint64_t room, const std::string& bundled = {}) {
    for (int i = 0; i < kExperts; ++i) write(i);
    alone = open(0, {});
    size = alone->load_expert(experts[0])->size_bytes();
    engine = open(room * size, bundled);
  }
  ~TierBed() { gate.open(); }

  void write(int expert, uint64_t seed = 0) {
    const std::string path = dir / ("expert" + std::to_string(expert));
    write_tiny_lora(path, tier_config(), 3, {"q_proj", "up_proj"}, seed != 0 ? seed : static_cast<uint64_t>(expert) + 1);
    if (experts.size() <= static_cast<size_t>(expert)) experts.push_back(path);
  }

  std::shared_ptr<Engine> open(uint64_t budget, const std::string& bundled) {
    EngineParts parts;
    parts.backend = backend_of("cpu", 1);
    parts.model = Model::load(base, *parts.backend);
    parts.tokenizer = byte_tokenizer();
    parts.chat_template = chatml_template();
    parts.base.directory = base;
    parts.base.names = {"base"};
    parts.base.experts = bundled;
    parts.store = Store(dir / "home");
    parts.loop.kv_blocks = 512;
    parts.expert_cache_bytes = budget;
    if (budget != 0) parts.on_expert_read = [this](const std::string& name) { gate.pass(name); };
    return assemble_engine(std::move(parts));
  }

  Request request(int expert, int32_t tokens = 20) const {  // -1: the base
    Request request;
    request.prompt = "hello";
    request.base_only = expert < 0;
    if (expert >= 0) request.experts = {{nullptr, experts[static_cast<size_t>(expert)], 1.0F}};
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = tokens;
    request.sampling.ignore_eos = true;
    return request;
  }
  std::shared_ptr<Generation> submit(int expert, int32_t tokens = 20) const { return engine->submit(request(expert, tokens)); }
  std::vector<int32_t> expected(int expert, int32_t tokens = 20) const {
    return alone->submit(request(expert, tokens))->wait(kSoon)->tokens;
  }
  // Names each of them once, so that all are known and the last ones are in memory.
  void make_known(int count = kExperts) {
    for (int i = 0; i < count; ++i) submit(i, 1)->wait(kSoon);
  }
  Json host() const { return engine->stats()["experts"]["tiers"]["host"]; }
  Json disk() const { return engine->stats()["experts"]["tiers"]["disk"]; }
  void check_all_is_back() const {
    const Json stats = engine->stats();
    CHECK(stats["kv"]["blocks_used"] == 0);
    CHECK(stats["requests"]["running"] == 0);
    CHECK(stats["requests"]["waiting"] == 0);
    CHECK(stats["experts"]["waiting"] == 0);
    CHECK(host()["pinned"] == 0);
    CHECK(host()["loading"] == 0);
    CHECK(host()["bytes"] == host()["experts"].get<uint64_t>() * size);
    CHECK(host()["bytes"].get<uint64_t>() <= host()["budget_bytes"].get<uint64_t>());
  }
};

}  // namespace

TEST_CASE("an expert comes back from disk while others decode, and submit does not wait for it") {
  TierBed bed(2);
  bed.make_known(3);  // 1 and 2 are in memory
  CHECK(bed.host()["experts"] == 2);
  CHECK(bed.host()["evictions"] == 1);
  const uint64_t loads = bed.disk()["loads"];
  bed.gate.close();
  const auto running = bed.submit(2, 300);
  const auto late = bed.submit(0);
  const auto late_too = bed.submit(0);
  bed.gate.wait_until_reached();
  CHECK(bed.host()["loading"] == 1);
  CHECK(bed.submit(2)->wait(kSoon)->tokens == bed.expected(2));
  CHECK(bed.submit(-1)->wait(kSoon)->tokens == bed.expected(-1));
  CHECK(running->wait(kSoon)->tokens == bed.expected(2, 300));
  CHECK_FALSE(late->done());
  bed.gate.open();
  const auto result = late->wait(kSoon);
  CHECK(result->tokens == bed.expected(0));
  CHECK(result->experts_used.size() == 1);
  CHECK(late_too->wait(kSoon)->tokens == result->tokens);
  CHECK(late_too->wait(kSoon)->usage.cached_tokens > 0);  // the prefix of the first time, though its weights were gone
  CHECK(bed.disk()["loads"] == loads + 1);
  CHECK(bed.engine->stats()["histograms"]["expert_load_ms"]["count"] == loads + 1);
  CHECK(bed.engine->metrics().find("expert_disk_loads_total 4\n") != std::string::npos);
  bed.check_all_is_back();
}

TEST_CASE("what goes wrong while an expert is read ends the requests that asked, with a typed error, and no other") {
  struct Fault {
    const char* name;
    ErrorCode code;
    const char* message;
    std::function<void(TierBed&)> happens;
  };
  const std::vector<Fault> faults = {
      {"vanished", ErrorCode::load, "expert0", [](TierBed& bed) { fs::remove_all(bed.experts[0]); }},
      {"altered", ErrorCode::load, "have changed since expert0 was first read", [](TierBed& bed) { bed.write(0, 77); }},
      {"truncated", ErrorCode::load, "expert0",
       [](TierBed& bed) { fs::resize_file(fs::path(bed.experts[0]) / "adapter_model.safetensors", 100); }},
      {"no memory", ErrorCode::out_of_memory, "expert0: out of memory", [](TierBed&) { throw std::bad_alloc(); }},
      {"a defect", ErrorCode::load, "expert0: unforeseen", [](TierBed&) { throw std::runtime_error("unforeseen"); }},
      {"anything", ErrorCode::load, "expert0", [](TierBed&) { throw 42; }},
  };
  for (const Fault& fault : faults) {
    const std::string name = fault.name;
    CAPTURE(name);
    TierBed bed(2);
    bed.make_known(3);
    bed.gate.close();
    bed.gate.on_pass([&](const std::string& expert) {
      if (expert == "expert0") fault.happens(bed);
    });
    const auto running = bed.submit(2, 200);
    const auto sick = bed.submit(0);
    const auto sick_too = bed.submit(0, 5);
    const auto next = bed.submit(1);
    bed.gate.open();
    const auto fails = [&](const auto& generation) {
      expect_error(fault.code, fault.message, [&] { generation->wait(kSoon); }, __FILE__, __LINE__);
    };
    fails(sick);
    fails(sick_too);
    CHECK(running->wait(kSoon)->tokens == bed.expected(2, 200));
    CHECK(next->wait(kSoon)->tokens == bed.expected(1));
    CHECK(bed.disk()["failures"].get<int>() >= 1);
    CHECK(bed.engine->stats()["requests"]["finished"]["error"] == 2);
    bed.check_all_is_back();
    // Afterwards everything works, with what is there now.
    bed.gate.on_pass({});
    if (name == "altered") CHECK(bed.submit(0)->wait(kSoon)->tokens == bed.expected(0));
    if (name == "no memory") CHECK(bed.submit(0)->wait(kSoon)->tokens == bed.expected(0));
    CHECK(bed.engine->logits(std::vector<int32_t>{1, 2}, bed.request(3).experts).size() == 600);
    bed.check_all_is_back();
  }
}

TEST_CASE("evaluation and composition wait for experts too, and hear of their failure") {
  TierBed bed(1);
  bed.make_known(2);
  const std::vector<int32_t> ids = {1, 2, 3};
  CHECK(bed.engine->logits(ids, bed.request(0).experts) == bed.alone->logits(ids, bed.request(0).experts));
  CHECK(bed.engine->compose(bed.request(1).experts) == bed.alone->compose(bed.request(1).experts));
  bed.gate.on_pass([](const std::string&) { throw std::bad_alloc(); });
  EXPECT_ERROR(out_of_memory, "expert0", bed.engine->logits(ids, bed.request(0).experts));
  EXPECT_ERROR(out_of_memory, "expert0", bed.engine->compose(bed.request(0).experts));
  bed.check_all_is_back();
}

TEST_CASE("a request that waits for its expert ends at once when it is cancelled or late") {
  TierBed bed(1);
  bed.make_known(2);
  bed.gate.close();
  const auto cancelled = bed.submit(0);
  Request hasty = bed.request(0);
  hasty.deadline_ms = 30;
  const auto late = bed.engine->submit(hasty);
  auto dropped = bed.submit(0);
  dropped.reset();
  bed.gate.wait_until_reached();
  cancelled->cancel();
  CHECK(cancelled->wait(kSoon)->finish_reason == FinishReason::cancelled);  // the gate is still closed
  CHECK(late->wait(kSoon)->finish_reason == FinishReason::timeout);
  CHECK(bed.submit(-1)->wait(kSoon)->tokens == bed.expected(-1));
  bed.gate.open();
  CHECK(bed.submit(0)->wait(kSoon)->tokens == bed.expected(0));
  bed.check_all_is_back();
}

TEST_CASE("closing while an expert is read") {
  TierBed bed(1);
  bed.make_known(2);
  bed.gate.close();
  const auto waiting = bed.submit(0);
  bed.gate.wait_until_reached();
  std::atomic<bool> refused{false};
  std::thread composer([&] {
    try {
      bed.engine->compose(bed.request(0).experts);
    } catch (const Error& error) {
      refused = error.code() == ErrorCode::closed;
    }
  });
  SUBCASE("ends the requests first, then waits for the reading") {
    while (bed.host()["pinned"] == 0 && bed.host()["loading"] == 0) std::this_thread::yield();
    std::this_thread::sleep_for(20ms);  // the composer waits, too
    std::thread closer([&] { bed.engine->close(false); });
    CHECK(waiting->wait(kSoon)->finish_reason == FinishReason::cancelled);
    composer.join();
    CHECK(refused);
    bed.gate.open();
    closer.join();
  }
  SUBCASE("with drain, lets them finish") {
    std::thread closer([&] { bed.engine->close(true); });
    std::this_thread::sleep_for(20ms);
    CHECK_FALSE(waiting->done());
    bed.gate.open();
    CHECK(waiting->wait(kSoon)->tokens == bed.expected(0));
    closer.join();
    composer.join();
  }
  EXPECT_ERROR(closed, "was closed", bed.submit(0));
}

TEST_CASE("a child of fork() fails and ends, whatever the loader of its parent is doing") {
  TierBed bed(1);
  bed.make_known(2);
  bed.gate.close();
  const auto waiting = bed.submit(0);
  bed.gate.wait_until_reached();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    int status = 1;
    try {
      bed.submit(0);
    } catch (const Error& error) {
      status = error.code() == ErrorCode::closed ? 0 : 2;
    }
    bed.engine.reset();
    _exit(status);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  bed.gate.open();
  CHECK(waiting->wait(kSoon)->tokens == bed.expected(0));
}

TEST_CASE("where no thread can be had, the caller reads") {
  TierBed bed(1);
  bed.make_known(2);
  no_threads = true;
  CHECK(bed.submit(0)->wait(kSoon)->tokens == bed.expected(0));
  const auto running = bed.submit(0, 900);
  EXPECT_ERROR(out_of_memory, "no thread can be started", bed.submit(1));
  bed.gate.on_pass([](const std::string&) { throw std::bad_alloc(); });
  CHECK(running->wait(kSoon)->tokens == bed.expected(0, 900));
  EXPECT_ERROR(out_of_memory, "expert1: out of memory", bed.submit(1)->wait(kSoon));
  bed.gate.on_pass({});
  no_threads = false;
  CHECK(bed.submit(1)->wait(kSoon)->tokens == bed.expected(1));
  bed.check_all_is_back();
}

TEST_CASE("more experts than memory holds, many requests: the same tokens, never more bytes") {
  TierBed bed(2);
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < kExperts; ++i) expected.push_back(bed.expected(i));
  std::atomic<int> wrong{0};
  std::atomic<bool> over{false}, done{false};
  std::thread watch([&] {
    while (!done) {
      const Json host = bed.host();
      if (host["budget_used_bytes"] > host["budget_bytes"]) over = true;
      std::this_thread::sleep_for(1ms);
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 30; ++i) {
        const int expert = static_cast<int>(random() % kExperts);
        const auto generation = bed.submit(expert);
        if (random() % 5 == 0) {
          generation->cancel();
          generation->wait(kSoon);
        } else if (generation->wait(kSoon)->tokens != expected[static_cast<size_t>(expert)]) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done = true;
  watch.join();
  CHECK(wrong == 0);
  CHECK_FALSE(over);
  CHECK(bed.host()["evictions"].get<int>() > 10);
  bed.check_all_is_back();
}

TEST_CASE("a request whose experts never fit is refused at once; by hand they may be loaded all the same") {
  TierBed bed(1);
  Request both = bed.request(0);
  both.experts.push_back({nullptr, bed.experts[1], 1.0F});
  EXPECT_ERROR(out_of_memory, "expert_cache_bytes is", bed.engine->submit(both));
  const auto handle = bed.engine->load_expert(bed.experts[0]);
  CHECK(bed.engine->submit(both)->wait(kSoon)->tokens == bed.alone->submit(both)->wait(kSoon)->tokens);
  // Named for the first time while there is no room: known by its card, read when there is.
  const auto running = bed.submit(1, 300);
  const auto fresh = bed.submit(2);
  CHECK(fresh->wait(kSoon)->tokens == bed.expected(2));
  CHECK(running->wait(kSoon)->tokens == bed.expected(1, 300));
  bed.engine->unload(handle);
  bed.check_all_is_back();
}

namespace {

void add_manifest(const std::string& path, const std::string& name) {
  const Json manifest = {{"name", name},
                         {"version", "1.0.0"},
                         {"schema_version", "2.0"},
                         {"description", "Speaks of vegetables."},
                         {"base_models", {{{"name", "base"}, {"prompt_template", "chatml"}}}},
                         {"capabilities", {"task:vegetables"}},
                         {"routing", {{"keywords", {"carrot", "turnip"}}, {"priority", 1.0}}}};
  write_file_atomically(join_path(path, "manifest.json"), std::string_view(manifest.dump()));
}

}  // namespace

TEST_CASE("an expert that the router chose and that is gone does not fail the caller: the base answers") {
  const TempDir bundled;
  const std::string path = bundled / "vegetables";
  write_tiny_lora(path, tier_config(), 3, {"q_proj", "up_proj"}, 50);
  add_manifest(path, "expert-vegetables");
  TierBed bed(1, bundled.path());
  Request request;
  request.prompt = "a carrot and a turnip";
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = 8;
  request.sampling.ignore_eos = true;
  REQUIRE(bed.engine->submit(request)->wait(kSoon)->experts_used.size() == 1);
  bed.make_known(1);
  bed.gate.on_pass([&](const std::string& name) {
    if (name == "expert-vegetables") fs::remove_all(path);
  });
  const auto result = bed.engine->submit(request)->wait(kSoon);
  CHECK(result->experts_used.empty());
  CHECK(result->plan["warnings"].dump().find("the base answers alone") != std::string::npos);
  request.base_only = true;
  CHECK(result->tokens == bed.alone->submit(request)->wait(kSoon)->tokens);
  bed.check_all_is_back();
}

TEST_CASE("an installed expert whose files were altered is a broken signature, for those that asked") {
  TierBed bed(1);
  add_manifest(bed.experts[0], "expert-vegetables");
  const InstalledExpert installed = Store(bed.dir / "home").install(bed.experts[0], {.skip_verify = true});
  Request request = bed.request(1);
  request.experts[0].name = "vegetables";
  bed.engine->submit(request)->wait(kSoon);
  bed.submit(1)->wait(kSoon);
  bed.gate.on_pass([&](const std::string& name) {
    if (name == "expert-vegetables") write_tiny_lora(installed.path, tier_config(), 3, {"q_proj", "up_proj"}, 99);
  });
  EXPECT_ERROR(signature, "not what was installed", bed.engine->submit(request)->wait(kSoon));
  bed.check_all_is_back();
}
