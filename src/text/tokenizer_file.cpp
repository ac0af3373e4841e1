// Reading a tokenizer: tokenizer.json, or what Transformers builds from vocab.json and merges.txt.
#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "text/in_file.h"
#include "text/json_fields.h"
#include "core/json_reader.h"
#include "text/tokenizer_config.h"
#include "text/tokenizer_parts.h"

namespace expert {
namespace {

// Merges as read, in one string.
class MergeList {
 public:
  void add(std::string_view left, std::string_view right) {
    sizes_.emplace_back(left.size(), right.size());
    pool_.append(left).append(right);
  }
  // "Ġt he"
  void add_line(std::string_view line) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      fail(ErrorCode::load, "merge {} ('{}') is not two tokens with a blank between them", sizes_.size(), line);
    add(line.substr(0, space), line.substr(space + 1));
  }
  // Valid as long as this object is neither moved nor added to.
  std::vector<std::pair<std::string_view, std::string_view>> view() const {
    std::vector<std::pair<std::string_view, std::string_view>> merges;
    merges.reserve(sizes_.size());
    std::string_view rest = pool_;
    for (const auto& [left, right] : sizes_) {
      merges.emplace_back(rest.substr(0, left), rest.substr(left, right));
      rest.remove_prefix(left + right);
    }
    return merges;
  }

 private:
  std::string pool_;
  std::vector<std::pair<uint32_t, uint32_t>> sizes_;
};

// tokenizer.json with model.vocab and model.merges, its millions of bytes, taken off the stream.
class TokenizerJsonReader final : public JsonReader {
 public:
  Vocab vocab;
  MergeList merges;
  bool has_vocab = false, has_merges = false;

 private:
  bool takes_object(const Path& path) override {
    if (path.size() != 2 || path[0] != "model" || path[1] != "vocab") return false;
    if (std::exchange(has_vocab, true)) fail(ErrorCode::load, "key 'vocab' occurs twice");
    return in_vocab_ = true;
  }
  bool takes_array(const Path& path) override {
    if (path.size() != 2 || path[0] != "model" || path[1] != "merges") return false;
    if (std::exchange(has_merges, true)) fail(ErrorCode::load, "key 'merges' occurs twice");
    in_vocab_ = false;
    return true;
  }
  void taken_integer(const std::string& token, int64_t id) override {
    if (!in_vocab_) fail(ErrorCode::load, "a number in field 'merges'");
    vocab.add(token, id);
  }
  void taken_string(std::string& value) override {
    if (in_vocab_) fail(ErrorCode::load, "a string where an id of field 'vocab' was expected");
    if (!in_pair_) return merges.add_line(value);
    pair_.push_back(std::move(value));
  }
  void taken_list_begin() override {
    if (in_vocab_) fail(ErrorCode::load, "a list where an id of field 'vocab' was expected");
    in_pair_ = true;
    pair_.clear();
  }
  void taken_list_end() override {
    in_pair_ = false;
    if (pair_.size() != 2) fail(ErrorCode::load, "a merge has {} tokens, not 2", pair_.size());
    merges.add(pair_[0], pair_[1]);
  }

  bool in_vocab_ = false, in_pair_ = false;
  std::vector<std::string> pair_;
};

class VocabJsonReader final : public JsonReader {
 public:
  Vocab vocab;

 private:
  bool takes_object(const Path& path) override { return path.empty(); }
  void taken_integer(const std::string& token, int64_t id) override { vocab.add(token, id); }
};

void refuse_affix(const Json& model, const char* name) {
  const auto value = fields::find_text(model, name);
  if (value && !value->empty()) fail(ErrorCode::unsupported, "BPE with {} '{}' is not supported", name, *value);
}

BpeOptions read_bpe_options(const Json& model) {
  refuse_affix(model, "continuing_subword_prefix");
  refuse_affix(model, "end_of_word_suffix");
  if (const Json* dropout = fields::find(model, "dropout")) {
    if (!dropout->is_number()) fail(ErrorCode::load, "field 'dropout' must be a number");
    if (dropout->get<double>() != 0) fail(ErrorCode::unsupported, "BPE with dropout is not supported");
  }
  BpeOptions options;
  options.unk_token = fields::find_text(model, "unk_token");
  options.fuse_unk = fields::flag(model, "fuse_unk", false);
  options.byte_fallback = fields::flag(model, "byte_fallback", false);
  options.ignore_merges = fields::flag(model, "ignore_merges", false);
  return options;
}

Bpe make_model(TokenizerJsonReader& reader, const Json& model) {
  const std::string type = fields::find_text(model, "type").value_or("BPE");
  if (type != "BPE") fail(ErrorCode::unsupported, "model type '{}' is not supported, only BPE is", type);
  if (!reader.has_vocab || !reader.has_merges)
    fail(ErrorCode::load, "a BPE model needs 'vocab' (object) and 'merges' (list)");
  reader.vocab.finish();
  return Bpe(std::move(reader.vocab), reader.merges.view(), read_bpe_options(model));
}

// `tokenizers` gives ids itself and only warns where the file says otherwise; such a file fits no model, so it is
// refused.
void add_with_id(TokenizerParts& parts, const AddedToken& token, int64_t id) {
  const int32_t given = parts.added.add(token, parts.model.vocab());
  if (given != id)
    fail(ErrorCode::load, "added token '{}' has id {}, but its place in the vocabulary is {}", token.content, id,
         given);
}

void read_added_tokens(const Json& root, TokenizerParts& parts) {
  const Json* list = fields::find(root, "added_tokens");
  if (list == nullptr) return;
  if (!list->is_array()) fail(ErrorCode::load, "field 'added_tokens' must be a list");
  for (const Json& token : *list)
    add_with_id(parts, read_added_token(token), fields::integer(fields::need(token, "id"), "id"));
}

// The template for one text: special tokens, $A, special tokens.
void read_template(const Json& processor, TokenizerParts& parts) {
  bool behind_text = false;
  for (const Json& piece : fields::list(processor, "single")) {
    if (const Json* sequence = fields::find(piece, "Sequence")) {
      if (behind_text || fields::need_text(*sequence, "id") != "A")
        fail(ErrorCode::unsupported, "TemplateProcessing: 'single' must hold sequence A once");
      behind_text = true;
      continue;
    }
    const std::string& name = fields::need_text(fields::need(piece, "SpecialToken"), "id");
    const Json& token = fields::need(fields::need(processor, "special_tokens"), name.c_str());
    for (const Json& id : fields::list(token, "ids")) {
      const int64_t value = fields::integer(id, "ids");
      if (!parts.added.has_id(value) && !parts.model.vocab().token(value))
        fail(ErrorCode::load, "TemplateProcessing: special token '{}' has the unknown id {}", name, value);
      (behind_text ? parts.suffix : parts.prefix).push_back(static_cast<int32_t>(value));
    }
  }
  if (!behind_text) fail(ErrorCode::unsupported, "TemplateProcessing: 'single' must hold sequence A once");
}

void read_post_processor(const Json& processor, TokenizerParts& parts, bool& has_template) {
  if (processor.is_null()) return;
  const std::string& type = fields::need_text(processor, "type");
  if (type == "ByteLevel") return;  // trims offsets, which nobody asks for here
  if (type == "TemplateProcessing") {
    if (std::exchange(has_template, true))
      fail(ErrorCode::unsupported, "two TemplateProcessing post-processors in one Sequence are not supported");
    return read_template(processor, parts);
  }
  if (type != "Sequence") fail(ErrorCode::unsupported, "post-processor '{}' is not supported", type);
  for (const Json& step : fields::list(processor, "processors")) read_post_processor(step, parts, has_template);
}

Json part(const Json& root, const char* name) {
  const Json* value = fields::find(root, name);
  return value == nullptr ? Json() : *value;
}

// How many times longer a part can make a text, roughly; a Sequence multiplies.
double growth_of(const Json& config) {
  if (!config.is_object()) return 1;
  const std::string type = fields::find_text(config, "type").value_or("");
  if (type == "Prepend") return 1 + static_cast<double>(fields::need_text(config, "prepend").size());
  if (type == "Metaspace") return 5;
  if (type == "ByteLevel") return 2;
  if (type == "NFC") return 3;
  if (type == "Replace") {
    const auto content = static_cast<double>(fields::need_text(config, "content").size());
    return std::max(1.0, content / static_cast<double>(fields::literal_pattern(config).size()));
  }
  double growth = 1;
  for (const char* list : {"normalizers", "pretokenizers", "decoders"})
    if (const Json* steps = fields::find(config, list))
      for (const Json& step : *steps) growth *= growth_of(step);
  return growth;
}

// A few Replace steps in a row could turn a short text into gigabytes.
void check_growth(const Json& root) {
  constexpr double kMost = 1024;
  if (growth_of(part(root, "normalizer")) * growth_of(part(root, "pre_tokenizer")) > kMost ||
      growth_of(part(root, "decoder")) > kMost)
    fail(ErrorCode::unsupported, "its steps could make a text more than {} times longer", kMost);
}

// "truncation" and "padding" shape batches for training; Transformers switches both off for a plain call, and so do we.
void read_tokenizer_json(const std::string& text, TokenizerParts& parts) {
  TokenizerJsonReader reader;
  const Json root = reader.read(text);
  check_growth(root);
  parts.model = make_model(reader, fields::need(root, "model"));
  parts.normalizer = make_normalizer(part(root, "normalizer"));
  parts.pre_tokenizer = make_pre_tokenizer(part(root, "pre_tokenizer"));
  parts.decoder = make_token_decoder(part(root, "decoder"));
  read_added_tokens(root, parts);
  bool has_template = false;
  read_post_processor(part(root, "post_processor"), parts, has_template);
}

Vocab read_vocab(const std::string& text) {
  VocabJsonReader reader;
  if (!reader.read(text).is_null()) fail(ErrorCode::load, "an object of tokens and ids was expected");
  reader.vocab.finish();
  return std::move(reader.vocab);
}

MergeList read_merges(std::string_view text) {
  MergeList merges;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.starts_with("#version")) merges.add_line(line);
  }
  return merges;
}

// Transformers' defaults of a class for special tokens that the files do not mention.
void add_class_defaults(TokenizerConfig& config, const TokenizerFiles& files) {
  const bool qwen = config.tokenizer_class == "Qwen2Tokenizer";
  Json settings = files.tokenizer_config_json ? parse_json(*files.tokenizer_config_json, "") : Json::object();
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const bool has_default = qwen ? std::string_view(name) != "bos_token" : std::string_view(name) != "pad_token";
    if (!has_default || settings.contains(name) || config.find_named(name) != nullptr) continue;
    AddedToken token;
    token.content = "<|endoftext|>";
    token.special = true;
    token.normalized = false;
    config.named.emplace_back(name, token);
  }
}

void build_from_class(const TokenizerFiles& files, const std::string& name, TokenizerConfig& config,
                      TokenizerParts& parts) {
  const bool qwen = config.tokenizer_class == "Qwen2Tokenizer";
  if (!qwen && config.tokenizer_class != "GPT2Tokenizer")
    throw Error(ErrorCode::unsupported,
                name + ": there is no tokenizer.json, and tokenizer_class '" + config.tokenizer_class +
                    "' is not one that is built from vocab.json and merges.txt",
                "convert it once: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes tokenizer.json");
  Vocab vocab = in_file(name, "vocab.json", [&] { return read_vocab(*files.vocab_json); });
  in_file(name, "merges.txt", [&] {
    const auto invalid = unicode::find_invalid_utf8(*files.merges_txt);
    if (invalid != std::string::npos) fail(ErrorCode::load, "byte {} is not UTF-8", invalid);
    const MergeList merges = read_merges(*files.merges_txt);
    parts.model = Bpe(std::move(vocab), merges.view(), {});
  });
  if (qwen) parts.normalizer = make_nfc();
  parts.pre_tokenizer =
      qwen ? make_qwen2_pre_tokenizer(config.add_prefix_space) : make_gpt2_pre_tokenizer(config.add_prefix_space);
  parts.decoder = make_byte_level_decoder();
  add_class_defaults(config, files);
}

// Tokens of the configuration that tokenizer.json does not have, in Transformers' order.
void add_configured_tokens(const TokenizerConfig& config, TokenizerParts& parts) {
  const auto is_known = [&](const AddedToken& token) { return parts.added.find(token.content).has_value(); };
  for (auto [id, token] : config.declared) {
    const bool same = is_known(token) && parts.added.is_special(token.content) == token.special;
    for (const auto& [key, named] : config.named)
      if (!same && named.content == token.content) token.special = true;
    add_with_id(parts, token, id);
  }
  for (auto [key, token] : config.named) {
    token.special = true;
    if (!is_known(token)) parts.added.add(token, parts.model.vocab());
  }
  for (const AddedToken& token : config.extra)
    if (!is_known(token)) parts.added.add(token, parts.model.vocab());
}

// add_bos_token and add_eos_token count only where there is no tokenizer.json.
void add_class_template(const TokenizerConfig& config, TokenizerParts& parts) {
  const auto id_of = [&](const char* name) {
    const AddedToken* token = config.find_named(name);
    return token == nullptr ? std::optional<int32_t>() : parts.added.find(token->content);
  };
  if (config.add_bos_token)
    if (const auto id = id_of("bos_token")) parts.prefix.push_back(*id);
  if (config.add_eos_token)
    if (const auto id = id_of("eos_token")) parts.suffix.push_back(*id);
}

}  // namespace

std::unique_ptr<const TokenizerParts> read_tokenizer(const TokenizerFiles& files, const std::string& name) {
  auto parts = std::make_unique<TokenizerParts>();
  TokenizerConfig config = read_tokenizer_config(files, name);
  if (files.tokenizer_json) {
    in_file(name, "tokenizer.json", [&] { read_tokenizer_json(*files.tokenizer_json, *parts); });
  } else if (files.vocab_json && files.merges_txt) {
    build_from_class(files, name, config, *parts);
  } else {
    throw Error(
        ErrorCode::load, name + ": there is neither tokenizer.json nor vocab.json with merges.txt",
        "a tokenizer.model alone must be converted once: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
  }
  in_file(name, "tokenizer_config.json", [&] { add_configured_tokens(config, *parts); });
  if (!files.tokenizer_json) {
    add_class_template(config, *parts);
    // Qwen2Tokenizer makes every special token it knows special once more, whatever its declaration said.
    if (config.tokenizer_class == "Qwen2Tokenizer")
      for (AddedToken token : config.extra) token.special = true, parts->added.add(token, parts->model.vocab());
  }
  parts->added.finish(parts->normalizer.get());
  return parts;
}

}  // namespace expert
