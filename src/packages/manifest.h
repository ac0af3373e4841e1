// manifest.json of an expert, schema 1.0 and 2.0. Read leniently where published manifests differ from each other,
// strictly where a value forms a path or decides what runs. Unknown keys stay in `raw`. Errors are ErrorCode::manifest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace expert {

// What a manifest says about one adapter; adapter_config.json is what counts when the two disagree.
struct ManifestAdapter {
  std::string type;  // lower case: "lora", "dora", "ia3", …
  std::vector<std::string> target_modules;
  std::vector<std::string> feedforward_modules;
  std::optional<int64_t> r;
  std::optional<double> alpha;
  std::optional<std::string> path;  // relative to the expert's root; older manifests only
  std::optional<std::string> sha256;
  Json raw;
};

struct ManifestBaseModel {
  std::string name;                            // a model id or a path; compare with base_name_matches()
  std::optional<std::string> sha256;           // base_fingerprint(), bare hex; absent when the manifest leaves it empty
  std::optional<std::string> quantization;     // "int4", "bf16", …
  std::optional<std::string> prompt_template;  // "qwen3", "chatml", …
  Json rope_scaling;                           // as written: string, object or null
  std::vector<ManifestAdapter> adapters;
};

struct ManifestRouting {
  std::vector<std::string> keywords;
  std::vector<std::string> exclude_keywords;
  std::optional<std::string> router_hint;  // kept as written; the keyword router does not evaluate it
  double priority = 0.5;                   // 0 … 1
};

struct ManifestConstraints {
  int64_t load_order = 0;                      // lower comes first
  std::vector<std::string> incompatible_with;  // "name", "name@1.2.3", "name@>=1.0.0,<2.0.0"
  std::vector<std::string> required;           // `requires` in the manifest, same patterns
  int64_t max_chain = 10;                      // most experts in one composition
};

// Defaults for requests that use this expert; absent = not set by the expert.
struct ManifestDecoding {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;  // 0 = off
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int64_t> max_tokens;
  std::vector<std::string> stop_sequences;
  bool use_grammar = false;
  std::optional<std::string> grammar_type;
  std::optional<std::string> grammar_file;  // a plain relative path inside the package
};

struct Manifest {
  std::string schema_version;  // "1.0" or "2.0"
  std::string name;            // canonical: begins with "expert-"
  std::string version;         // semver
  std::string description;
  std::string author;
  std::string license;
  std::vector<std::string> tags;
  std::vector<ManifestBaseModel> base_models;  // at least one; schema 1.0 has exactly one
  std::vector<std::string> capabilities;       // "task:text2sql", "format:json", …
  ManifestRouting routing;
  ManifestConstraints constraints;
  ManifestDecoding decoding;
  std::vector<std::string> soft_prompts;  // paths of learned rows
  std::vector<std::string> warnings;      // what was tolerated, for `info` and `plan`
  Json raw;                               // the whole document, unknown keys and `_comment`s included

  // The language of the answer that the capabilities imply ("sql", "cypher", "json", …): what a prompt template puts in
  // its `Dialect:` line. Empty when they imply none.
  std::string dialect() const;
};

Manifest parse_manifest(std::string_view text, std::string_view source = "manifest.json");

struct DecodingSource {
  std::string name;
  double weight = 1.0;
  const ManifestDecoding* decoding = nullptr;  // nullptr: an expert without a manifest
};
// The decoding defaults of a composition: those of the expert with the largest |weight|, then the first by name; stop
// strings of all united. An empty list gives nothing set.
ManifestDecoding merge_decoding(const std::vector<DecodingSource>& experts);
// Only what is set, under the names of a request: {"temperature": 0.1, "stop": [";"], …}.
Json to_parameters(const ManifestDecoding& decoding);

// "sql" and "expert-sql" → "expert-sql". Anything but ^(expert-)?[a-z0-9][a-z0-9-]*$ (at most 64 characters) throws.
std::string canonical_name(std::string_view name, std::string_view source = "expert name");
bool is_canonical_name(std::string_view name);

// Whether two base model names mean one model: last path segments, letter case and `.`, `_`, `-` aside.
bool base_name_matches(std::string_view a, std::string_view b);

}  // namespace expert
