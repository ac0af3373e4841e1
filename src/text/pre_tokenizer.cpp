#include "text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/regex.h"
#include "text/split_pattern.h"
#include "text/unicode.h"

namespace expert {
namespace {

struct Match {
  size_t begin, end;
  bool hit;  // matched by the pattern, or text between two matches
};

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const std::string& name) {
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  fail(ErrorCode::load, "'{}' is not a behavior of Split", name);
}

// Appends the parts that `behavior` makes of a text's matches and the gaps between them (in order, covering it).
void append_parts(const std::vector<Match>& matches, Behavior behavior, std::vector<Piece>& parts) {
  bool previous_hit = false;
  for (size_t i = 0; i < matches.size(); ++i) {
    const Match& match = matches[i];
    bool join = false;
    switch (behavior) {
      case Behavior::removed:
        if (match.hit) continue;
        break;
      case Behavior::isolated:
        break;
      case Behavior::contiguous:
        join = match.hit == previous_hit;
        break;
      case Behavior::merged_with_previous:
        join = match.hit && !previous_hit;
        break;
      case Behavior::merged_with_next:
        // A gap takes in the match right before it, if that one is itself the last of its run.
        join = i > 0 && matches[i - 1].hit && !match.hit;
        break;
    }
    if (join && !parts.empty()) {
      parts.back().end = match.end;
    } else {
      parts.push_back({match.begin, match.end});
    }
    previous_hit = match.hit;
  }
}

// finder(text, pos) returns the next match at or behind pos, or an empty one at the end of the text.
template <typename Finder>
void find_matches(std::string_view text, bool invert, std::vector<Match>& matches, Finder&& finder) {
  matches.clear();
  for (size_t pos = 0; pos < text.size();) {
    const auto [begin, end] = finder(text, pos);
    if (begin > pos) matches.push_back({pos, begin, invert});
    if (end > begin) matches.push_back({begin, end, !invert});
    pos = end;
  }
}

class SplitByRegex final : public PreTokenizer {
 public:
  SplitByRegex(SplitPattern pattern, Behavior behavior, bool invert)
      : pattern_(pattern), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& pieces) const override {
    std::vector<Match> matches;
    pieces.split([&](std::string_view text, std::vector<Piece>& parts) {
      find_matches(text, invert_, matches,
                   [&](std::string_view t, size_t pos) { return std::pair(pos, pos + pattern_(t, pos)); });
      append_parts(matches, behavior_, parts);
    });
  }

 private:
  SplitPattern pattern_;
  Behavior behavior_;
  bool invert_;
};

// Any other expression. It need not match everywhere, and may match the empty text, which cuts there.
class SplitByExpression final : public PreTokenizer {
 public:
  SplitByExpression(std::string_view expression, Behavior behavior, bool invert)
      : regex_(expression), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& pieces) const override {
    pieces.split([&](std::string_view text, std::vector<Piece>& parts) {
      append_parts(matches_in(text), behavior_, parts);
    });
  }

 private:
  std::vector<Match> matches_in(std::string_view text) const {
    Regex::Budget budget(text);
    std::vector<Match> matches;
    size_t behind = 0;  // the last match
    for (size_t from = 0; from <= text.size();) {
      const auto [begin, end] = regex_.find(text, from, budget);
      if (begin == text.size()) break;
      if (begin == end && begin == behind && !matches.empty()) {  // none that is empty right behind another
        unicode::next_char(text, from);
        continue;
      }
      if (begin > behind) matches.push_back({behind, begin, invert_});
      matches.push_back({begin, end, !invert_});
      from = behind = end;
    }
    if (behind < text.size()) matches.push_back({behind, text.size(), invert_});
    return matches;
  }

  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

class SplitByText final : public PreTokenizer {
 public:
  SplitByText(std::string pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& pieces) const override {
    std::vector<Match> matches;
    pieces.split([&](std::string_view text, std::vector<Piece>& parts) {
      find_matches(text, invert_, matches, [&](std::string_view t, size_t pos) {
        const size_t hit = t.find(pattern_, pos);
        return hit == std::string_view::npos ? std::pair(t.size(), t.size()) : std::pair(hit, hit + pattern_.size());
      });
      append_parts(matches, behavior_, parts);
    });
  }

 private:
  std::string pattern_;
  Behavior behavior_;
  bool invert_;
};

// Cuts around every character of a class: Digits and Punctuation.
class SplitByClass final : public PreTokenizer {
 public:
  SplitByClass(unicode::CharClass characters, Behavior behavior) : characters_(characters), behavior_(behavior) {}
  void apply(Pieces& pieces) const override {
    std::vector<Match> matches;
    pieces.split([&](std::string_view text, std::vector<Piece>& parts) {
      find_matches(text, false, matches, [&](std::string_view t, size_t pos) {
        for (size_t next = pos; pos < t.size(); pos = next)
          if ((unicode::class_of(unicode::next_char(t, next)) & characters_) != 0) return std::pair(pos, next);
        return std::pair(t.size(), t.size());
      });
      append_parts(matches, behavior_, parts);
    });
  }

 private:
  unicode::CharClass characters_;
  Behavior behavior_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space), use_regex_(use_regex) {}
  void apply(Pieces& pieces) const override {
    if (add_prefix_space_) {
      pieces.rewrite([](std::string_view text, const Piece&, std::string& out) {
        if (!text.starts_with(' ')) out += ' ';
        out += text;
      });
    }
    if (use_regex_) {
      pieces.split([](std::string_view text, std::vector<Piece>& parts) {
        for (size_t pos = 0, size; pos < text.size(); pos += size) {
          size = match_gpt2(text, pos);
          parts.push_back({pos, pos + size});
        }
      });
    }
    pieces.rewrite([](std::string_view text, const Piece&, std::string& out) { byte_level::append_chars(out, text); });
  }

 private:
  bool add_prefix_space_, use_regex_;
};

class Metaspace final : public PreTokenizer {
 public:
  using Prepend = fields::PrependScheme;
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void apply(Pieces& pieces) const override {
    pieces.rewrite([&](std::string_view text, const Piece& piece, std::string& out) {
      const bool wanted = prepend_ == Prepend::always || (prepend_ == Prepend::first && piece.at_text_start);
      if (wanted && !text.starts_with(' ') && !text.starts_with(replacement_)) out += replacement_;
      out += replace_spaces(text);
    });
    if (split_) SplitByText(replacement_, Behavior::merged_with_next, false).apply(pieces);
  }

 private:
  std::string replace_spaces(std::string_view text) const {
    std::string out;
    for (const char c : text) c == ' ' ? out += replacement_ : out += c;
    return out;
  }

  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

class PreTokenizerSequence final : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

std::unique_ptr<PreTokenizer> make_split(const Json& config) {
  const Behavior behavior = behavior_of(fields::need_text(config, "behavior"));
  const bool invert = fields::flag(config, "invert", false);
  const auto& pattern = fields::need(config, "pattern");
  if (const auto literal = fields::find_text(pattern, "String")) {
    if (literal->empty()) fail(ErrorCode::load, "field 'pattern' of Split is empty");
    return std::make_unique<SplitByText>(*literal, behavior, invert);
  }
  const std::string& regex = fields::need_text(pattern, "Regex");
  const SplitPattern known = find_split_pattern(regex);
  if (known == nullptr) return std::make_unique<SplitByExpression>(regex, behavior, invert);
  return std::make_unique<SplitByRegex>(known, behavior, invert);
}

}  // namespace

std::unique_ptr<PreTokenizer> make_qwen2_pre_tokenizer(bool add_prefix_space) {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(std::make_unique<SplitByRegex>(find_split_pattern(kQwen2Pattern), Behavior::isolated, false));
  steps.push_back(std::make_unique<ByteLevel>(add_prefix_space, false));
  return std::make_unique<PreTokenizerSequence>(std::move(steps));
}

std::unique_ptr<PreTokenizer> make_gpt2_pre_tokenizer(bool add_prefix_space) {
  return std::make_unique<ByteLevel>(add_prefix_space, true);
}

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& config) {
  if (config.is_null()) return nullptr;
  const std::string& type = fields::need_text(config, "type");
  if (type == "ByteLevel")
    return std::make_unique<ByteLevel>(fields::flag(config, "add_prefix_space", true),
                                       fields::flag(config, "use_regex", true));
  if (type == "Split") return make_split(config);
  if (type == "Digits") {
    const bool individual = fields::flag(config, "individual_digits", false);
    return std::make_unique<SplitByClass>(unicode::kDigit, individual ? Behavior::isolated : Behavior::contiguous);
  }
  if (type == "Punctuation")
    return std::make_unique<SplitByClass>(unicode::kPunctuation,
                                          behavior_of(fields::find_text(config, "behavior").value_or("Isolated")));
  if (type == "Metaspace")
    return std::make_unique<Metaspace>(fields::need_character(config, "replacement"), fields::prepend_scheme(config),
                                       fields::flag(config, "split", true));
  if (type == "Sequence") {
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    for (const auto& step : fields::list(config, "pretokenizers"))
      if (auto made = make_pre_tokenizer(step)) steps.push_back(std::move(made));
    return std::make_unique<PreTokenizerSequence>(std::move(steps));
  }
  fail(ErrorCode::unsupported, "pre-tokenizer '{}' is not supported", type);
}

}  // namespace expert
