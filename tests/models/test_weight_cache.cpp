#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "models/weight_cache.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using namespace expert::test;

// Almost all of it embedding, 20 MB in F32: large enough for a screen of the head, and in BF16 for a file of two pieces.
Json cached_config() {
  Json config = tiny_config();
  config["vocab_size"] = 80000;
  config["hidden_size"] = 64;
  config["num_hidden_layers"] = 1;
  return config;
}

// A model of cached_config() that no test changes.
const std::string& cached_base() {
  static const TempDir dir;
  static const std::string base = write_tiny_model(dir / "base", cached_config());
  return base;
}

std::filesystem::path only_file(const std::string& directory) {
  std::filesystem::path found;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.is_directory()) continue;  // of fingerprints
    REQUIRE(found.empty());
    found = entry.path();
  }
  return found;
}

void flip_byte(const std::filesystem::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int value = file.get();
  file.seekp(at);
  file.put(static_cast<char>(value ^ 0x10));
}

ModelOptions cached_in(const std::string& cache) {
  ModelOptions options;
  options.cache_dir = cache;
  options.smallest_cached = 1;
  return options;
}

// What is looked at is the file, not the weights: those in the form that is packed soonest.
ModelOptions quickly_packed(const std::string& cache) {
  ModelOptions options = cached_in(cache);
  options.weights = WeightChoice::bf16;
  options.head_screen = false;
  return options;
}

// A cache file of cached_base() in a folder of its own.
struct Written {
  std::unique_ptr<TempDir> dir = std::make_unique<TempDir>();
  std::filesystem::path file;
  std::vector<float> logits;
};

Written write_cache(ModelOptions options) {
  Written written;
  options.cache_dir = *written.dir / "cache";
  Runner runner(cached_base(), "cpu", options);
  written.logits = runner.logits(tiny_prompt(4));
  REQUIRE(runner.model().write_weight_cache());
  written.file = only_file(options.cache_dir.string());
  return written;
}

}  // namespace

TEST_CASE("packed weights come back from the cache with the screen of the head, and only in their own format") {
  const TempDir dir;
  ModelOptions options = cached_in(dir / "cache");
  const std::vector<int32_t> ids = tiny_prompt(4);
  Runner first(cached_base(), "cpu", options);
  CHECK_FALSE(first.model().loaded_from_cache());
  CHECK(first.model().write_weight_cache());
  CHECK(std::filesystem::file_size(only_file(dir / "cache")) < first.model().weight_bytes() + 16384);

  Runner second(cached_base(), "cpu", options);
  CHECK(second.model().loaded_from_cache());
  CHECK(second.model().head_screen_bytes() > 0);
  CHECK(second.model().head_screen_bytes() == first.model().head_screen_bytes());
  CHECK(second.logits(ids) == first.logits(ids));
  CHECK_FALSE(second.model().write_weight_cache());  // nothing to do

  options.weights = WeightChoice::bf16;
  CHECK_FALSE(Runner(cached_base(), "cpu", options).model().loaded_from_cache());
}

TEST_CASE("a damaged cache is made anew") {
  const TempDir dir;
  const ModelOptions options = quickly_packed(dir / "cache");
  static const Written written = write_cache(options);
  std::filesystem::create_directory(dir / "cache");
  const std::filesystem::path file = dir / "cache" / written.file.filename();
  std::filesystem::copy_file(written.file, file);
  const auto size = static_cast<std::streamoff>(std::filesystem::file_size(file));

  SUBCASE("header") { flip_byte(file, 70); }
  SUBCASE("contents") { flip_byte(file, size / 2); }
  SUBCASE("last byte") { flip_byte(file, size - 1); }
  SUBCASE("cut") { std::filesystem::resize_file(file, static_cast<uintmax_t>(size - 1)); }
  SUBCASE("emptied") { std::filesystem::resize_file(file, 0); }
  Runner packed(cached_base(), "cpu", options);
  CHECK_FALSE(packed.model().loaded_from_cache());
  CHECK(packed.logits(tiny_prompt(4)) == written.logits);
  CHECK(packed.model().write_weight_cache());
  CHECK(only_file(dir / "cache") == file);  // the same name: no old copies pile up
  CHECK(Runner(cached_base(), "cpu", options).model().loaded_from_cache());
}

TEST_CASE("a cache written without a screen of the head is written again with one, and serves those who want none") {
  const TempDir dir;
  const ModelOptions options = cached_in(dir / "cache");
  ModelOptions without = options;
  without.head_screen = false;
  CHECK(Runner(cached_base(), "cpu", without).model().write_weight_cache());
  const Runner first(cached_base(), "cpu", options);
  CHECK_FALSE(first.model().loaded_from_cache());
  CHECK(first.model().head_screen_bytes() > 0);
  CHECK(first.model().write_weight_cache());
  CHECK(Runner(cached_base(), "cpu", options).model().loaded_from_cache());
  const Runner again(cached_base(), "cpu", without);
  CHECK(again.model().loaded_from_cache());
  CHECK(again.model().head_screen_bytes() == 0);
}

TEST_CASE("a cache file is read through once for each state it is in") {
  const TempDir dir;
  const ModelOptions options = quickly_packed(dir / "cache");
  const auto from_cache = [&] { return Runner(cached_base(), "cpu", options).model().loaded_from_cache(); };
  CHECK(Runner(cached_base(), "cpu", options).model().write_weight_cache());
  const std::filesystem::path file = only_file(dir / "cache");
  const auto remembered = [&] {
    return directory_exists(dir / "cache/weights") ? list_directory(dir / "cache/weights").size() : 0;
  };
  const auto now = std::filesystem::last_write_time(file);
  std::filesystem::last_write_time(file, now + std::chrono::hours(1));  // or on a busy machine the moment would pass
  CHECK(from_cache());  // written a moment ago: compared, not remembered
  CHECK(remembered() == 0);
  std::filesystem::last_write_time(file, now);
  settle();
  CHECK(from_cache());
  CHECK(remembered() == 1);
  CHECK(from_cache());
  CHECK(remembered() == 1);

  const auto written = std::filesystem::last_write_time(file);
  flip_byte(file, static_cast<std::streamoff>(std::filesystem::file_size(file)) / 2);
  std::filesystem::last_write_time(file, written);  // the time of the change of state betrays it
  settle();
  CHECK_FALSE(from_cache());
  CHECK(remembered() == 1);
}

TEST_CASE("a checkpoint is cached from the least size on") {
  const TempDir dir;
  ModelOptions options = quickly_packed(dir / "cache");
  options.smallest_cached = Runner(cached_base(), "cpu", {}).model().source_tensors().total_bytes();
  CHECK(ModelOptions{}.smallest_cached == uint64_t{64} << 20);
  ModelOptions larger = options;
  ++larger.smallest_cached;
  CHECK_FALSE(Runner(cached_base(), "cpu", larger).model().write_weight_cache());
  CHECK(Runner(cached_base(), "cpu", options).model().write_weight_cache());
  CHECK_FALSE(Runner(cached_base(), "cpu", larger).model().loaded_from_cache());
  CHECK(Runner(cached_base(), "cpu", options).model().loaded_from_cache());
}

TEST_CASE("a changed checkpoint makes the cache stale") {
  const TempDir dir;
  const std::string base = dir / "base";
  std::filesystem::copy(cached_base(), base);
  const ModelOptions options = quickly_packed(dir / "cache");
  Runner first(base, "cpu", options);
  CHECK(first.model().write_weight_cache());
  write_tiny_model(base, cached_config(), 2);
  Runner changed(base, "cpu", options);
  CHECK_FALSE(changed.model().loaded_from_cache());
  CHECK(changed.logits({1}) != first.logits({1}));
}

TEST_CASE("no cache for small models, nothing left behind when stopped or when the folder cannot be written") {
  const TempDir dir;
  ModelOptions options = quickly_packed(dir / "cache");
  options.smallest_cached = ModelOptions{}.smallest_cached;
  CHECK_FALSE(Runner(write_tiny_model(dir / "small"), "cpu", options).model().write_weight_cache());
  if (directory_exists(dir / "cache")) CHECK(only_file(dir / "cache").empty());

  const std::string& base = cached_base();
  options.smallest_cached = 1;
  Runner runner(base, "cpu", options);
  std::stop_source stop;
  stop.request_stop();
  CHECK_FALSE(runner.model().write_weight_cache(stop.get_token()));
  if (directory_exists(dir / "cache")) CHECK(only_file(dir / "cache").empty());

  options.cache_dir = base + "/config.json/below-a-file";
  CHECK_FALSE(Runner(base, "cpu", options).model().write_weight_cache());
}
