#include "text/regex.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "text/unicode.h"

namespace expert {
namespace {

constexpr size_t kLongest = 4096;       // of an expression
constexpr size_t kMostInstructions = 4096;
constexpr int kDeepest = 32;            // groups in groups
constexpr uint32_t kUnbounded = UINT32_MAX;
constexpr uint32_t kMostRepeats = 1000;

}  // namespace

// --- compiling
// ---------------------------------------------------------------------------------------------------------------------

class RegexCompiler {
 public:
  RegexCompiler(std::string_view expression, Regex& regex) : text_(expression), regex_(regex) {}

  void compile() {
    if (text_.size() > kLongest) fail(ErrorCode::unsupported, "regular expression of {} bytes", text_.size());
    if (unicode::find_invalid_utf8(text_) != std::string::npos) malformed("is not valid UTF-8");
    Code code = alternatives(0);
    if (at_ < text_.size()) malformed("has a ')' without '('");
    code.instructions.emplace_back();  // accept
    regex_.program_ = std::move(code.instructions);
    for (Regex::Set& set : regex_.sets_) {
      for (char32_t c = 0; c < set.ascii.size(); ++c) set.ascii[c] = regex_.contains_slowly(set, c);
    }
  }

 private:
  using Instruction = Regex::Instruction;
  using Item = Regex::Set::Item;
  using Op = Regex::Op;
  using Greed = Regex::Greed;

  // Instructions with targets relative to their first; control leaves at the end.
  struct Code {
    std::vector<Instruction> instructions;
    bool may_be_empty = true;
    bool one_character = false;  // a single run of one
  };

  [[noreturn]] void malformed(std::string_view why) const {
    fail(ErrorCode::load, "regular expression {} at byte {}: {}", why, at_, text_);
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    fail(ErrorCode::unsupported, "regular expression: {} (byte {}) is not supported: {}", what, at_, text_);
  }

  bool accept(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  bool at_end() const { return at_ >= text_.size(); }
  char32_t take() {
    if (at_end()) malformed("ends too early");
    return unicode::next_char(text_, at_);
  }

  void append(Code& code, const Code& more) const {
    const auto base = static_cast<int>(code.instructions.size());
    for (Instruction instruction : more.instructions) {
      if (instruction.next >= 0) instruction.next += base;
      if (instruction.other >= 0) instruction.other += base;
      code.instructions.push_back(instruction);
    }
    if (code.instructions.size() > kMostInstructions) unsupported("an expression of this size");
  }

  Code alternatives(int depth) {
    Code code = sequence(depth);
    while (accept("|")) {
      const Code second = sequence(depth);
      Code both;
      Instruction split{.op = Op::split};
      split.next = 1;
      split.other = static_cast<int>(code.instructions.size()) + 2;
      both.instructions.push_back(split);
      append(both, code);
      Instruction jump{.op = Op::jump};
      jump.next = static_cast<int>(both.instructions.size() + 1 + second.instructions.size());
      both.instructions.push_back(jump);
      append(both, second);
      both.may_be_empty = code.may_be_empty || second.may_be_empty;
      code = std::move(both);
    }
    return code;
  }

  Code sequence(int depth) {
    Code code;
    while (!at_end() && text_[at_] != '|' && text_[at_] != ')') {
      Code piece = atom(depth);
      while (std::optional<Code> repeated = repetition(piece)) piece = std::move(*repeated);
      append(code, piece);
      code.may_be_empty = code.may_be_empty && piece.may_be_empty;
    }
    return code;
  }

  // ? * + {m} {m,} {,n} {m,n}, behind them ? for lazy and, but for the braces, + for possessive.
  std::optional<Code> repetition(const Code& piece) {
    uint32_t least = 0, most = 0;
    const bool braces = !at_end() && text_[at_] == '{';
    if (braces) {
      if (!read_braces(least, most)) return std::nullopt;
    } else if (accept("?")) {
      most = 1;
    } else if (accept("*")) {
      most = kUnbounded;
    } else if (accept("+")) {
      least = 1;
      most = kUnbounded;
    } else {
      return std::nullopt;
    }
    Greed greed = Greed::greedy;
    if (accept("?")) {
      if (braces && least == most) unsupported("{n}?");
      greed = Greed::lazy;
    } else if (!braces && accept("+")) {
      greed = Greed::possessive;
    }
    return repeat(piece, least, most, greed);
  }

  // "{" that begins no repetition is a literal, as in Ruby.
  bool read_braces(uint32_t& least, uint32_t& most) {
    const size_t begin = at_++;
    const auto number = [&]() -> std::optional<uint32_t> {
      uint32_t value = 0;
      const size_t first = at_;
      while (!at_end() && text_[at_] >= '0' && text_[at_] <= '9' && value <= kMostRepeats) {
        value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
      }
      return at_ > first ? std::optional(value) : std::nullopt;
    };
    const std::optional<uint32_t> low = number();
    std::optional<uint32_t> high = low;
    const bool comma = accept(",");
    if (comma) high = number();
    if (!accept("}") || (!low && !high)) {
      at_ = begin;
      return false;
    }
    least = low.value_or(0);
    most = comma && !high ? kUnbounded : high.value_or(0);
    if (least > kMostRepeats || (most != kUnbounded && most > kMostRepeats)) unsupported("a repetition above 1000");
    if (most < least) malformed("has {m,n} with m above n");
    return true;
  }

  Code repeat(const Code& piece, uint32_t least, uint32_t most, Greed greed) {
    if (piece.one_character) {
      Code code = piece;
      Instruction& run = code.instructions.front();
      run.least = least;
      run.most = most;
      run.greed = greed;
      code.one_character = false;
      code.may_be_empty = least == 0;
      return code;
    }
    if (piece.may_be_empty && most > 1) unsupported("a loop over what may be empty");
    Code code;
    for (uint32_t i = 0; i < least; ++i) append(code, piece);
    if (most == kUnbounded) {
      append_loop(code, piece, greed);
    } else {
      Code optional;
      for (uint32_t i = least; i < most; ++i) optional = maybe(piece, optional, greed);
      append(code, optional);
    }
    code.may_be_empty = least == 0;
    return greed == Greed::possessive ? part(Op::atomic, code) : code;
  }

  // split(body, behind); body; jump(split)
  void append_loop(Code& code, const Code& piece, Greed greed) const {
    Code loop;
    loop.instructions.push_back(branch(1, static_cast<int>(piece.instructions.size()) + 2, greed));
    append(loop, piece);
    Instruction jump{.op = Op::jump};
    jump.next = 0;
    loop.instructions.push_back(jump);
    append(code, loop);
  }

  // (first rest)?
  Code maybe(const Code& first, const Code& rest, Greed greed) const {
    Code code;
    const auto size = static_cast<int>(first.instructions.size() + rest.instructions.size());
    code.instructions.push_back(branch(1, size + 1, greed));
    append(code, first);
    append(code, rest);
    return code;
  }

  static Instruction branch(int body, int behind, Greed greed) {
    Instruction split{.op = Op::split};
    split.next = greed == Greed::lazy ? behind : body;
    split.other = greed == Greed::lazy ? body : behind;
    return split;
  }

  // A part that is matched by itself: look-ahead, or an atomic group.
  Code part(Op op, const Code& body) const {
    Code code;
    Instruction first{.op = op};
    first.next = static_cast<int>(body.instructions.size()) + 2;
    code.instructions.push_back(first);
    append(code, body);
    code.instructions.emplace_back();  // accept
    code.may_be_empty = op != Op::atomic || body.may_be_empty;
    return code;
  }

  Code group(int depth) {
    if (depth >= kDeepest) unsupported("nesting as deep as this");
    const bool folded = fold_;
    std::optional<Op> op;
    if (accept("?=")) {
      op = Op::look;
    } else if (accept("?!")) {
      op = Op::no_look;
    } else if (accept("?>")) {
      op = Op::atomic;
    } else if (accept("?i:")) {
      fold_ = true;
    } else if (accept("?-i:")) {
      fold_ = false;
    } else if (!accept("?:") && !at_end() && text_[at_] == '?') {
      unsupported(text_.substr(at_ - 1).starts_with("(?<=") || text_.substr(at_ - 1).starts_with("(?<!")
                      ? "look-behind"
                      : "a group of this kind");
    }
    const Code body = alternatives(depth + 1);
    if (!accept(")")) malformed("lacks a ')'");
    fold_ = folded;
    return op ? part(*op, body) : whole(body);
  }

  // What is repeated as a whole from here on.
  static Code whole(Code body) {
    body.one_character = body.one_character && body.instructions.size() == 1;
    return body;
  }

  Code atom(int depth) {
    if (accept("(")) return group(depth);
    Regex::Set set;
    if (accept("[")) {
      set = bracket(depth);
    } else if (accept(".")) {
      set.negated = true;
      set.items.push_back(range('\n', '\n'));
    } else if (accept("\\")) {
      set.items = escape();
    } else {
      const char32_t c = take();
      if (c == '^' || c == '$') unsupported("an anchor");
      if (c == '*' || c == '+' || c == '?') malformed("repeats nothing");
      set.items = literal(c, c);
    }
    return run_of(std::move(set));
  }

  Code run_of(Regex::Set set) {
    Code code;
    Instruction run{.op = Op::run};
    run.set = add(std::move(set));
    code.instructions.push_back(run);
    code.may_be_empty = false;
    code.one_character = true;
    return code;
  }

  int add(Regex::Set set) {
    regex_.sets_.push_back(std::move(set));
    return static_cast<int>(regex_.sets_.size()) - 1;
  }

  static Item range(char32_t first, char32_t last) {
    Item item;
    item.first = first;
    item.last = last;
    return item;
  }

  static bool is_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

  // Under (?i) the other case is meant too. Beyond ASCII only what folds to ASCII is known.
  std::vector<Item> literal(char32_t first, char32_t last) {
    std::vector<Item> items = {range(first, last)};
    if (!fold_) return items;
    if (last >= 128) unsupported("a character beyond ASCII under (?i)");
    for (char32_t c = first; c <= last; ++c) {
      if (!is_letter(c)) continue;
      items.push_back(range(c ^ 0x20U, c ^ 0x20U));
      if ((c | 0x20U) == 's') items.push_back(range(0x17F, 0x17F));
      if ((c | 0x20U) == 'k') items.push_back(range(0x212A, 0x212A));
    }
    return items;
  }

  // Behind "[": items and nested classes up to "]".
  Regex::Set bracket(int depth) {
    if (depth >= kDeepest) unsupported("nesting as deep as this");
    Regex::Set set;
    set.negated = accept("^");
    bool first = true;
    while (first || !accept("]")) {
      if (first && !at_end() && text_[at_] == ']') unsupported("']' as the first of a class");
      first = false;
      if (at_end()) malformed("lacks a ']'");
      if (text_.substr(at_).starts_with("&&")) unsupported("&& in a class");
      if (text_.substr(at_).starts_with("[:")) unsupported("a POSIX bracket");
      if (accept("[")) {
        Item nested;
        nested.nested = add(bracket(depth + 1));
        set.items.push_back(nested);
        continue;
      }
      for (const Item& item : class_item()) set.items.push_back(item);
    }
    return set;
  }

  std::vector<Item> class_item() {
    std::vector<Item> items;
    if (accept("\\")) {
      items = escape();
      const bool single = items.front().first <= items.front().last;
      if (!single || !range_follows()) return items;
    } else {
      const char32_t c = take();
      items = {range(c, c)};
      if (!range_follows()) return literal(c, c);
    }
    const char32_t first = items.front().first;
    ++at_;  // '-'
    char32_t last = 0;
    if (accept("\\")) {
      const std::vector<Item> end = escape();
      if (end.front().first > end.front().last) malformed("has a range that ends in a class");
      last = end.front().first;
    } else {
      last = take();
    }
    if (last < first) malformed("has a range that runs backwards");
    return literal(first, last);
  }

  // Whether "-x" follows, where x does not close the class.
  bool range_follows() const {
    return at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']' && text_[at_ + 1] != '[';
  }

  // Behind "\".
  std::vector<Item> escape() {
    const char32_t c = take();
    Item item;
    switch (c) {
      case 'n':
        return {range('\n', '\n')};
      case 'r':
        return {range('\r', '\r')};
      case 't':
        return {range('\t', '\t')};
      case 'f':
        return {range('\f', '\f')};
      case 'v':
        return {range('\v', '\v')};
      case 's':
      case 'S':
        item.space = true;
        item.negated = c == 'S';
        return {item};
      case 'd':
      case 'D':
        item.categories = unicode::category_mask("Nd");
        item.negated = c == 'D';
        return {item};
      case 'p':
      case 'P':
        return {property(c == 'P')};
      case 'u':
        return code_point(4);
      case 'x':
        return accept("{") ? braced_code_point() : code_point(2);
      default:
        if (is_letter(c) || (c >= '0' && c <= '9')) unsupported(fmt::format("\\{}", static_cast<char>(c)));
        return literal(c, c);
    }
  }

  Item property(bool negated) {
    if (!accept("{")) malformed("has \\p without {");
    if (accept("^")) negated = !negated;
    const size_t end = text_.find('}', at_);
    if (end == std::string_view::npos) malformed("lacks a '}'");
    Item item;
    item.negated = negated;
    item.categories = unicode::category_mask(text_.substr(at_, end - at_));
    if (item.categories == 0) unsupported(fmt::format("\\p{{{}}}", text_.substr(at_, end - at_)));
    at_ = end + 1;
    return item;
  }

  std::vector<Item> code_point(size_t digits) {
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i) value = value * 16 + hex_digit(take());
    return checked(value);
  }

  std::vector<Item> braced_code_point() {
    char32_t value = 0;
    do {
      value = value * 16 + hex_digit(take());
    } while (value <= 0x10FFFF && !accept("}"));
    return checked(value);
  }

  std::vector<Item> checked(char32_t value) {
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) malformed("names no character");
    return literal(value, value);
  }

  char32_t hex_digit(char32_t c) const {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    malformed("has a character that is no hexadecimal digit");
  }

  std::string_view text_;
  size_t at_ = 0;
  bool fold_ = false;
  Regex& regex_;
};

Regex::Regex(std::string_view expression) { RegexCompiler(expression, *this).compile(); }

// --- matching
// ----------------------------------------------------------------------------------------------------------------------

void Regex::Budget::spend() {
  if (left_ == 0) {
    throw Error(ErrorCode::invalid_request, "the tokenizer's regular expression takes too long on this text",
                "give the text in parts");
  }
  --left_;
}

bool Regex::contains(const Set& set, char32_t c) const {
  return c < set.ascii.size() ? set.ascii[c] : contains_slowly(set, c);
}

bool Regex::contains_slowly(const Set& set, char32_t c) const {
  const uint32_t category = unicode::category_bit(c);
  const bool space = (unicode::class_of(c) & unicode::kSpace) != 0;
  const bool found = std::any_of(set.items.begin(), set.items.end(), [&](const Set::Item& item) {
    if (item.nested >= 0) return contains_slowly(sets_[static_cast<size_t>(item.nested)], c);
    const bool in = (c >= item.first && c <= item.last) || (item.categories & category) != 0 || (item.space && space);
    return in != item.negated;
  });
  return found != set.negated;
}

class RegexMatcher {
 public:
  RegexMatcher(const Regex& regex, std::string_view text, Regex::Budget& budget)
      : regex_(regex), text_(text), budget_(budget) {}

  // The end of the match that begins at `pos`, if there is one.
  std::optional<size_t> match(size_t pc, size_t pos) {
    const size_t floor = stack_.size();
    for (;;) {
      budget_.spend();
      const Regex::Instruction& instruction = regex_.program_[pc];
      bool failed = false;
      switch (instruction.op) {
        case Regex::Op::accept:
          stack_.resize(floor);
          return pos;
        case Regex::Op::jump:
          pc = static_cast<size_t>(instruction.next);
          break;
        case Regex::Op::split:
          stack_.push_back({static_cast<size_t>(instruction.other), pos, pos, -1});
          pc = static_cast<size_t>(instruction.next);
          break;
        case Regex::Op::run:
          failed = !run(instruction, pc, pos);
          ++pc;
          break;
        case Regex::Op::look:
        case Regex::Op::no_look:
        case Regex::Op::atomic: {
          const std::optional<size_t> end = match(pc + 1, pos);
          failed = end.has_value() == (instruction.op == Regex::Op::no_look);
          if (!failed && instruction.op == Regex::Op::atomic) pos = *end;
          pc = static_cast<size_t>(instruction.next);
          break;
        }
      }
      if (failed && !resume(floor, pc, pos)) return std::nullopt;
    }
  }

 private:
  // Where to go on when what was tried failed. Of a greedy run: it ended at `pos` and may end as early as `least_end`;
  // of a lazy one (`set` is its characters): it ended at `pos` and may take `more` characters.
  struct Choice {
    size_t pc, pos, least_end;
    int set;
    uint32_t more = 0;
  };

  bool run(const Regex::Instruction& run, size_t pc, size_t& pos) {
    const Regex::Set& set = regex_.sets_[static_cast<size_t>(run.set)];
    uint32_t count = 0;
    size_t least_end = pos;
    const uint32_t wanted = run.greed == Regex::Greed::lazy ? run.least : run.most;
    while (count < wanted && take(set, pos)) {
      if (++count == run.least) least_end = pos;
    }
    if (count < run.least) return false;
    if (run.greed == Regex::Greed::greedy && pos > least_end) stack_.push_back({pc + 1, pos, least_end, -1});
    if (run.greed == Regex::Greed::lazy && run.most > count) {
      stack_.push_back({pc + 1, pos, pos, run.set, run.most - count});
    }
    return true;
  }

  bool take(const Regex::Set& set, size_t& pos) {
    if (pos >= text_.size()) return false;
    budget_.spend();
    size_t next = pos;
    if (!regex_.contains(set, unicode::next_char(text_, next))) return false;
    pos = next;
    return true;
  }

  bool resume(size_t floor, size_t& pc, size_t& pos) {
    while (stack_.size() > floor) {
      Choice& choice = stack_.back();
      pc = choice.pc;
      if (choice.set >= 0) {
        if (!take(regex_.sets_[static_cast<size_t>(choice.set)], choice.pos)) {
          stack_.pop_back();
          continue;
        }
        pos = choice.pos;
        if (choice.more != kUnbounded && --choice.more == 0) stack_.pop_back();
        return true;
      }
      if (choice.pos > choice.least_end) {
        do {
          --choice.pos;
        } while ((static_cast<unsigned char>(text_[choice.pos]) & 0xC0U) == 0x80U);
        pos = choice.pos;
        if (pos == choice.least_end) stack_.pop_back();
        return true;
      }
      pos = choice.pos;  // the other branch of a split
      stack_.pop_back();
      return true;
    }
    return false;
  }

  const Regex& regex_;
  std::string_view text_;
  Regex::Budget& budget_;
  std::vector<Choice> stack_;
};

std::pair<size_t, size_t> Regex::find(std::string_view text, size_t pos, Budget& budget) const {
  RegexMatcher matcher(*this, text, budget);
  while (pos <= text.size()) {
    if (const std::optional<size_t> end = matcher.match(0, pos)) return {pos, *end};
    if (pos == text.size()) break;
    unicode::next_char(text, pos);
  }
  return {text.size(), text.size()};
}

}  // namespace expert
