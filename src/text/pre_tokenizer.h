// Pre-tokenizers of tokenizer.json: they cut text into the pieces that BPE sees one by one.
#pragma once

#include <memory>
#include <string_view>

#include "core/json.h"
#include "text/pieces.h"

namespace expert {

// Immutable; any number of threads.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

// null gives none. Errors: unsupported for a type, option or regular expression that is not built, load for malformed
// fields.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& config);

// What Transformers builds for these classes from vocab.json and merges.txt.
std::unique_ptr<PreTokenizer> make_qwen2_pre_tokenizer(bool add_prefix_space);
std::unique_ptr<PreTokenizer> make_gpt2_pre_tokenizer(bool add_prefix_space);

}  // namespace expert
