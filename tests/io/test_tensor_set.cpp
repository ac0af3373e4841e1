#include <doctest/doctest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <filesystem>

#include "io/fingerprint.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using test::TempDir;

namespace {

TensorToWrite tensor(const std::string& name, std::vector<float> values) {
  Bytes bytes(values.size() * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, "F32", {static_cast<int64_t>(values.size())}, std::move(bytes)};
}

void write_index(const TempDir& dir, const Json& weight_map) {
  write_file_atomically(dir / "model.safetensors.index.json",
                        Json{{"metadata", {{"total_size", 0}}}, {"weight_map", weight_map}}.dump());
}

void write_shards(const TempDir& dir) {
  write_safetensors(dir / "model-1.safetensors", {tensor("a", {1, 2}), tensor("c", {5})});
  write_safetensors(dir / "model-2.safetensors", {tensor("b", {3, 4})});
  write_index(dir, {{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}, {"c", "model-1.safetensors"}});
}

}  // namespace

TEST_CASE("shards and one file are the same tensors with the same fingerprint") {
  const TempDir sharded, single, other;
  write_shards(sharded);
  write_safetensors(single / "model.safetensors", {tensor("b", {3, 4}), tensor("c", {5}), tensor("a", {1, 2})},
                    {{"format", "pt"}});
  write_safetensors(other / "model.safetensors", {tensor("a", {1, 2}), tensor("b", {3, 4}), tensor("c", {6})});
  const TensorSet x = TensorSet::open(sharded.path()), y = TensorSet::open(single.path()),
                  z = TensorSet::open(other.path());
  CHECK(x.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(x.files().size() == 2);
  CHECK(x.at("b").read_f32() == std::vector<float>{3, 4});
  CHECK_FALSE(x.find("absent"));
  CHECK(x.total_bytes() == 20);
  EXPECT_ERROR(load, "tensor absent is missing", x.at("absent"));
  CHECK(base_fingerprint(x) == base_fingerprint(y));
  CHECK(base_fingerprint(x) != base_fingerprint(z));
  // Computed in Python by the formula in io/fingerprint.h, as tests/golden/make_io.py does.
  CHECK(base_fingerprint(x) == "b93b6d5ac2396a138f885cddc4d48c6e177847164de63631c5acf2d291ca317b");
}

TEST_CASE("fingerprints are memoised by the identity of the files") {
  const TempDir dir, cache;
  write_safetensors(dir / "model.safetensors", {tensor("a", {1})});
  const std::string memo = cache / "deep/er";
  const std::filesystem::path written = dir / "model.safetensors";
  const auto time = std::filesystem::last_write_time(written);
  std::filesystem::last_write_time(written, time + std::chrono::hours(1));  // or on a busy machine the moment would pass
  CHECK(base_fingerprint(TensorSet::open(dir.path()), memo).size() == 64);
  CHECK_FALSE(directory_exists(memo));  // written a moment ago: its times may not tell a later change apart
  std::filesystem::last_write_time(written, time);
  test::settle();
  const std::string first = base_fingerprint(TensorSet::open(dir.path()), memo);
  CHECK(first == base_fingerprint(TensorSet::open(dir.path())));
  REQUIRE(list_directory(memo + "/fingerprints").size() == 1);
  const std::string file = memo + "/fingerprints/" + list_directory(memo + "/fingerprints")[0];
  write_file_atomically(file, std::string(64, '0'));
  CHECK(base_fingerprint(TensorSet::open(dir.path()), memo) == std::string(64, '0'));  // it was the memo that answered
  write_file_atomically(file, std::string_view("broken"));
  CHECK(base_fingerprint(TensorSet::open(dir.path()), memo) == first);
  write_safetensors(dir / "model.safetensors", {tensor("a", {2})});
  CHECK(base_fingerprint(TensorSet::open(dir.path()), memo) != first);
  write_file_atomically(cache / "file", std::string_view("in the way"));
  CHECK(base_fingerprint(TensorSet::open(dir.path()), cache / "file").size() == 64);

  const std::string now = base_fingerprint(TensorSet::open(dir.path()));
  CHECK(PendingFingerprint(TensorSet::open(dir.path()), "").get() == now);
  std::stop_source stopped;
  stopped.request_stop();
  const std::string unused = cache / "unused";
  CHECK(base_fingerprint(TensorSet::open(dir.path()), unused, stopped.get_token()).empty());
  CHECK(base_fingerprint(TensorSet::open(dir.path()), unused) == now);  // nothing was remembered
}

TEST_CASE("an index and its shards must agree") {
  const TempDir dir;
  write_shards(dir);
  CHECK(TensorSet::open(dir.path()).names().size() == 3);
  const Json good = {{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}, {"c", "model-1.safetensors"}};
  Json map = good;
  map["d"] = "model-1.safetensors";
  write_index(dir, map);
  EXPECT_ERROR(load, "tensor d is missing from model-1.safetensors", TensorSet::open(dir.path()));
  map = good;
  map["b"] = "model-1.safetensors";
  map["c"] = "model-2.safetensors";
  write_index(dir, map);
  EXPECT_ERROR(load, "is in model-2.safetensors, not in model-1.safetensors", TensorSet::open(dir.path()));
  map = good;
  map.erase("c");
  write_index(dir, map);
  CHECK(TensorSet::open(dir.path()).find("c"));  // as in Transformers: a shard is read whole
  for (const char* name : {"../x.safetensors", "/etc/passwd", "a\\b.safetensors", "model-1.bin", ".."}) {
    map = good;
    map["a"] = name;
    write_index(dir, map);
    EXPECT_ERROR(load, "is no plain name", TensorSet::open(dir.path()));
  }
  map["a"] = 3;
  write_index(dir, map);
  EXPECT_ERROR(load, "must be a file name", TensorSet::open(dir.path()));
  map["a"] = "model-3.safetensors";
  write_index(dir, map);
  EXPECT_ERROR(load, "model-3.safetensors is missing from the directory", TensorSet::open(dir.path()));
  write_safetensors(dir / "model-3.safetensors", {tensor("a", {1, 2}), tensor("b", {1})});
  EXPECT_ERROR(load, "is also in", TensorSet::open(dir.path()));
  write_index(dir, Json::object());
  EXPECT_ERROR(load, "weight_map is empty", TensorSet::open(dir.path()));
  write_file_atomically(dir / "model.safetensors.index.json", std::string_view("{}"));
  EXPECT_ERROR(load, "\"weight_map\" is missing", TensorSet::open(dir.path()));
}

TEST_CASE("a tensor may stand in two shards if it is the same") {
  const TempDir dir;
  write_safetensors(dir / "model-1.safetensors", {tensor("a", {1, 2}), tensor("b", {3})});
  write_safetensors(dir / "model-2.safetensors", {tensor("b", {3})});
  write_index(dir, {{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}});
  EXPECT_ERROR(load, "tensor b is in model-1.safetensors, not in model-2", TensorSet::open(dir.path()));
  write_index(dir, {{"a", "model-1.safetensors"}, {"b", "model-1.safetensors"}, {"d", "model-2.safetensors"}});
  write_safetensors(dir / "model-2.safetensors", {tensor("b", {3}), tensor("d", {4})});
  CHECK(TensorSet::open(dir.path()).names() == std::vector<std::string>{"a", "b", "d"});
  write_safetensors(dir / "model-2.safetensors", {tensor("b", {5}), tensor("d", {4})});
  EXPECT_ERROR(load, "is also in", TensorSet::open(dir.path()));
}

TEST_CASE("names of a bare decoder are completed") {
  const TempDir bare, full;
  write_safetensors(bare / "model.safetensors", {tensor("embed_tokens.weight", {1}), tensor("layers.0.x.weight", {2}),
                                                 tensor("lm_head.weight", {4}), tensor("norm.weight", {3})});
  const TensorSet set = TensorSet::open(bare.path());
  CHECK(set.names() == std::vector<std::string>{"lm_head.weight", "model.embed_tokens.weight",
                                                "model.layers.0.x.weight", "model.norm.weight"});
  CHECK(set.at("model.norm.weight").read_f32() == std::vector<float>{3});
  write_safetensors(full / "model.safetensors",
                    {tensor("model.embed_tokens.weight", {1}), tensor("embed_tokens.weight", {2})});
  CHECK(TensorSet::open(full.path()).names() ==
        std::vector<std::string>{"embed_tokens.weight", "model.embed_tokens.weight"});
}

TEST_CASE("directories without safetensors say what they have") {
  const TempDir dir;
  EXPECT_ERROR(load, "has neither model.safetensors nor", TensorSet::open(dir.path()));
  EXPECT_ERROR(load, "is no directory", TensorSet::open(dir / "absent"));
  write_file_atomically(dir / "pytorch_model.bin", std::string_view("pickle"));
  EXPECT_ERROR(unsupported, "weights in pytorch_model.bin are a pickle", TensorSet::open(dir.path()));
  EXPECT_ERROR(load, "is a file", TensorSet::open(dir / "pytorch_model.bin"));
  const TempDir gguf;
  write_file_atomically(gguf / "x.gguf", std::string_view("GGUF"));
  EXPECT_ERROR(unsupported, "x.gguf are not supported", TensorSet::open(gguf.path()));
  const TempDir fifo;
  REQUIRE(::mkfifo((fifo / "model.safetensors").c_str(), 0600) == 0);
  EXPECT_ERROR(load, "is a FIFO", TensorSet::open(fifo.path()));
}
