// Normalizers of tokenizer.json, applied to text between added tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace expert {

// Immutable; any number of threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Valid UTF-8 in and out. Text that gets its first character removed no longer begins where the input began: then
  // at_text_start is cleared.
  virtual std::string normalize(std::string text, bool& at_text_start) const = 0;
};

std::unique_ptr<Normalizer> make_nfc();

// null gives none. Errors: unsupported for a type or pattern that is not built, load for malformed fields.
std::unique_ptr<Normalizer> make_normalizer(const Json& config);

// Every `pattern` (not empty) becomes `content`, left to right; shared with the Replace decoder.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

}  // namespace expert
