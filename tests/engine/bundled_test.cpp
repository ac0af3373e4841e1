// The engine on a true model with true experts: the bundled ones, on both backends. No expectation depends on what they
// were trained to say.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/engine.h"
#include "engine_support.h"
#include "io/file.h"
#include "io/json.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"
#include "support/volume.h"

using namespace expert;
using namespace expert::test;

namespace fs = std::filesystem;

namespace {

const fs::path kModels = fs::path(EXPERT_SOURCE_DIR) / "models";

std::shared_ptr<Engine> open_bundled(const std::string& device, const fs::path& home, int32_t max_batch = 16,
                                     const std::string& weights = "auto") {
  EngineOptions options;
  options.base_model = (kModels / "base").string();
  options.device = device;
  options.weights = weights;
  options.home = home;
  options.max_batch = max_batch;
  options.threads = 2;
  return Engine::open(options);
}

struct Home {
  TempDir folder;
  Home() { setenv("EXPERT_MODELS_PATH", kModels.c_str(), 1); }
  fs::path path() const { return fs::path(folder.path()) / "home"; }
};

Request request_with(std::vector<std::pair<std::string, float>> experts, const std::string& prompt) {
  Request request;
  request.prompt = prompt;
  request.schema = "users(id,name,age)";
  request.base_only = experts.empty();
  for (auto& [name, weight] : experts) request.experts.push_back({nullptr, name, weight});
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<Request> mixed_requests(int32_t tokens) {
  std::vector<Request> requests = {
      request_with({}, "Find all users older than 25"),
      request_with({{"sql", 1.0F}}, "Find all users older than 25"),
      request_with({{"sql", 1.0F}, {"jsonfmt", 1.0F}}, "Count the users\nReply as JSON with key query"),
      request_with({{"shell", 0.5F}, {"json", -0.25F}}, "Copy a.txt to b.txt"),
      request_with({{"jsonfmt", 1.0F}, {"sql", 1.0F}}, "Count the users\nReply as JSON with key query"),
      request_with({{"classify", 1.0F}}, "Classify this text"),
  };
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling.temperature = i % 2 == 0 ? 0.0F : 0.8F;
    requests[i].sampling.seed = 40 + i;
    requests[i].sampling.max_tokens = tokens + static_cast<int32_t>(i);
  }
  return requests;
}

void copy_expert(const std::string& name, const fs::path& to) {
  fs::create_directories(to);
  fs::copy(kModels / "experts" / name, to, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

void edit_json(const fs::path& path, const std::function<void(Json&)>& edit) {
  Json document = parse_json(read_text_file(path.string()), path.string());
  edit(document);
  std::ofstream(path) << document.dump();
}

}  // namespace

TEST_CASE("requests with different experts in one batch give each what it gives alone") {
  const Home home;
  for (const auto& kind : {std::pair<std::string, std::string>{"cpu", "auto"},
                           {"cpu", "int8"},
                           {"cpu", "int4"},
                           {"cpu", "int4-all"},
                           {"reference", "auto"}}) {
    const std::string& device = kind.first;
    const std::string& weights = kind.second;
    if (!thorough() && (device == "reference" || weights == "int8" || weights == "int4-all")) continue;
    INFO(device, " ", weights);
    const int32_t tokens = device == "cpu" ? volume(24) : 4;
    const auto together = open_bundled(device, home.path(), 16, weights);
    const auto alone = open_bundled(device, home.path(), 1, weights);
    if (weights != "auto") CHECK(together->info()["weights"] == weights);
    std::vector<std::shared_ptr<Generation>> running;
    for (const Request& request : mixed_requests(tokens)) running.push_back(together->submit(request));
    const auto requests = mixed_requests(tokens);
    for (size_t i = 0; i < requests.size(); ++i) {
      CAPTURE(i);
      const auto expected = alone->submit(requests[i])->wait(kSoon);
      const auto got = running[i]->wait(kSoon);
      CHECK(got->tokens == expected->tokens);
      CHECK(got->text == expected->text);
      CHECK(got->text == together->detokenize(got->tokens, true));
    }
    CHECK(together->stats()["kv"]["blocks_used"] == 0);
  }
}

TEST_CASE("experts bend the base, in any order alike; weight 0 is no expert; the base comes back untouched") {
  const Home home;
  const auto engine = open_bundled("cpu", home.path());
  const auto ids = engine->tokenize("Find all users older than 25", true, false);
  const auto logits = [&](std::vector<ExpertUse> experts) { return engine->logits(ids, experts); };
  const auto base = logits({});
  REQUIRE(base.size() == ids.size() * static_cast<size_t>(engine->vocab_size()));
  const auto sql = logits({{nullptr, "sql", 1.0F}});
  CHECK(sql != base);
  CHECK(logits({{nullptr, "sql", 0.0F}}) == base);
  CHECK(logits({{nullptr, "sql", 0.5F}}) != sql);
  CHECK(logits({{nullptr, "sql", 1.0F}, {nullptr, "json", 0.5F}}) ==
        logits({{nullptr, "json", 0.5F}, {nullptr, "sql", 1.0F}}));
  CHECK(logits({}) == base);
  EXPECT_ERROR(invalid_request, "", logits({{nullptr, "sql", 1.0F}, {nullptr, "expert-sql", 1.0F}}));
  EXPECT_ERROR(invalid_request, "unknown expert", logits({{nullptr, "sql@9.9.9", 1.0F}}));
}

TEST_CASE("a prompt longer than one step's budget gives what its logits say") {
  const Home home;
  const auto engine = open_bundled("cpu", home.path());
  Request request = request_with({{"sql", 1.0F}}, {});
  request.schema.clear();
  request.raw = true;
  while (engine->tokenize(request.prompt, true, true).size() < 700) request.prompt += "Find all users older than 25. ";
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = 3;
  request.sampling.logprobs = 1;
  const auto result = engine->submit(request)->wait(kSoon);
  std::vector<int32_t> ids = engine->tokenize(request.prompt, true, true);
  REQUIRE(result->usage.prompt_tokens == static_cast<int32_t>(ids.size()));
  ids.insert(ids.end(), result->tokens.begin(), result->tokens.end() - 1);
  const auto vocab = static_cast<size_t>(engine->vocab_size());
  const std::vector<float> logits = engine->logits(ids, request.experts);
  for (size_t i = 0; i < 3; ++i) {
    const auto row = std::span(logits).last((3 - i) * vocab).first(vocab);
    CHECK(result->tokens[i] == std::max_element(row.begin(), row.end()) - row.begin());
    CHECK(result->logprobs[i].token == result->tokens[i]);
    CHECK(result->logprobs[i].top[0].first == result->tokens[i]);
  }
}

TEST_CASE("auto: the router's choice is loaded, used and shown; and the base answers what fits no expert") {
  const Home home;
  const auto engine = open_bundled("cpu", home.path());
  Request request;
  request.prompt = "Find all users older than 25";
  request.schema = "users(id,name,age)";
  request.sampling.max_tokens = 4;
  const Json route = engine->route(request);
  REQUIRE(route["experts"].size() == 1);
  CHECK(route["experts"][0]["name"] == "expert-sql");
  CHECK(engine->stats()["experts"]["tiers"]["host"]["experts"] == 0);  // routing loads nothing
  const auto result = engine->submit(request)->wait(kSoon);
  REQUIRE(result->experts_used.size() == 1);
  CHECK(result->experts_used[0].name == "expert-sql");
  CHECK(result->plan["experts"][0]["reason"] == route["experts"][0]["reason"]);
  CHECK(result->plan["parameters"]["temperature"] == 0.0);
  CHECK(engine->stats()["experts"]["tiers"]["host"]["experts"] == 1);

  request = {};
  request.prompt = "Good morning";
  request.sampling.max_tokens = 2;
  CHECK(engine->submit(request)->wait(kSoon)->experts_used.empty());
}

TEST_CASE("handles: what they loaded, coexisting, unloaded while running") {
  const Home home;
  TempDir scratch;
  const auto engine = open_bundled("cpu", home.path());
  const fs::path path = fs::path(scratch.path()) / "mine";
  copy_expert("sql", path);
  edit_json(path / "manifest.json", [](Json& manifest) { manifest["version"] = "1.0.0"; });
  const auto first = engine->load_expert(path.string());
  CHECK(first->name() == "expert-sql");
  CHECK(first->version() == "1.0.0");
  CHECK(first->size_bytes() > 0);
  CHECK(first->kinds() == std::vector<std::string>{"lora"});

  // The handle means the bytes it loaded, also when the file changes; by name the latest wins.
  edit_json(path / "manifest.json", [](Json& manifest) { manifest["version"] = "2.0.0"; });
  const auto second = engine->load_expert(path.string());
  CHECK(second->version() == "2.0.0");
  Request by_name = request_with({{"sql", 1.0F}}, "Count the users");
  by_name.sampling.max_tokens = 2;
  CHECK(engine->submit(by_name)->wait(kSoon)->experts_used[0].version == "2.0.0");
  Request by_handle = by_name;
  by_handle.experts = {{first, "", 1.0F}};
  CHECK(engine->submit(by_handle)->wait(kSoon)->experts_used[0].version == "1.0.0");
  by_name.experts = {{nullptr, "sql@1.0.0", 1.0F}};
  CHECK(engine->submit(by_name)->wait(kSoon)->experts_used[0].version == "1.0.0");

  by_handle.sampling.max_tokens = 200;
  const auto running = engine->submit(by_handle);
  engine->unload(first);
  engine->unload(first);
  CHECK(first->unloaded());
  EXPECT_ERROR(closed, "was unloaded", engine->submit(by_handle));
  CHECK(running->wait(kSoon)->finish_reason == FinishReason::length);
  CHECK(engine->experts().size() == 1);

  const auto same = engine->load_expert(path.string());
  CHECK(same != second);
  engine->unload(second);
  by_handle.experts = {{same, "", 1.0F}};
  by_handle.sampling.max_tokens = 2;
  CHECK_NOTHROW(engine->submit(by_handle)->wait(kSoon));

  const auto other = open_bundled("cpu", home.path());
  EXPECT_ERROR(invalid_request, "another engine", other->submit(by_handle));
}

TEST_CASE("experts that do not belong to this base") {
  const Home home;
  TempDir scratch;
  const auto engine = open_bundled("cpu", home.path());
  const fs::path path = fs::path(scratch.path()) / "sql";
  EXPECT_ERROR(load, "no such expert", engine->load_expert(path.string()));
  EXPECT_ERROR(invalid_request, "unknown expert", engine->submit(request_with({{path.string(), 1.0F}}, "q")));

  copy_expert("sql", path);
  edit_json(path / "manifest.json", [](Json& m) {
    m["base_models"][0]["name"] = "somebody/other-model";
    m["base_models"][0].erase("sha256");  // a fingerprint that fits would prove more than a name
  });
  EXPECT_ERROR(incompatible, "other-model", engine->load_expert(path.string()));

  copy_expert("sql", path);
  edit_json(path / "manifest.json", [](Json& m) { m["base_models"][0]["sha256"] = std::string(64, 'a'); });
  EXPECT_ERROR(incompatible, "", engine->load_expert(path.string()));

  copy_expert("sql", path);
  fs::copy(kModels / "base" / "tokenizer.json", path / "tokenizer.json");
  CHECK_NOTHROW(engine->load_expert(path.string()));
  edit_json(path / "tokenizer.json", [](Json& t) { t["added_tokens"][0]["content"] = "<|other|>"; });
  EXPECT_ERROR(incompatible, "tokenizer.json differs", engine->load_expert(path.string()));

  // Without a manifest nothing is proven: a warning in the handle and in the plan.
  const fs::path bare = fs::path(scratch.path()) / "my_lora";
  copy_expert("sql", bare);
  fs::remove(bare / "manifest.json");
  const auto loaded = engine->load_expert(bare.string());
  CHECK(loaded->name() == "my_lora");
  CHECK(loaded->version() == "0.0.0");
  CHECK(loaded->manifest().is_null());
  CHECK_FALSE(loaded->warnings().empty());
  Request request = request_with({{"my_lora", 1.0F}}, "q");
  request.sampling.max_tokens = 1;
  CHECK_FALSE(engine->submit(request)->wait(kSoon)->plan["warnings"].empty());
}

TEST_CASE("constraints and decoding defaults of manifests") {
  const Home home;
  TempDir scratch;
  const auto engine = open_bundled("cpu", home.path());
  const fs::path path = fs::path(scratch.path()) / "sql";
  copy_expert("sql", path);
  const auto use = [&](const std::function<void(Json&)>& edit, std::vector<std::pair<std::string, float>> others = {}) {
    copy_expert("sql", path);
    edit_json(path / "manifest.json", edit);
    others.emplace_back(path.string(), 1.0F);
    Request request = request_with(others, "q");
    request.sampling.max_tokens = 1;
    return engine->submit(request)->wait(kSoon);
  };
  EXPECT_ERROR(incompatible, "requires schema-reader",
               use([](Json& m) { m["constraints"]["requires"] = {"schema-reader"}; }));
  EXPECT_ERROR(incompatible, "cannot be used together with expert-json",
               use([](Json& m) { m["constraints"]["incompatible_with"] = {"json@<1.0.0"}; }, {{"json", 1.0F}}));
  CHECK_NOTHROW(use([](Json& m) { m["constraints"]["incompatible_with"] = {"json@>=1.0.0"}; }, {{"json", 1.0F}}));
  EXPECT_ERROR(invalid_request, "max_chain", use([](Json& m) { m["constraints"]["max_chain"] = 1; }, {{"json", 1.0F}}));
  EXPECT_ERROR(unsupported, "vicuna", use([](Json& m) { m["base_models"][0]["prompt_template"] = "vicuna"; }));

  const auto result = use(
      [](Json& m) {
        m["training"]["decoding"]["temperature"] = 0.25;
        m["training"]["decoding"]["stop_sequences"] = {";", "--"};
      },
      {{"json", 0.5F}});
  CHECK(result->plan["parameters"]["temperature"] == 0.25);
  CHECK(result->plan["sources"]["temperature"] == "expert-sql");
  const auto stops = result->plan["parameters"]["stop"].get<std::vector<std::string>>();
  CHECK(std::find(stops.begin(), stops.end(), ";") != stops.end());
}

TEST_CASE("a screen of the head changes no answer, and is told of") {
  const Home home;
  const fs::path base = fs::path(home.folder.path()) / "wide";
  Json config = tiny_config();
  config["vocab_size"] = 70000;  // more than the tokenizer's, as published models have it
  config["hidden_size"] = 64;
  write_tiny_model(base.string(), config, 5, "BF16");
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(kModels / "base" / file, base / file);
  }
  const auto open = [&](bool head_screen) {
    EngineOptions options;
    options.base_model = base.string();
    options.home = home.path();
    options.weights = "int8";
    options.threads = 2;
    options.head_screen = head_screen;
    return Engine::open(options);
  };
  const auto with = open(true);
  const auto without = open(false);
  CHECK(without->stats()["head_screen"].is_null());
  const auto calls = [&] { return with->stats()["head_screen"]["calls"].get<uint64_t>(); };
  CHECK(calls() == 0);
  CHECK(with->stats()["head_screen"]["bytes_per_token"].is_null());
  const uint64_t made = with->stats()["head_screen"]["bytes"];
  CHECK(with->stats()["memory"]["weights_bytes"] == without->stats()["memory"]["weights_bytes"].get<uint64_t>() + made);

  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    Request request;
    request.prompt = fmt::format("{} of six", i);
    request.raw = true;
    request.base_only = true;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = 12 + i;
    request.sampling.seed = 90 + i;
    request.sampling.temperature = i % 2 == 0 ? 0.0F : 0.9F;
    if (i % 2 != 0) request.sampling.top_k = 4 * i;
    if (i == 3) request.sampling.top_p = 0.8F;
    requests.push_back(request);
  }
  const auto answer = [](Engine& engine, const Request& request) { return engine.submit(request)->wait(kSoon); };
  std::vector<std::vector<int32_t>> expected;
  for (const Request& request : requests) {
    const uint64_t before = calls();
    const auto result = answer(*with, request);
    CHECK(calls() > before);
    expected.push_back(answer(*without, request)->tokens);
    CHECK(result->tokens == expected.back());
  }
  std::vector<std::shared_ptr<Generation>> together;
  for (const Request& request : requests) together.push_back(with->submit(request));
  for (size_t i = 0; i < requests.size(); ++i) CHECK(together[i]->wait(kSoon)->tokens == expected[i]);
  CHECK(with->stats()["head_screen"]["bytes_per_token"].get<uint64_t>() > 0);

  const uint64_t before = calls();
  requests[0].sampling.logprobs = 2;
  const auto shown = answer(*with, requests[0]);
  CHECK(shown->tokens == expected[0]);
  CHECK(shown->logprobs.size() == shown->tokens.size());
  CHECK(calls() == before);
}

TEST_CASE("limits and options") {
  const Home home;
  EngineOptions options;
  options.base_model = (kModels / "base").string();
  options.home = home.path();
  const auto refused = [&](ErrorCode code, const std::string& part, auto&& change) {
    EngineOptions changed = options;
    change(changed);
    expect_error(
        code, part, [&] { Engine::open(changed); }, __FILE__, __LINE__);
  };
  refused(ErrorCode::out_of_memory, "memory_limit", [](EngineOptions& o) { o.memory_limit = 1 << 20; });
  refused(ErrorCode::invalid_request, "int9", [](EngineOptions& o) { o.kv = "int9"; });
  refused(ErrorCode::invalid_request, "q3", [](EngineOptions& o) { o.weights = "q3"; });
  refused(ErrorCode::unsupported, "cuda", [](EngineOptions& o) { o.device = "cuda"; });
  refused(ErrorCode::invalid_request, "max_batch", [](EngineOptions& o) { o.max_batch = 0; });
  refused(ErrorCode::invalid_request, "context_size", [](EngineOptions& o) { o.context_size = -1; });
  refused(ErrorCode::load, "no base model \"nobody\"", [](EngineOptions& o) { o.base_model = "nobody"; });

  options.memory_limit = 16 << 20;
  options.context_size = 256;
  const auto small = Engine::open(options);
  CHECK(small->info()["context_size"] == 256);
  CHECK(small->stats()["kv"]["blocks_total"] == 16);
  EXPECT_ERROR(out_of_memory, "memory_limit", [&] {
    for (const char* name : {"sql", "json", "shell", "classify", "jsonfmt"}) small->load_expert(name);
    for (int i = 0; i < 64; ++i) {
      TempDir scratch;
      copy_expert("sql", fs::path(scratch.path()) / "sql");
      edit_json(fs::path(scratch.path()) / "sql" / "manifest.json",
                [i](Json& m) { m["version"] = fmt::format("{}.0.0", i); });
      small->load_expert((fs::path(scratch.path()) / "sql").string());
    }
  }());
  const Json memory = small->stats()["memory"];
  CHECK(memory["total_bytes"].get<uint64_t>() <= options.memory_limit);

  // The bundled model is found without naming anything.
  options = {};
  options.home = home.path();
  CHECK(Engine::open(options)->info()["model"] == "base");
}
