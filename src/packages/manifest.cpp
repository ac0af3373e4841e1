#include "packages/manifest.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/strings.h"
#include "io/archive.h"
#include "packages/semver.h"

namespace expert {
namespace {

constexpr size_t kMaxNameLength = 64;
constexpr JsonLimits kLimits = {.max_bytes = size_t{16} << 20, .max_depth = 64};

// Bare lower-case hex, or nothing when the manifest leaves the hash empty.
std::optional<std::string> parse_sha256(const JsonFields& fields) {
  std::string text = lower_ascii(fields.string_or("sha256", ""));
  if (text.starts_with("sha256:")) text.erase(0, 7);
  if (text.empty()) return std::nullopt;
  if (text.size() != 64 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    fail(ErrorCode::manifest, "{}: \"sha256\" is no SHA-256 in hex", fields.source());
  }
  return text;
}

std::optional<double> number_between(const JsonFields& fields, std::string_view key, double least, double most) {
  const std::optional<double> value = fields.optional_number(key);
  if (value && (*value < least || *value > most)) {
    fail(ErrorCode::manifest, "{}: \"{}\" is {}, outside {} … {}", fields.source(), key, *value, least, most);
  }
  return value;
}

std::optional<int64_t> integer_from(const JsonFields& fields, std::string_view key, int64_t least) {
  const std::optional<int64_t> value = fields.optional_integer(key);
  if (value && *value < least) {
    fail(ErrorCode::manifest, "{}: \"{}\" is {}, must be at least {}", fields.source(), key, *value, least);
  }
  return value;
}

std::vector<Json> list_of_objects(const JsonFields& fields, std::string_view key) {
  std::vector<Json> objects;
  const Json* list = fields.find(key);
  if (list == nullptr) return objects;
  if (!list->is_array()) fail(ErrorCode::manifest, "{}: \"{}\" must be a list", fields.source(), key);
  for (const Json& item : *list) objects.push_back(item);
  return objects;
}

ManifestAdapter parse_adapter(const Json& json, const std::string& source) {
  const JsonFields fields(json, source, ErrorCode::manifest);
  ManifestAdapter adapter;
  adapter.type = lower_ascii(fields.string("type"));
  adapter.target_modules = fields.strings_or_empty("target_modules");
  adapter.feedforward_modules = fields.strings_or_empty("feedforward_modules");
  adapter.r = integer_from(fields, "r", 1);
  adapter.alpha = fields.optional_number("alpha");
  adapter.path = fields.optional_string("path");
  adapter.sha256 = parse_sha256(fields);
  adapter.raw = json;
  return adapter;
}

std::vector<ManifestAdapter> parse_adapters(const JsonFields& fields) {
  std::vector<ManifestAdapter> adapters;
  for (const Json& json : list_of_objects(fields, "adapters")) {
    adapters.push_back(parse_adapter(json, fmt::format("{}: adapters[{}]", fields.source(), adapters.size())));
  }
  return adapters;
}

void check_prompt_template(const ManifestBaseModel& base, std::vector<std::string>& warnings) {
  static constexpr std::array<std::string_view, 13> kKnown = {"qwen3",  "qwen",    "chatml", "llama", "llama2",
                                                              "llama3", "alpaca",  "vicuna", "phi",   "deepseek",
                                                              "gemma",  "mistral", "custom"};
  if (!base.prompt_template || std::find(kKnown.begin(), kKnown.end(), *base.prompt_template) != kKnown.end()) return;
  warnings.push_back(fmt::format("prompt_template \"{}\" is not known", base.prompt_template->substr(0, 80)));
}

ManifestBaseModel parse_base_model(const JsonFields& fields, std::vector<std::string>& warnings) {
  ManifestBaseModel base;
  base.name = fields.string("name");
  if (last_segment(base.name).empty()) fail(ErrorCode::manifest, "{}: \"name\" is empty", fields.source());
  base.sha256 = parse_sha256(fields);
  base.quantization = fields.optional_string("quantization");
  base.prompt_template = fields.optional_string("prompt_template");
  if (const Json* rope = fields.find("rope_scaling")) {
    base.rope_scaling = *rope;
    warnings.push_back("rope_scaling in the manifest does not change the base model's configuration");
  }
  base.adapters = parse_adapters(fields);
  check_prompt_template(base, warnings);
  return base;
}

std::string schema_version_of(const JsonFields& fields) {
  const bool one = fields.has("base_model"), many = fields.has("base_models");
  if (one == many) {
    fail(ErrorCode::manifest, "{}: needs either \"base_model\" (schema 1.0) or \"base_models\" (schema 2.0)",
         fields.source());
  }
  const std::string version = fields.string_or("schema_version", many ? "2.0" : "1.0");
  if (version != "1.0" && version != "2.0") {
    fail(ErrorCode::manifest, "{}: schema_version \"{}\" is not known; 1.0 and 2.0 are", fields.source(),
         version.substr(0, 20));
  }
  if ((version == "2.0") != many) {
    fail(ErrorCode::manifest, "{}: schema {} does not go with \"{}\"", fields.source(), version,
         many ? "base_models" : "base_model");
  }
  return version;
}

std::vector<ManifestBaseModel> parse_base_models(const JsonFields& fields, std::vector<std::string>& warnings) {
  std::vector<ManifestBaseModel> models;
  if (fields.has("base_model")) {
    models.push_back(parse_base_model(fields.object("base_model"), warnings));
    std::vector<ManifestAdapter> adapters = parse_adapters(fields);  // schema 1.0 has them beside the model
    if (!adapters.empty()) models[0].adapters = std::move(adapters);
    return models;
  }
  for (const Json& json : list_of_objects(fields, "base_models")) {
    const std::string source = fmt::format("{}: base_models[{}]", fields.source(), models.size());
    models.push_back(parse_base_model(JsonFields(json, source, ErrorCode::manifest), warnings));
  }
  if (models.empty()) fail(ErrorCode::manifest, "{}: \"base_models\" is empty", fields.source());
  return models;
}

ManifestRouting parse_routing(const JsonFields& fields) {
  ManifestRouting routing;
  if (!fields.has("routing")) return routing;
  const JsonFields object = fields.object("routing");
  routing.keywords = object.strings_or_empty("keywords");
  routing.exclude_keywords = object.strings_or_empty("exclude_keywords");
  routing.router_hint = object.optional_string("router_hint");
  routing.priority = number_between(object, "priority", 0, 1).value_or(0.5);
  return routing;
}

// Older documents put load_order and requires at the root.
ManifestConstraints parse_constraints(const JsonFields& root) {
  ManifestConstraints constraints;
  constraints.load_order = integer_from(root, "load_order", 0).value_or(0);
  constraints.required = root.strings_or_empty("requires");
  if (!root.has("constraints")) return constraints;
  const JsonFields object = root.object("constraints");
  constraints.load_order = integer_from(object, "load_order", 0).value_or(constraints.load_order);
  constraints.incompatible_with = object.strings_or_empty("incompatible_with");
  if (object.has("requires")) constraints.required = object.strings("requires");
  constraints.max_chain = integer_from(object, "max_chain", 1).value_or(constraints.max_chain);
  return constraints;
}

ManifestDecoding parse_decoding_fields(const JsonFields& fields) {
  ManifestDecoding decoding;
  decoding.temperature = number_between(fields, "temperature", 0, 100);
  decoding.top_p = number_between(fields, "top_p", 0, 1);
  if (decoding.top_p == 0.0) fail(ErrorCode::manifest, "{}: \"top_p\" must be above 0", fields.source());
  decoding.top_k = integer_from(fields, "top_k", 0);
  decoding.min_p = number_between(fields, "min_p", 0, 1);
  decoding.repetition_penalty = number_between(fields, "repetition_penalty", 0, 100);
  if (decoding.repetition_penalty == 0.0) {
    fail(ErrorCode::manifest, "{}: \"repetition_penalty\" must be above 0", fields.source());
  }
  decoding.presence_penalty = number_between(fields, "presence_penalty", -100, 100);
  decoding.frequency_penalty = number_between(fields, "frequency_penalty", -100, 100);
  decoding.max_tokens = integer_from(fields, fields.has("max_tokens") ? "max_tokens" : "max_new_tokens", 1);
  decoding.stop_sequences = fields.strings_or_empty("stop_sequences");
  std::erase(decoding.stop_sequences, "");
  decoding.use_grammar = fields.boolean_or("use_grammar", false);
  decoding.grammar_type = fields.optional_string("grammar_type");
  decoding.grammar_file = fields.optional_string("grammar_file");
  return decoding;
}

void check_grammar_file(const std::string& name, const std::string& source) {
  try {
    check_entry_name(name, source);
  } catch (const Error& error) {
    throw Error(ErrorCode::manifest, error.what(), "grammar_file is relative to the root of the expert");
  }
}

// Published manifests have it under `training`, some documents at the root.
ManifestDecoding parse_decoding(const JsonFields& root) {
  ManifestDecoding decoding;
  if (root.has("decoding")) {
    decoding = parse_decoding_fields(root.object("decoding"));
  } else if (root.has("training") && root.require("training").is_object() && root.object("training").has("decoding")) {
    decoding = parse_decoding_fields(root.object("training").object("decoding"));
  }
  if (decoding.grammar_file) check_grammar_file(*decoding.grammar_file, root.source());
  return decoding;
}

std::vector<std::string> parse_soft_prompts(const JsonFields& fields) {
  std::vector<std::string> paths;
  for (const Json& json : list_of_objects(fields, "soft_prompts")) {
    const std::string source = fmt::format("{}: soft_prompts[{}]", fields.source(), paths.size());
    paths.push_back(JsonFields(json, source, ErrorCode::manifest).string("path"));
  }
  return paths;
}

// The parts of a capability that can name a language: "task:text2sql" → "sql".
std::vector<std::string> words_of_capability(const std::string& capability) {
  const std::string text = lower_ascii(capability.substr(capability.find(':') + 1));
  std::vector<std::string> words(1);
  for (const char c : text) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      words.back() += c;
    } else {
      words.emplace_back();
    }
  }
  for (std::string& word : words) {
    if (const size_t to = word.find("2"); to != std::string::npos && to > 0 && to + 1 < word.size())
      word.erase(0, to + 1);
  }
  return words;
}

struct Dialect {
  std::string_view name;
  std::array<std::string_view, 4> words;
};

// In the order they are looked for: a Cypher expert may also list SQL.
constexpr std::array<Dialect, 6> kDialects = {{{"cypher", {"cypher", "neo4j"}},
                                               {"sql", {"sql", "postgres", "postgresql", "mysql"}},
                                               {"json", {"json"}},
                                               {"python", {"python"}},
                                               {"rust", {"rust"}},
                                               {"typescript", {"typescript", "javascript"}}}};

template <typename T>
void set_if(Json& object, const char* key, const std::optional<T>& value) {
  if (value) object[key] = *value;
}

}  // namespace

Manifest parse_manifest(std::string_view text, std::string_view source) {
  Manifest manifest;
  manifest.raw = parse_json(text, source, kLimits, ErrorCode::manifest);
  const JsonFields fields(manifest.raw, std::string(source), ErrorCode::manifest);
  manifest.schema_version = schema_version_of(fields);
  manifest.name = canonical_name(fields.string("name"), fmt::format("{}: \"name\"", source));
  manifest.version = Version::parse(fields.string("version"), fmt::format("{}: \"version\"", source)).str();
  manifest.description = fields.string_or("description", "");
  manifest.author = fields.string_or("author", "");
  manifest.license = fields.string_or("license", "");
  manifest.tags = fields.strings_or_empty("tags");
  manifest.base_models = parse_base_models(fields, manifest.warnings);
  manifest.capabilities = fields.strings_or_empty("capabilities");
  manifest.routing = parse_routing(fields);
  manifest.constraints = parse_constraints(fields);
  manifest.decoding = parse_decoding(fields);
  manifest.soft_prompts = parse_soft_prompts(fields);
  return manifest;
}

std::string Manifest::dialect() const {
  for (const Dialect& candidate : kDialects) {
    for (const std::string& capability : capabilities) {
      for (const std::string& word : words_of_capability(capability)) {
        if (word.empty()) continue;
        if (std::find(candidate.words.begin(), candidate.words.end(), word) != candidate.words.end()) {
          return std::string(candidate.name);
        }
      }
    }
  }
  return {};
}

ManifestDecoding merge_decoding(const std::vector<DecodingSource>& experts) {
  const DecodingSource* lead = nullptr;
  std::vector<const DecodingSource*> by_name;
  for (const DecodingSource& expert : experts) by_name.push_back(&expert);
  std::stable_sort(by_name.begin(), by_name.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  std::vector<std::string> stops;
  for (const DecodingSource* expert : by_name) {
    if (lead == nullptr || std::abs(expert->weight) > std::abs(lead->weight)) lead = expert;
    if (expert->decoding == nullptr) continue;
    for (const std::string& stop : expert->decoding->stop_sequences) {
      if (std::find(stops.begin(), stops.end(), stop) == stops.end()) stops.push_back(stop);
    }
  }
  ManifestDecoding merged;
  if (lead != nullptr && lead->decoding != nullptr) merged = *lead->decoding;
  merged.stop_sequences = std::move(stops);
  return merged;
}

Json to_parameters(const ManifestDecoding& decoding) {
  Json parameters = Json::object();
  set_if(parameters, "temperature", decoding.temperature);
  set_if(parameters, "top_p", decoding.top_p);
  set_if(parameters, "top_k", decoding.top_k);
  set_if(parameters, "min_p", decoding.min_p);
  set_if(parameters, "repetition_penalty", decoding.repetition_penalty);
  set_if(parameters, "presence_penalty", decoding.presence_penalty);
  set_if(parameters, "frequency_penalty", decoding.frequency_penalty);
  set_if(parameters, "max_tokens", decoding.max_tokens);
  if (!decoding.stop_sequences.empty()) parameters["stop"] = decoding.stop_sequences;
  return parameters;
}

bool is_canonical_name(std::string_view name) {
  constexpr std::string_view kPrefix = "expert-";
  if (!name.starts_with(kPrefix) || name.size() == kPrefix.size() || name.size() > kMaxNameLength) return false;
  if (name[kPrefix.size()] == '-') return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos;
}

std::string canonical_name(std::string_view name, std::string_view source) {
  std::string canonical = name.starts_with("expert-") ? std::string(name) : fmt::format("expert-{}", name);
  if (!is_canonical_name(canonical)) {
    fail(ErrorCode::manifest, "{}: \"{}\" must be lower-case letters, digits and hyphens, at most {} characters",
         source, name.substr(0, kMaxNameLength), kMaxNameLength);
  }
  return canonical;
}

bool base_name_matches(std::string_view a, std::string_view b) {
  auto folded = [](std::string_view name) {
    std::string text = lower_ascii(last_segment(name));
    std::erase_if(text, [](char c) { return c == '.' || c == '_' || c == '-'; });
    return text;
  };
  const std::string x = folded(a);
  return !x.empty() && x == folded(b);
}

}  // namespace expert
