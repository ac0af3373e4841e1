// What tokenizer_config.json, special_tokens_map.json and added_tokens.json say about tokens, put together the way
// Transformers 5 does it. Private to src/text/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "text/added_tokens.h"
#include "text/tokenizer.h"

namespace expert {

struct TokenizerConfig {
  std::string tokenizer_class;  // without "Fast"; from config.json's model_type where the tokenizer's own file has none
  bool add_prefix_space = false, add_bos_token = false, add_eos_token = false;
  std::map<int64_t, AddedToken> declared;                 // tokens with ids, in the order of their ids
  std::vector<std::pair<std::string, AddedToken>> named;  // "bos_token", "eos_token", …: in Transformers' order
  std::vector<AddedToken> extra;                          // additional special tokens

  const AddedToken* find_named(const std::string& key) const;
};

// Errors: load, naming the file; unsupported for split_special_tokens.
TokenizerConfig read_tokenizer_config(const TokenizerFiles& files, const std::string& name);

// An AddedToken as both kinds of file write it.
AddedToken read_added_token(const Json& object);

}  // namespace expert
