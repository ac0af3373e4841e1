#include <doctest/doctest.h>
#include <sys/stat.h>

#include "packages/make_package.h"
#include "packages/package.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

using namespace expert;
using namespace expert::test;

namespace {

Package open_entries(std::vector<ArchiveEntry> files) {
  return Package::from_entries(std::move(files), "p", "default");
}

const std::string kHash(64, 'a');

Package with_base(const std::string& name, const std::string& sha256) {
  Json json = Json::parse(kPublished);
  json["base_models"][0]["name"] = name;
  json["base_models"][0]["sha256"] = sha256;
  std::vector<ArchiveEntry> files = package_files();
  files[0].bytes = bytes_of(json.dump());
  return open_entries(std::move(files));
}

}  // namespace

TEST_CASE("an archive, its folder and every container are the same expert") {
  const TempDir dir;
  write_archive(dir / "a.expert", package_files());
  write_archive(dir / "b.expert", package_files(), ArchiveFormat::zip);
  write_archive(dir / "c.expert", package_files(), ArchiveFormat::tar_zstd);
  write_folder(dir / "folder", package_files());
  const Package a = Package::open(dir / "a.expert");
  CHECK(a.name() == "expert-sql");
  CHECK(a.version() == "0.3.0");
  CHECK(a.kinds() == std::vector<std::string>{"lora"});
  CHECK(a.adapter_config()["r"] == 1);
  CHECK(a.tensors().entries().size() == 1);
  CHECK(a.tensors().read_f32(a.tensors().entries()[0]) == std::vector<float>{1});
  CHECK(a.grammar() == "root ::= \"SELECT\"");
  CHECK(a.files().size() == 6);
  CHECK(a.content_hash().size() == 64);
  for (const char* other : {"b.expert", "c.expert", "folder"})
    CHECK(Package::open(dir / other).content_hash() == a.content_hash());
  CHECK(Package::open(dir / "b.expert").files_hash() == a.files_hash());
  CHECK(open_entries(package_files("0.3.0", 2)).content_hash() != a.content_hash());
  CHECK(open_entries(package_files("0.3.1", 1)).content_hash() != a.content_hash());
}

TEST_CASE("the package keeps its bytes when the source vanishes") {
  const TempDir dir;
  write_folder(dir / "folder", package_files());
  const Package package = Package::open(dir / "folder");
  std::filesystem::remove_all(dir / "folder");
  CHECK(package.tensors().read_f32(package.tensors().entries()[0]) == std::vector<float>{1});
}

TEST_CASE("a bare PEFT directory has the name of its folder and version 0.0.0") {
  const TempDir dir;
  write_folder(dir / "My-Adapter", {package_files()[1],
                                    package_files()[2],
                                    {"training_args.bin", bytes_of("pickle")},
                                    {"optimizer.pt", bytes_of("x")},
                                    {"checkpoint-5/adapter_config.json", bytes_of("{")},
                                    {"trainer_state.json", bytes_of("not even JSON")},
                                    {"README.md", bytes_of("card")}});
  const Package package = Package::open(dir / "My-Adapter/");
  CHECK(package.name() == "My-Adapter");
  CHECK(package.version() == "0.0.0");
  CHECK_FALSE(package.has_manifest());
  CHECK(package.files().size() == 3);
  CHECK(package.adapter_base_name() == "Qwen/Qwen3-0.6B");
  const BaseMatch match = package.match_base({"qwen3-0.6b", [] { return std::string(64, 'f'); }});
  CHECK_FALSE(match.proven);
  CHECK(match.warnings.size() == 1);
  CHECK(package.match_base({"other", {}}).warnings[0].find("was made for \"Qwen3-0.6B\"") != std::string::npos);
}

TEST_CASE("kinds are named by the adapter's own configuration") {
  auto kind = [](const std::string& config) {
    std::vector<ArchiveEntry> files = package_files();
    files[1].bytes = bytes_of(config);
    return open_entries(std::move(files)).kinds();
  };
  CHECK(kind(R"({"peft_type":"LORA","use_dora":true})") == std::vector<std::string>{"dora"});
  CHECK(kind(R"({"peft_type":"LORA","use_dora":null})") == std::vector<std::string>{"lora"});
  CHECK(kind(R"({"peft_type":"IA3"})") == std::vector<std::string>{"ia3"});
  CHECK(kind(R"({"peft_type":"PROMPT_TUNING"})") == std::vector<std::string>{"prompt_tuning"});
  EXPECT_ERROR(load, "\"peft_type\" is missing", kind("{}"));
  EXPECT_ERROR(load, "adapter_config.json: not valid JSON", kind("{"));
}

TEST_CASE("pickled weights are refused with how to convert them, other pickles are left alone") {
  const TempDir dir;
  std::vector<ArchiveEntry> files = without(package_files(), "adapter_model.safetensors");
  files.push_back({"adapter_model.bin", bytes_of("pickle")});
  write_folder(dir / "folder", files);
  EXPECT_ERROR(unsupported, "adapter_model.bin are a pickle", Package::open(dir / "folder"));
  EXPECT_ERROR(unsupported, "adapter_model.bin are a pickle", open_entries(files));
  EXPECT_ERROR(unsupported, "are a pickle", Package::open(dir / "folder/adapter_model.bin"));
  try {
    Package::open(dir / "folder");
  } catch (const Error& error) {
    CHECK(error.hint().find("save_pretrained") != std::string::npos);
  }
}

TEST_CASE("layouts") {
  const std::vector<ArchiveEntry> root = package_files();
  const Package nested = open_entries({root[0],
                                       {"weights/qwen3/adapter/adapter_config.json", root[1].bytes},
                                       {"weights/qwen3/adapter/adapter_model.safetensors", root[2].bytes}});
  CHECK(nested.content_hash() == open_entries(root).content_hash());
  EXPECT_ERROR(unsupported, "holds 2 adapters",
               open_entries({{"weights/a/adapter/adapter_config.json", root[1].bytes},
                             {"weights/b/adapter/adapter_config.json", root[1].bytes}}));
  EXPECT_ERROR(unsupported, "the layout with weights.safetensors",
               open_entries({root[0], {"weights.safetensors", root[2].bytes}}));
  EXPECT_ERROR(unsupported, "lies in sql/", open_entries({{"sql/adapter_config.json", root[1].bytes}}));
  EXPECT_ERROR(load, "adapter_model.safetensors is missing", open_entries({root[0], root[1]}));
  EXPECT_ERROR(load, "adapter_config.json is missing", open_entries({root[0], root[2]}));
  EXPECT_ERROR(unsupported, "calibration.json is not supported",
               open_entries({root[0], root[1], root[2], {"calibration.json", {}}}));
  Json soft = Json::parse(kPublished);
  soft["soft_prompts"] = {{{"name", "x"}, {"path", "x.pt"}, {"tokens", 4}}};
  EXPECT_ERROR(unsupported, "soft prompts (x.pt)",
               open_entries({{"manifest.json", bytes_of(soft.dump())}, root[1], root[2]}));
}

TEST_CASE("what is no expert says what it is") {
  const TempDir dir;
  EXPECT_ERROR(load, "No such file", Package::open(dir / "absent.expert"));
  EXPECT_ERROR(load, "adapter_model.safetensors is missing", Package::open(dir.path()));
  write_file_atomically(dir / "text.expert", std::string_view("hello"));
  EXPECT_ERROR(load, "is no archive", Package::open(dir / "text.expert"));
  write_file_atomically(dir / "x.safetensors", adapter_weights());
  EXPECT_ERROR(load, "is a weight file", Package::open(dir / "x.safetensors"));
  REQUIRE(::mkfifo((dir / "fifo.expert").c_str(), 0600) == 0);
  EXPECT_ERROR(load, "is a FIFO", Package::open(dir / "fifo.expert"));
  write_folder(dir / "cut", package_files());
  const Bytes whole = adapter_weights();
  write_file_atomically(dir / "cut/adapter_model.safetensors", ByteView(whole).first(whole.size() - 1));
  EXPECT_ERROR(load, "adapter_model.safetensors", Package::open(dir / "cut"));
}

TEST_CASE("bases are matched by fingerprint, then by name") {
  int asked = 0;
  const BaseIdentity base{"Qwen3-0.6B", [&] { return ++asked, kHash; }};
  CHECK_FALSE(with_base("x/qwen3_0.6B", "").match_base(base).proven);
  CHECK(asked == 0);  // no hash in the manifest, so the weights are not read
  CHECK(with_base("Qwen3-0.6B", kHash).match_base(base).proven);
  CHECK(with_base("another name", "sha256:" + kHash).match_base(base).proven);
  CHECK(asked == 2);
  EXPECT_ERROR(incompatible, "was made for Qwen3-0.6B with other weights",
               with_base("Qwen3-0.6B", std::string(64, 'b')).match_base(base));
  EXPECT_ERROR(incompatible, "was made for Llama-3, the base is \"Qwen3-0.6B\"",
               with_base("meta/Llama-3", "").match_base(base));
  CHECK(with_base("Qwen3-0.6B", kHash).match_base({"Qwen3-0.6B", {}}).warnings.size() == 1);
}

TEST_CASE("a manifest for several bases uses the entry that fits") {
  Json json = Json::parse(kPublished);
  json["base_models"].push_back(json["base_models"][0]);
  json["base_models"][1]["name"] = "Qwen3-1.7B";
  std::vector<ArchiveEntry> files = package_files();
  files[0].bytes = bytes_of(json.dump());
  const Package package = open_entries(std::move(files));
  CHECK(package.match_base({"qwen3-1.7b", {}}).base_model == 1);
  CHECK(package.match_base({"qwen3-0.6b", {}}).base_model == 0);
  EXPECT_ERROR(incompatible, "Qwen3-0.6B, Qwen3-1.7B", package.match_base({"qwen3-4b", {}}));
}

TEST_CASE("names of base models in the Hugging Face cache") {
  CHECK(base_name_of("/c/models--Qwen--Qwen3-0.6B/snapshots/0123abc") == "Qwen3-0.6B");
  CHECK(base_name_of("/c/models--Qwen--Qwen3-0.6B/snapshots/0123abc/") == "Qwen3-0.6B");
  CHECK(base_name_of("/models/tiny/") == "tiny");
}

TEST_CASE("tokenizers are compared by what they do, not by how they are written") {
  const Json a =
      Json::parse(R"({"version":"1.0","truncation":null,"added_tokens":[{"id":3,"content":"<s>","special":true}],
      "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
  Json b = Json::parse(R"({"model":{"merges":[["a","b"]],"vocab":{"ab":2,"<s>":3,"b":1,"a":0}},
      "added_tokens":[{"content":"<s>","lstrip":false,"id":3}],"padding":{"x":1}})");
  CHECK(same_tokenizer(a, b));
  CHECK(same_tokenizer(b, a));
  Json c = b;
  c["model"]["vocab"]["b"] = 5;
  CHECK_FALSE(same_tokenizer(a, c));
  c = b;
  c["model"]["merges"] = Json::array();
  CHECK_FALSE(same_tokenizer(a, c));
  c = b;
  c["added_tokens"].push_back({{"content", "<pad>"}, {"id", 4}});
  CHECK_FALSE(same_tokenizer(a, c));
  CHECK_FALSE(same_tokenizer(a, Json::array()));
  CHECK_FALSE(same_tokenizer(Json::parse(R"({"model":{"vocab":[["a",-1.5]]}})"),
                             Json::parse(R"({"model":{"vocab":[["a",-2.5]]}})")));
}
