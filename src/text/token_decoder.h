// From token strings back to text: the decoders of tokenizer.json, each a stage that passes on what can no longer
// change. A whole decode and a stream of tokens run the same stages, so their texts are equal by construction.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"

namespace expert {

// Receives tokens, each as one or more fragments. One object per text being decoded, one thread at a time.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Fragments hold whole UTF-8 characters; `last` ends the token.
  virtual void put(std::string_view fragment, bool last) = 0;
  // Nothing more comes.
  virtual void finish() = 0;
};

// A decoder as read from the file: immutable, any number of threads.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // A stage that feeds `next`.
  virtual std::unique_ptr<TokenSink> open(std::unique_ptr<TokenSink> next) const = 0;
  // The bytes one token contributes to a text, apart from what its neighbours or its place decide.
  virtual std::string token_bytes(std::string token) const = 0;
};

// null gives the decoder that joins tokens by a space. Errors: unsupported for a type that is not built, load for
// malformed fields.
std::unique_ptr<TokenDecoder> make_token_decoder(const Json& config);
std::unique_ptr<TokenDecoder> make_byte_level_decoder();

}  // namespace expert
