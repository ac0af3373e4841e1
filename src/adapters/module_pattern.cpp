#include "adapters/module_pattern.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"

namespace expert {
namespace {

constexpr size_t kLongestPattern = 4096;
constexpr size_t kMostStates = 8192;  // of one pattern; matching costs this times the length of a name
constexpr size_t kMostLooks = 64;  // each may cost a match of its own at every place of a name
constexpr int kDeepestGroup = 50;
constexpr int kMostRepeats = 1000;

bool is_word(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }

bool is_space(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F); }

template <typename Predicate>
std::bitset<256> characters_where(Predicate predicate) {
  std::bitset<256> set;
  for (unsigned c = 0; c < 256; ++c) set[c] = predicate(static_cast<unsigned char>(c));
  return set;
}

}  // namespace

// Parses a pattern into a tree, then lowers the tree to states from its end to its start.
class PatternCompiler {
 public:
  using Kind = ModulePattern::Kind;
  using Characters = ModulePattern::Characters;

  PatternCompiler(std::string_view regex, std::string_view origin, ModulePattern& pattern)
      : text_(regex), origin_(origin), pattern_(pattern) {}

  void compile() {
    if (text_.size() > kLongestPattern) refuse("is longer than 4096 characters");
    leading_flags();
    const NodePtr tree = alternation(0);
    if (at_ != text_.size()) refuse("has an unmatched )");
    pattern_.start_ = lower(*tree, add({Kind::accept, {}, -1, -1}));
  }

 private:
  enum class Shape : uint8_t { one, assertion, look, sequence, choice, repeat };
  struct Node;
  using NodePtr = std::unique_ptr<Node>;
  struct Node {
    Shape shape = Shape::sequence;
    Kind kind = Kind::characters;
    Characters characters;
    std::vector<NodePtr> children;
    int least = 0;
    int most = 0;  // -1: no limit
    bool negated = false;
    int width = -1;  // of a look behind
  };

  [[noreturn]] void refuse(std::string_view why) const {
    fail(ErrorCode::load, "{}: pattern \"{}\" {}", origin_, text_.substr(0, 200), why);
  }

  bool more() const { return at_ < text_.size(); }
  bool looking_at(std::string_view what) const { return text_.substr(at_, what.size()) == what; }
  bool take(std::string_view what) {
    if (!looking_at(what)) return false;
    at_ += what.size();
    return true;
  }

  NodePtr alternation(int depth) {
    if (depth > kDeepestGroup) refuse("nests groups too deeply");
    auto choice = std::make_unique<Node>();
    choice->shape = Shape::choice;
    do {
      choice->children.push_back(sequence(depth));
    } while (take("|"));
    return choice;
  }

  NodePtr sequence(int depth) {
    auto node = std::make_unique<Node>();
    while (more() && !looking_at("|") && !looking_at(")")) node->children.push_back(repeated(atom(depth)));
    return node;
  }

  NodePtr atom(int depth) {
    if (take("(")) return group(depth);
    if (take("[")) return one(character_class());
    if (take(".")) return one(~Characters().set('\n'));
    if (take("^")) return assertion(Kind::line_start);
    if (take("$")) return assertion(Kind::line_end);
    if (take("\\")) return escape();
    const char c = text_[at_++];
    if (c == '*' || c == '+' || c == '?') refuse("has nothing to repeat");
    return one(in_any_case(Characters().set(static_cast<unsigned char>(c))));
  }

  NodePtr group(int depth) {
    const bool outer_case = ignore_case_;
    if (take("?")) {
      for (const auto& [mark, negated, behind] :
           {std::tuple{"=", false, false}, {"!", true, false}, {"<=", false, true}, {"<!", true, true}}) {
        if (take(mark)) return look(depth, negated, behind);
      }
      if (take("P<")) {
        const size_t end = text_.find('>', at_);
        if (end == std::string_view::npos) refuse("has an unfinished group name");
        at_ = end + 1;
      } else if (!take(":")) {
        scoped_flags();
      }
    }
    NodePtr inner = rest_of_group(depth);
    ignore_case_ = outer_case;
    return inner;
  }

  NodePtr rest_of_group(int depth) {
    NodePtr inner = alternation(depth + 1);
    if (!take(")")) refuse("has an unmatched (");
    return inner;
  }

  NodePtr look(int depth, bool negated, bool behind) {
    auto node = std::make_unique<Node>();
    node->shape = Shape::look;
    node->negated = negated;
    node->children.push_back(rest_of_group(depth));
    if (behind) node->width = width_of(*node->children.front());
    return node;
  }

  // Characters that every match has, as look-behind needs.
  int width_of(const Node& node) const {
    int64_t width = 0;
    switch (node.shape) {
      case Shape::one:
        return 1;
      case Shape::assertion:
      case Shape::look:
        return 0;
      case Shape::sequence:
        for (const NodePtr& child : node.children) width += width_of(*child);
        break;
      case Shape::choice:
        width = -1;
        for (const NodePtr& child : node.children) {
          const int one = width_of(*child);
          if (width >= 0 && one != width) refuse("looks behind for matches of different lengths");
          width = one;
        }
        break;
      case Shape::repeat:
        if (node.least != node.most) refuse("looks behind for matches of different lengths");
        width = int64_t{node.least} * width_of(*node.children.front());
        break;
    }
    return static_cast<int>(std::min<int64_t>(width, kLongestPattern * kMostRepeats));  // longer than any name
  }

  // (?i) and the like, which Python takes at the start only, for the whole pattern.
  void leading_flags() {
    const size_t start = at_;
    if (!take("(?")) return;
    const size_t letters = at_;
    while (more() && is_word(static_cast<unsigned char>(text_[at_]))) ++at_;
    const size_t end = at_;
    if (end == letters || !take(")")) {
      at_ = start;
      return;
    }
    set_flags(text_.substr(letters, end - letters), true);
  }

  // (?i:…) and (?-i:…), behind the question mark.
  void scoped_flags() {
    const size_t end = text_.find_first_of(":)", at_);
    const std::string_view letters = end == std::string_view::npos ? "" : text_.substr(at_, end - at_);
    if (letters.find_first_not_of("aimsu-") != std::string_view::npos || letters.empty()) {
      refuse("uses a back-reference, a condition, or a flag that is not supported");
    }
    if (text_[end] == ')') refuse("has flags for the whole pattern that are not at its start");
    const size_t minus = std::min(letters.find('-'), letters.size());
    set_flags(letters.substr(0, minus), true);
    if (minus < letters.size()) set_flags(letters.substr(minus + 1), false);
    at_ = end + 1;
  }

  // Names are one line of ASCII, so of the flags only i changes what matches.
  void set_flags(std::string_view letters, bool on) {
    if (letters.find_first_not_of("aimsu") != std::string_view::npos) refuse("has a flag that is not supported");
    if (letters.find('i') != std::string_view::npos) ignore_case_ = on;
  }

  NodePtr repeated(NodePtr inner) {
    int least = 0;
    int most = -1;
    if (take("*")) {
    } else if (take("+")) {
      least = 1;
    } else if (take("?")) {
      most = 1;
    } else if (!counts(least, most)) {
      return inner;
    }
    if (looking_at("+")) refuse("uses a possessive quantifier, which is not supported");
    take("?");  // lazy: the same names match
    if (looking_at("*") || looking_at("+") || looking_at("?")) refuse("repeats a repetition");
    auto node = std::make_unique<Node>();
    node->shape = Shape::repeat;
    node->least = least;
    node->most = most;
    node->children.push_back(std::move(inner));
    return node;
  }

  // {m}, {m,}, {,n}, {m,n}; anything else after a brace is the brace itself, as in Python.
  bool counts(int& least, int& most) {
    const size_t start = at_;
    if (!take("{")) return false;
    const std::optional<int> low = integer();
    const bool range = take(",");
    const std::optional<int> high = range ? integer() : low;
    if (!take("}") || (!low && !high && !range)) {
      at_ = start;
      return false;
    }
    least = low.value_or(0);
    most = high.value_or(-1);
    if (most >= 0 && least > most) refuse("has a repetition whose minimum is above its maximum");
    return true;
  }

  std::optional<int> integer() {
    std::optional<int> value;
    while (more() && is_digit(static_cast<unsigned char>(text_[at_]))) {
      value = value.value_or(0) * 10 + (text_[at_++] - '0');
      if (*value > kMostRepeats) refuse("repeats more than 1000 times");
    }
    return value;
  }

  NodePtr escape() {
    if (!more()) refuse("ends in a backslash");
    if (take("b")) return assertion(Kind::boundary);
    if (take("B")) return assertion(Kind::not_boundary);
    if (take("A")) return assertion(Kind::line_start);
    if (take("Z")) return assertion(Kind::line_end);
    return one(in_any_case(escaped_characters()));
  }

  Characters in_any_case(Characters set) const {
    if (!ignore_case_) return set;
    for (size_t c = 'a'; c <= 'z'; ++c) {
      const size_t upper = c - 'a' + 'A';
      if (set[c] || set[upper]) set.set(c).set(upper);
    }
    return set;
  }

  Characters escaped_characters() {
    const char c = text_[at_++];
    switch (c) {
      case 'd':
        return characters_where(is_digit);
      case 'D':
        return ~characters_where(is_digit);
      case 'w':
        return characters_where(is_word);
      case 'W':
        return ~characters_where(is_word);
      case 's':
        return characters_where(is_space);
      case 'S':
        return ~characters_where(is_space);
      case 't':
        return Characters().set('\t');
      case 'n':
        return Characters().set('\n');
      default:
        break;
    }
    if (is_word(static_cast<unsigned char>(c))) refuse("uses an escape that is not supported");
    return Characters().set(static_cast<unsigned char>(c));
  }

  Characters character_class() {
    const bool negated = take("^");
    Characters set;
    for (bool first = true; first || !looking_at("]"); first = false) {
      if (!more()) refuse("has an unfinished [");
      const Characters low = class_item();
      if (!looking_at("-") || at_ + 1 >= text_.size() || text_[at_ + 1] == ']') {
        set |= low;
        continue;
      }
      ++at_;
      const Characters high = class_item();
      if (low.count() != 1 || high.count() != 1) refuse("has a range between classes");
      set |= range(low, high);
    }
    ++at_;
    set = in_any_case(set);
    return negated ? ~set : set;
  }

  Characters class_item() {
    if (take("\\")) {
      if (!more()) refuse("ends in a backslash");
      return escaped_characters();
    }
    return Characters().set(static_cast<unsigned char>(text_[at_++]));
  }

  Characters range(const Characters& low, const Characters& high) const {
    size_t first = 0;
    while (!low[first]) ++first;
    size_t last = 0;
    while (!high[last]) ++last;
    if (first > last) refuse("has a range that runs backwards");
    Characters set;
    for (size_t c = first; c <= last; ++c) set.set(c);
    return set;
  }

  static NodePtr one(const Characters& characters) {
    auto node = std::make_unique<Node>();
    node->shape = Shape::one;
    node->characters = characters;
    return node;
  }
  static NodePtr assertion(Kind kind) {
    auto node = std::make_unique<Node>();
    node->shape = Shape::assertion;
    node->kind = kind;
    return node;
  }

  int32_t add(ModulePattern::State state) {
    if (pattern_.states_.size() >= kMostStates) refuse("is too large");
    pattern_.states_.push_back(std::move(state));
    return static_cast<int32_t>(pattern_.states_.size() - 1);
  }

  // The state from which `node` and then `next` match.
  int32_t lower(const Node& node, int32_t next) {
    if (++lowered_ > kMostStates) refuse("is too large");  // repeated groups that match nothing make no states
    switch (node.shape) {
      case Shape::one:
        return add({Kind::characters, node.characters, next, -1});
      case Shape::assertion:
        return add({node.kind, {}, next, -1});
      case Shape::look: {
        if (++looks_ > kMostLooks) refuse("looks around more than 64 times");
        const int32_t inner = lower(*node.children.front(), add({Kind::accept, {}, -1, -1}));
        return add({Kind::look, {}, next, inner, node.negated, node.width});
      }
      case Shape::sequence:
        for (auto child = node.children.rbegin(); child != node.children.rend(); ++child) next = lower(**child, next);
        return next;
      case Shape::choice:
        return lower_choice(node, next);
      case Shape::repeat:
        break;
    }
    return lower_repeat(node, next);
  }

  int32_t lower_choice(const Node& node, int32_t next) {
    int32_t start = lower(*node.children.back(), next);
    for (size_t i = node.children.size() - 1; i-- > 0;) {
      const int32_t branch = lower(*node.children[i], next);
      start = add({Kind::split, {}, branch, start});
    }
    return start;
  }

  int32_t lower_repeat(const Node& node, int32_t next) {
    const Node& inner = *node.children.front();
    if (node.most < 0) {
      const int32_t loop = add({Kind::split, {}, -1, next});
      const int32_t body = lower(inner, loop);
      pattern_.states_[static_cast<size_t>(loop)].next = body;
      next = loop;
    }
    for (int i = node.least; i < node.most; ++i) next = add({Kind::split, {}, lower(inner, next), next});
    for (int i = 0; i < node.least; ++i) next = lower(inner, next);
    return next;
  }

  std::string_view text_;
  std::string_view origin_;
  ModulePattern& pattern_;
  size_t at_ = 0;
  size_t lowered_ = 0;
  size_t looks_ = 0;
  bool ignore_case_ = false;
};

ModulePattern::ModulePattern(std::string_view regex, std::string_view origin) {
  PatternCompiler(regex, origin, *this).compile();
}

// One name; remembers where each look has been answered, so that looks inside looks are asked once per place.
class ModulePattern::Match {
 public:
  Match(const std::vector<State>& states, std::string_view name) : states_(states), name_(name) {}

  // From `at` to `until`; with whole false, to any place up to it.
  bool reaches(int32_t start, size_t at, size_t until, bool whole) {
    std::vector<int32_t> active;
    std::vector<int32_t> next;
    std::vector<bool> seen(states_.size());
    follow(start, at, active, seen);
    for (; at < until && !active.empty(); ++at) {
      if (!whole && accepts(active)) return true;
      next.clear();
      seen.assign(states_.size(), false);
      for (const int32_t id : active) {
        const State& state = states_[static_cast<size_t>(id)];
        if (state.kind == Kind::characters && state.characters[static_cast<unsigned char>(name_[at])]) {
          follow(state.next, at + 1, next, seen);
        }
      }
      active.swap(next);
    }
    return accepts(active);
  }

 private:
  bool accepts(const std::vector<int32_t>& active) const {
    return std::any_of(active.begin(), active.end(),
                       [&](int32_t id) { return states_[static_cast<size_t>(id)].kind == Kind::accept; });
  }

  bool word_at(size_t index) const {
    return index < name_.size() && is_word(static_cast<unsigned char>(name_[index]));
  }

  bool holds(int32_t id, size_t at) {
    const State& state = states_[static_cast<size_t>(id)];
    switch (state.kind) {
      case Kind::line_start:
        return at == 0;
      case Kind::line_end:
        return at == name_.size();
      case Kind::boundary:
        return word_at(at) != (at > 0 && word_at(at - 1));
      case Kind::not_boundary:
        return word_at(at) == (at > 0 && word_at(at - 1));
      default:
        return answer_of(id, at);
    }
  }

  bool answer_of(int32_t look, size_t at) {
    const auto [place, added] = answers_.try_emplace({look, at}, false);
    if (!added) return place->second;
    const State& state = states_[static_cast<size_t>(look)];
    const auto width = static_cast<size_t>(state.width);
    const bool found = state.width < 0 ? reaches(state.other, at, name_.size(), false)
                                       : width <= at && reaches(state.other, at - width, at, true);
    return answers_[{look, at}] = found != state.negated;
  }

  // Adds what is reachable from `state` without a character.
  void follow(int32_t state, size_t at, std::vector<int32_t>& active, std::vector<bool>& seen) {
    std::vector<int32_t> pending{state};
    while (!pending.empty()) {
      const int32_t id = pending.back();
      pending.pop_back();
      if (seen[static_cast<size_t>(id)]) continue;
      seen[static_cast<size_t>(id)] = true;
      const State& here = states_[static_cast<size_t>(id)];
      if (here.kind == Kind::characters || here.kind == Kind::accept) {
        active.push_back(id);
        continue;
      }
      if (here.kind == Kind::split) {
        pending.push_back(here.other);
      } else if (!holds(id, at)) {
        continue;
      }
      pending.push_back(here.next);
    }
  }

  const std::vector<State>& states_;
  std::string_view name_;
  std::map<std::pair<int32_t, size_t>, bool> answers_;
};

bool ModulePattern::matches(std::string_view name) const {
  return Match(states_, name).reaches(start_, 0, name.size(), true);
}

SuffixPattern::SuffixPattern(std::string_view key, std::string_view origin) {
  const bool literal = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return is_word(static_cast<unsigned char>(c)) || c == '.' || c == '-';
  });
  if (literal) {
    literal_ = key;
  } else {
    regex_.emplace_back("(.*\\.)?(" + std::string(key) + ")", origin);
  }
}

bool SuffixPattern::matches(std::string_view name) const {
  if (!regex_.empty()) return regex_.front().matches(name);
  if (name.size() < literal_.size()) return false;
  const size_t start = name.size() - literal_.size();
  if (start > 0 && name[start - 1] != '.') return false;
  return std::equal(literal_.begin(), literal_.end(), name.begin() + static_cast<std::ptrdiff_t>(start),
                    [](char pattern, char c) { return pattern == '.' || pattern == c; });
}

}  // namespace expert
