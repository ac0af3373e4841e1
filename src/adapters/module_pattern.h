// The regular expressions of adapter_config.json (target_modules, rank_pattern, …), matched as Python's `re` would.
//
// Simulated state by state, so that a hostile pattern costs at most its length times the name's: no backtracking.
// Supported: literals, `.`, classes, \d \w \s \b and their negations, groups, |, ^, $, * + ? {m,n}, greedy or lazy,
// look-ahead and look-behind, and the flags i, s, m, a, u. Back-references and the rest are refused by name.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace expert {

class ModulePattern {
 public:
  // Throws load: malformed, not supported (by name), or too large. `origin` stands in the message.
  ModulePattern(std::string_view regex, std::string_view origin);

  // The whole name, as re.fullmatch.
  bool matches(std::string_view name) const;

 private:
  friend class PatternCompiler;
  enum class Kind : uint8_t { characters, split, line_start, line_end, boundary, not_boundary, look, accept };
  using Characters = std::bitset<256>;
  struct State {
    Kind kind = Kind::accept;
    Characters characters;
    int32_t next = -1;
    int32_t other = -1;    // of a split, and where the expression of a look begins
    bool negated = false;  // of a look
    int32_t width = -1;    // of a look behind: characters; -1: ahead
  };
  class Match;

  std::vector<State> states_;
  int32_t start_ = -1;
};

// A key of rank_pattern or alpha_pattern: PEFT's `(.*\.)?(key)$`, a suffix of the name at a dot.
class SuffixPattern {
 public:
  SuffixPattern(std::string_view key, std::string_view origin);
  bool matches(std::string_view name) const;

 private:
  std::string literal_;               // most keys are module names, in which only the dot is special
  std::vector<ModulePattern> regex_;  // one, unless literal
};

}  // namespace expert
