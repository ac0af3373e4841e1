// Regular expressions of the Split pre-tokenizer, as Hugging Face `tokenizers` matches them (Oniguruma, Ruby syntax), for
// those tokenizers whose expression is not one of the few in split_pattern.h.
//
// Own, because the character classes must be those of Unicode 16.0, which no packaged library has. Supported: literals,
// `.`, classes, also nested, \s \S \d \D, \p{..} of general categories, (?:..), (?i:..), (?>..), look-ahead, |, and
// ? * + {m,n}, greedy, lazy or possessive. Captures count as plain groups. Refused by name: look-behind, back-references,
// \b, \w, anchors, scripts, && and POSIX brackets in classes, loops over what may be empty.
//
// A backtracking machine with an explicit stack: no recursion per character, and a bound on the steps for a whole text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace expert {

class Regex {  // immutable; const methods may run on any number of threads
 public:
  // Throws unsupported, naming the construct and its place; load where the expression is malformed.
  explicit Regex(std::string_view expression);

  // What is left of the steps that one text may take.
  class Budget {
   public:
    explicit Budget(std::string_view text) : Budget(kFixed + kPerByte * text.size()) {}
    explicit Budget(size_t steps) : left_(steps) {}
    void spend();  // throws invalid_request when nothing is left

   private:
    static constexpr size_t kFixed = 10'000, kPerByte = 1'000;
    size_t left_;
  };

  // The first match at or behind `pos`, as bytes [begin, end); {size, size} where there is none. It may be empty.
  // `text` is valid UTF-8.
  std::pair<size_t, size_t> find(std::string_view text, size_t pos, Budget& budget) const;

 private:
  friend class RegexCompiler;
  friend class RegexMatcher;

  // Characters: those of an item, or of none of them where negated.
  struct Set {
    struct Item {
      char32_t first = 1, last = 0;  // a range
      uint32_t categories = 0;
      bool space = false;  // \s
      bool negated = false;
      int nested = -1;  // another set
    };
    std::vector<Item> items;
    bool negated = false;
    std::array<bool, 128> ascii{};
  };
  enum class Op : uint8_t { run, split, jump, look, no_look, atomic, accept };
  enum class Greed : uint8_t { greedy, lazy, possessive };
  struct Instruction {
    Op op = Op::accept;
    Greed greed = Greed::greedy;
    int set = -1;                // of a run
    uint32_t least = 1, most = 1;  // of a run
    int next = -1, other = -1;   // split: preferred, else; jump; look, no_look and atomic: behind their part
  };

  bool contains(const Set& set, char32_t c) const;
  bool contains_slowly(const Set& set, char32_t c) const;

  std::vector<Set> sets_;
  std::vector<Instruction> program_;
};

}  // namespace expert
