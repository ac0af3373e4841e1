// The character classes of the pre-tokenizers, and canonical composition (NFC), all as Hugging Face `tokenizers`
// has them: classes of Unicode 16.0, NFC of the older tables it carries (see tools/unicode/generate_tables.py).
// Every function here is pure; text must be valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/utf8.h"

namespace expert::unicode {

enum CharClass : uint8_t {
  kLetter = 1,  // \p{L}
  kNumber = 2,  // \p{N}
  kSpace = 4,   // \s, White_Space
  kWord = 8,    // \w of Rust's regex crate: Alphabetic, M, Nd, Pc, Join_Control
  kDigit = 16,  // char::is_numeric of Rust's standard library (Unicode 17), for the Digits pre-tokenizer
  kPunctuation = 32,  // of the Punctuation pre-tokenizer
};

// Bit set of CharClass.
uint8_t class_of(char32_t c);

// General categories, in the order of their bits in a mask; surrogates, which no valid text holds, have none.
inline constexpr std::string_view kCategoryNames =
    "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn";
uint32_t category_bit(char32_t c);               // one bit
uint32_t category_mask(std::string_view name);   // "Lu", or all of a letter: "L"; 0 for an unknown name

std::string to_nfc(std::string_view text);

}  // namespace expert::unicode
