// Small experts for the tests of packages and the store.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "io/archive.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "packages/manifests.h"

namespace expert::test {

inline Bytes bytes_of(std::string_view text) { return {as_bytes(text).begin(), as_bytes(text).end()}; }

inline Bytes adapter_weights(float value = 1) {
  Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return make_safetensors({{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "F32", {1, 1}, bytes}});
}

inline std::string adapter_config() {
  return R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "base_model_name_or_path": "Qwen/Qwen3-0.6B", "target_modules": ["q_proj"]})";
}

inline std::string manifest(const std::string& name, const std::string& version) {
  Json json = Json::parse(kPublished);
  json["name"] = name;
  json["version"] = version;
  return json.dump();
}

// The root layout.
inline std::vector<ArchiveEntry> package_files(const std::string& version = "0.3.0", float value = 1,
                                               const std::string& name = "expert-sql") {
  return {{"manifest.json", bytes_of(manifest(name, version))},
          {"adapter_config.json", bytes_of(adapter_config())},
          {"adapter_model.safetensors", adapter_weights(value)},
          {"grammar.gbnf", bytes_of("root ::= \"SELECT\"")},
          {"tests/cases.json", bytes_of("[]")},
          {"training_args.bin", bytes_of("a pickle that nobody opens")}};
}

inline void write_folder(const std::string& folder, const std::vector<ArchiveEntry>& files) {
  for (const ArchiveEntry& file : files) {
    create_directories(folder + "/" +
                       file.name.substr(0, file.name.rfind('/') == std::string::npos ? 0 : file.name.rfind('/')));
    write_file_atomically(folder + "/" + file.name, file.bytes);
  }
}

inline std::vector<ArchiveEntry> without(std::vector<ArchiveEntry> files, const std::string& name) {
  std::erase_if(files, [&](const ArchiveEntry& file) { return file.name == name; });
  return files;
}

}  // namespace expert::test
