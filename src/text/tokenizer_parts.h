// What a tokenizer is made of, and how it is read from files. Private to src/text/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"

namespace expert {

struct TokenizerParts {
  std::unique_ptr<const Normalizer> normalizer;       // may be null
  std::unique_ptr<const PreTokenizer> pre_tokenizer;  // may be null
  Bpe model;
  std::unique_ptr<const TokenDecoder> decoder;
  AddedTokens added;
  std::vector<int32_t> prefix, suffix;  // what the post-processor puts around a text
};

// See Tokenizer::parse.
std::unique_ptr<const TokenizerParts> read_tokenizer(const TokenizerFiles& files, const std::string& name);

}  // namespace expert
