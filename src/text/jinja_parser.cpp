#include "text/jinja_parser.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "text/jinja_lexer.h"

namespace expert::jinja {
namespace {

constexpr int kNestingLimit = 500;  // of the recursion below: a bracket takes five of it, a block one
constexpr int kHeightLimit = 400;   // of an expression's tree
constexpr int kBranchLimit = 200;   // of one if

using EndTags = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(std::string_view source, Heap& constants) : tokens_(tokenize(source)), constants_(constants) {}

  Nodes parse() { return statements_until({}); }

 private:
  struct Nesting {
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kNestingLimit) syntax_error(parser_.line(), "nested too deeply");
    }
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  // -- tokens

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  const Token& take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }

  static bool is(const Token& token, TokenKind kind, std::string_view text) {
    return token.kind == kind && token.text == text;
  }
  bool at(TokenKind kind) const { return current().kind == kind; }
  bool at_op(std::string_view op) const { return is(current(), TokenKind::op, op); }
  bool at_word(std::string_view word) const { return is(current(), TokenKind::name, word); }

  bool skip_op(std::string_view op) { return at_op(op) && (take(), true); }
  bool skip_word(std::string_view word) { return at_word(word) && (take(), true); }

  [[noreturn]] void unexpected(std::string_view wanted) const {
    syntax_error(line(), fmt::format("expected {}, got {}", wanted, describe(current())));
  }

  static std::string describe(const Token& token) {
    switch (token.kind) {
      case TokenKind::eof:
        return "the end of the template";
      case TokenKind::variable_end:
        return "'}}'";
      case TokenKind::block_end:
        return "'%}'";
      case TokenKind::string:
        return "a string";
      default:
        return "'" + token.text + "'";
    }
  }

  void expect_op(std::string_view op) {
    if (!skip_op(op)) unexpected(fmt::format("'{}'", op));
  }
  void expect_word(std::string_view word) {
    if (!skip_word(word)) unexpected(fmt::format("'{}'", word));
  }
  std::string expect_name() {
    if (!at(TokenKind::name)) unexpected("a name");
    return take().text;
  }
  void expect_block_end() {
    if (!at(TokenKind::block_end)) unexpected("'%}'");
    take();
  }

  // -- nodes

  static NodePtr make(Kind kind, int line) {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = line;
    return node;
  }

  template <typename... Operands>
  static NodePtr make(Kind kind, int line, Operands... operands) {
    NodePtr node = make(kind, line);
    (node->operands.push_back(std::move(operands)), ...);
    return measured(std::move(node));
  }

  // A tree too high would be walked by too deep a recursion.
  static NodePtr measured(NodePtr node) {
    for_each_child(*node, [&](const Node& child) { node->depth = std::max(node->depth, child.depth + 1); });
    if (node->depth > kHeightLimit) syntax_error(node->line, "expression too long");
    return node;
  }

  NodePtr constant(int line, Value value) {
    NodePtr node = make(Kind::constant, line);
    node->constant = value;
    return node;
  }

  // -- statements

  Nodes statements_until(EndTags end_tags) {
    Nesting nesting(*this);
    Nodes body;
    while (!at(TokenKind::eof)) {
      const Token& token = take();
      if (token.kind == TokenKind::data) {
        NodePtr node = make(Kind::data, token.line);
        node->constant = constants_.string(token.text);
        body.push_back(std::move(node));
      } else if (token.kind == TokenKind::variable_begin) {
        body.push_back(output(token.line, tuple_or_expression()));
        if (!at(TokenKind::variable_end)) unexpected("'}}'");
        take();
      } else {
        if (at(TokenKind::name) && std::find(end_tags.begin(), end_tags.end(), current().text) != end_tags.end())
          return body;
        body.push_back(statement());
        expect_block_end();
      }
    }
    if (end_tags.size() != 0)
      syntax_error(line(), fmt::format("unexpected end of template, expected '{}'", *(end_tags.end() - 1)));
    return body;
  }

  // The block of a statement; afterwards the current token is the end tag's name.
  Nodes block(EndTags end_tags) {
    skip_op(":");
    expect_block_end();
    return statements_until(end_tags);
  }

  Nodes last_block(std::string_view end_tag) {
    Nodes body = block({end_tag});
    take();
    return body;
  }

  NodePtr statement() {
    if (!at(TokenKind::name)) unexpected("a tag name");
    const int at_line = line();
    const std::string tag = take().text;
    if (tag == "for") return for_loop(at_line);
    if (tag == "if") return if_chain(at_line);
    if (tag == "set") return set(at_line);
    if (tag == "macro") return macro(at_line);
    if (tag == "call") return call_block(at_line);
    if (tag == "filter") return filter_block(at_line);
    if (tag == "with") return with(at_line);
    if (tag == "print") return print(at_line);
    if (tag == "generation") return generation(at_line);
    if (tag == "break") return make(Kind::break_, at_line);
    if (tag == "continue") return make(Kind::continue_, at_line);
    static constexpr std::array<std::string_view, 6> kRefused = {"block",  "extends", "include",
                                                                 "import", "from",    "autoescape"};
    if (std::find(kRefused.begin(), kRefused.end(), tag) != kRefused.end()) {
      syntax_error(at_line, fmt::format("the statement '{}' is not supported in chat templates", tag));
    }
    syntax_error(at_line, fmt::format("unknown or misplaced tag '{}'", tag));
  }

  NodePtr for_loop(int at_line) {
    NodePtr target = assignment_target("in", false);
    expect_word("in");
    NodePtr iterable = tuple_or_expression({.with_conditional = false, .end_word = "recursive"});
    NodePtr test = skip_word("if") ? expression() : nullptr;
    NodePtr node = make(Kind::for_, at_line, std::move(target), std::move(iterable), std::move(test));
    node->recursive = skip_word("recursive");
    node->body = block({"else", "endfor"});
    if (take().text == "else") node->otherwise = last_block("endfor");
    return node;
  }

  // An elif is an if in the other branch.
  NodePtr if_chain(int at_line) {
    NodePtr first;
    Node* last = nullptr;
    for (int links = 0;; ++links) {
      if (links > kBranchLimit) syntax_error(line(), "too many elif branches");
      NodePtr node = make(Kind::if_, at_line, tuple_or_expression({.with_conditional = false}));
      Node* link = node.get();
      link->body = block({"elif", "else", "endif"});
      if (last == nullptr) {
        first = std::move(node);
      } else {
        last->otherwise.push_back(std::move(node));
      }
      last = link;
      at_line = line();
      const std::string end = take().text;
      if (end == "else") last->otherwise = last_block("endif");
      if (end != "elif") return first;
    }
  }

  NodePtr set(int at_line) {
    NodePtr target = assignment_target({}, true);
    if (skip_op("=")) return make(Kind::set, at_line, std::move(target), tuple_or_expression());
    NodePtr filter = filters(nullptr);
    NodePtr node = make(Kind::set_block, at_line, std::move(target), std::move(filter));
    node->body = last_block("endset");
    return node;
  }

  // The defaults of the last parameters follow what is already among the operands.
  void signature(Node& node) {
    expect_op("(");
    bool defaults = false;
    while (!at_op(")")) {
      if (!node.parameters.empty()) expect_op(",");
      NodePtr parameter = make(Kind::name, line());
      parameter->use = Use::parameter;
      parameter->name = assignable(expect_name());
      for (const NodePtr& other : node.parameters) {
        if (other->name == parameter->name) syntax_error(line(), fmt::format("duplicate parameter '{}'", other->name));
      }
      if (skip_op("=")) {
        node.operands.push_back(expression());
        defaults = true;
      } else if (defaults) {
        syntax_error(line(), "non-default argument follows default argument");
      }
      node.parameters.push_back(std::move(parameter));
    }
    expect_op(")");
  }

  NodePtr macro(int at_line) {
    NodePtr node = make(Kind::macro, at_line);
    node->name = assignable(expect_name());
    signature(*node);
    node->body = last_block("endmacro");
    return node;
  }

  NodePtr call_block(int at_line) {
    NodePtr node = make(Kind::call_block, at_line);
    node->operands.push_back(nullptr);
    if (at_op("(")) signature(*node);
    node->operands[0] = expression();
    if (node->operands[0]->kind != Kind::call) syntax_error(at_line, "expected a call after 'call'");
    node->body = last_block("endcall");
    return node;
  }

  NodePtr generation(int at_line) {
    NodePtr node = make(Kind::call_block, at_line);
    node->operands.push_back(nullptr);
    node->body = last_block("endgeneration");
    return node;
  }

  NodePtr filter_block(int at_line) {
    NodePtr node = make(Kind::filter_block, at_line, filters(filter(nullptr)));
    node->body = last_block("endfilter");
    return node;
  }

  NodePtr with(int at_line) {
    NodePtr node = make(Kind::with, at_line);
    while (!at(TokenKind::block_end)) {
      if (!node->operands.empty()) expect_op(",");
      NodePtr target = assignment_target({}, false);
      mark(*target, Use::parameter);
      expect_op("=");
      node->operands.push_back(std::move(target));
      node->operands.push_back(expression());
    }
    node->body = last_block("endwith");
    return node;
  }

  NodePtr print(int at_line) {
    NodePtr node = make(Kind::output, at_line);
    while (!at(TokenKind::block_end)) {
      if (!node->operands.empty()) expect_op(",");
      node->operands.push_back(expression());
    }
    return node;
  }

  // -- assignment targets

  std::string assignable(std::string name) const {
    static constexpr std::array<std::string_view, 6> kConstants = {"true", "false", "none", "True", "False", "None"};
    if (std::find(kConstants.begin(), kConstants.end(), name) != kConstants.end()) {
      syntax_error(line(), fmt::format("can't assign to '{}'", name));
    }
    return name;
  }

  static void mark(Node& target, Use use) {
    target.use = use;
    if (target.kind == Kind::tuple) {
      for (NodePtr& item : target.operands) mark(*item, use);
    }
  }

  void check_assignable(const Node& target) const {
    if (target.kind == Kind::tuple) {
      for (const NodePtr& item : target.operands) check_assignable(*item);
    } else if (target.kind == Kind::name) {
      assignable(target.name);
    } else if (target.kind != Kind::namespace_reference) {
      syntax_error(target.line, "can't assign to this expression");
    }
  }

  NodePtr assignment_target(std::string_view end_word, bool with_namespace) {
    NodePtr target = tuple_or_expression({.simplified = true, .with_namespace = with_namespace, .end_word = end_word});
    check_assignable(*target);
    mark(*target, Use::store);
    return target;
  }

  // -- expressions, loosest binding first

  struct TupleRules {
    bool simplified = false;  // names and literals only
    bool with_conditional = true;
    bool with_namespace = false;
    bool parenthesized = false;  // may be empty
    std::string_view end_word{};
  };

  bool at_tuple_end(std::string_view end_word) const {
    return at(TokenKind::variable_end) || at(TokenKind::block_end) || at_op(")") ||
           (!end_word.empty() && at_word(end_word));
  }

  NodePtr tuple_or_expression() { return tuple_or_expression(TupleRules()); }

  NodePtr tuple_or_expression(const TupleRules& rules) {
    const int at_line = line();
    Nodes items;
    bool is_tuple = false;
    while (true) {
      if (!items.empty()) expect_op(",");
      if (at_tuple_end(rules.end_word)) break;
      items.push_back(rules.simplified ? primary(rules.with_namespace) : expression(rules.with_conditional));
      if (!at_op(",")) break;
      is_tuple = true;
    }
    if (!is_tuple) {
      if (!items.empty()) return std::move(items[0]);
      if (!rules.parenthesized) unexpected("an expression");
    }
    NodePtr node = make(Kind::tuple, at_line);
    node->operands = std::move(items);
    return measured(std::move(node));
  }

  NodePtr expression(bool with_conditional = true) {
    Nesting nesting(*this);
    return with_conditional ? conditional() : disjunction();
  }

  NodePtr conditional() {
    Nesting nesting(*this);
    const int at_line = line();
    NodePtr value = disjunction();
    while (skip_word("if")) {
      NodePtr condition = disjunction();
      NodePtr otherwise = skip_word("else") ? conditional() : nullptr;
      value = make(Kind::conditional, at_line, std::move(condition), std::move(value), std::move(otherwise));
    }
    return value;
  }

  NodePtr disjunction() {
    const int at_line = line();
    NodePtr left = conjunction();
    while (skip_word("or")) left = make(Kind::logical_or, at_line, std::move(left), conjunction());
    return left;
  }

  NodePtr conjunction() {
    const int at_line = line();
    NodePtr left = negation();
    while (skip_word("and")) left = make(Kind::logical_and, at_line, std::move(left), negation());
    return left;
  }

  NodePtr negation() {
    Nesting nesting(*this);
    const int at_line = line();
    if (skip_word("not")) return make(Kind::logical_not, at_line, negation());
    return comparison();
  }

  bool skip_comparison(Comparison& out) {
    static constexpr std::array<std::pair<std::string_view, Comparison>, 6> kOperators = {{{"==", Comparison::eq},
                                                                                           {"!=", Comparison::ne},
                                                                                           {"<", Comparison::lt},
                                                                                           {"<=", Comparison::le},
                                                                                           {">", Comparison::gt},
                                                                                           {">=", Comparison::ge}}};
    for (const auto& [op, comparison] : kOperators) {
      if (skip_op(op)) return out = comparison, true;
    }
    if (skip_word("in")) return out = Comparison::in, true;
    if (at_word("not") && is(ahead(), TokenKind::name, "in")) {
      take(), take();
      return out = Comparison::not_in, true;
    }
    return false;
  }

  NodePtr comparison() {
    const int at_line = line();
    NodePtr first = sum();
    Comparison op{};
    if (!skip_comparison(op)) return first;
    NodePtr node = make(Kind::compare, at_line);
    node->operands.push_back(std::move(first));
    do {
      node->comparisons.push_back(op);
      node->operands.push_back(sum());
    } while (skip_comparison(op));
    return measured(std::move(node));
  }

  NodePtr sum() {
    const int at_line = line();
    NodePtr left = concatenation();
    while (at_op("+") || at_op("-")) {
      const Kind kind = take().text == "+" ? Kind::add : Kind::subtract;
      left = make(kind, at_line, std::move(left), concatenation());
    }
    return left;
  }

  NodePtr concatenation() {
    const int at_line = line();
    NodePtr first = product();
    if (!at_op("~")) return first;
    NodePtr node = make(Kind::concat, at_line);
    node->operands.push_back(std::move(first));
    while (skip_op("~")) node->operands.push_back(product());
    return measured(std::move(node));
  }

  NodePtr product() {
    const int at_line = line();
    NodePtr left = power();
    while (at_op("*") || at_op("/") || at_op("//") || at_op("%")) {
      const std::string& op = take().text;
      const Kind kind = op == "*"    ? Kind::multiply
                        : op == "/"  ? Kind::divide
                        : op == "//" ? Kind::floor_divide
                                     : Kind::modulo;
      left = make(kind, at_line, std::move(left), power());
    }
    return left;
  }

  // What Jinja2's optimiser computes beforehand: no variables, no calls, no filter that needs the rendering.
  static bool is_constant(const Node& node) {
    if (node.kind == Kind::name || node.kind == Kind::call) return false;
    static constexpr std::array<std::string_view, 5> kLate = {"map", "select", "reject", "selectattr", "rejectattr"};
    if (node.kind == Kind::filter && std::find(kLate.begin(), kLate.end(), node.name) != kLate.end()) return false;
    bool constant = true;
    for_each_child(node, [&](const Node& child) { constant = constant && is_constant(child); });
    return constant;
  }

  static bool has_slice(const Node& node) {
    bool found = node.kind == Kind::slice;
    for_each_child(node, [&](const Node& child) { found = found || has_slice(child); });
    return found;
  }

  NodePtr output(int at_line, NodePtr expression) {
    const bool folded = has_slice(*expression) && is_constant(*expression);
    NodePtr node = make(Kind::output, at_line, std::move(expression));
    node->folded = folded;
    return node;
  }

  NodePtr power() {
    const int at_line = line();
    NodePtr left = unary(true);
    while (skip_op("**")) {
      NodePtr right = unary(true);
      const bool negated_base = is_constant(*left) && !is_constant(*right);
      left = make(Kind::power, at_line, std::move(left), std::move(right));
      left->negated_base = negated_base;
    }
    return left;
  }

  NodePtr unary(bool with_filter) {
    Nesting nesting(*this);
    const int at_line = line();
    NodePtr node;
    if (skip_op("-")) {
      node = make(Kind::negative, at_line, unary(false));
    } else if (skip_op("+")) {
      node = make(Kind::positive, at_line, unary(false));
    } else {
      node = primary(false);
    }
    node = postfix(std::move(node));
    return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
  }

  NodePtr primary(bool with_namespace) {
    Nesting nesting(*this);
    const int at_line = line();
    if (at(TokenKind::name)) return name(with_namespace);
    if (at(TokenKind::string)) {
      std::string text;
      while (at(TokenKind::string)) text += take().text;
      return constant(at_line, constants_.string(std::move(text)));
    }
    if (at(TokenKind::integer)) return constant(at_line, integer(take()));
    if (at(TokenKind::floating)) return constant(at_line, floating(take()));
    if (skip_op("(")) {
      NodePtr node = tuple_or_expression({.parenthesized = true});
      expect_op(")");
      return node;
    }
    if (skip_op("[")) return list(at_line);
    if (skip_op("{")) return dict(at_line);
    unexpected("an expression");
  }

  NodePtr name(bool with_namespace) {
    const int at_line = line();
    const std::string word = take().text;
    if (word == "true" || word == "True") return constant(at_line, Value::boolean(true));
    if (word == "false" || word == "False") return constant(at_line, Value::boolean(false));
    if (word == "none" || word == "None") return constant(at_line, Value::none());
    NodePtr node = make(Kind::name, at_line);
    node->name = word;
    if (with_namespace && skip_op(".")) {
      node->kind = Kind::namespace_reference;
      node->attribute = expect_name();
    }
    return node;
  }

  static Value integer(const Token& token) {
    int base = 10;
    std::string_view digits = token.text;
    if (digits.size() > 2 && digits[0] == '0' && digits[1] > '9') {
      base = (digits[1] | 0x20) == 'x' ? 16 : (digits[1] | 0x20) == 'o' ? 8 : 2;
      digits.remove_prefix(2);
    }
    int64_t value = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (result.ec != std::errc())
      syntax_error(token.line, fmt::format("the integer {} does not fit 64 bits", token.text));
    return Value::integer(value);
  }

  static Value floating(const Token& token) {
    double value = 0;
    const auto result = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
    if (result.ec == std::errc::result_out_of_range)
      syntax_error(token.line, fmt::format("the float {} is out of range", token.text));
    return Value::floating(value);
  }

  NodePtr list(int at_line) {
    NodePtr node = make(Kind::list, at_line);
    while (!at_op("]")) {
      if (!node->operands.empty()) expect_op(",");
      if (at_op("]")) break;
      node->operands.push_back(expression());
    }
    expect_op("]");
    return measured(std::move(node));
  }

  NodePtr dict(int at_line) {
    NodePtr node = make(Kind::dict, at_line);
    while (!at_op("}")) {
      if (!node->operands.empty()) expect_op(",");
      if (at_op("}")) break;
      node->operands.push_back(expression());
      expect_op(":");
      node->operands.push_back(expression());
    }
    expect_op("}");
    return measured(std::move(node));
  }

  NodePtr postfix(NodePtr node) {
    while (true) {
      if (at_op(".") || at_op("[")) {
        node = subscript(std::move(node));
      } else if (at_op("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  NodePtr filters_and_tests(NodePtr node) {
    while (true) {
      if (at_op("|")) {
        node = filters(std::move(node));
      } else if (at_word("is")) {
        node = test(std::move(node));
      } else if (at_op("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }

  NodePtr subscript(NodePtr object) {
    const int at_line = line();
    if (take().text == ".") {
      if (at(TokenKind::integer))
        return make(Kind::getitem, at_line, std::move(object), constant(at_line, integer(take())));
      NodePtr node = make(Kind::getattr, at_line, std::move(object));
      node->attribute = expect_name();
      return node;
    }
    Nodes indices;
    while (!at_op("]")) {
      if (!indices.empty()) expect_op(",");
      indices.push_back(subscript_index());
    }
    expect_op("]");
    if (indices.size() == 1) return make(Kind::getitem, at_line, std::move(object), std::move(indices[0]));
    for (const NodePtr& index : indices) {
      if (index->kind == Kind::slice) syntax_error(at_line, "a slice within a tuple of indices is not supported");
    }
    NodePtr tuple = make(Kind::tuple, at_line);
    tuple->operands = std::move(indices);
    return make(Kind::getitem, at_line, std::move(object), measured(std::move(tuple)));
  }

  NodePtr subscript_index() {
    const int at_line = line();
    NodePtr start = at_op(":") ? nullptr : expression();
    if (!skip_op(":")) return start;
    const auto bound = [&]() -> NodePtr { return at_op(":") || at_op("]") || at_op(",") ? nullptr : expression(); };
    NodePtr stop = bound();
    NodePtr step = skip_op(":") ? bound() : nullptr;
    return make(Kind::slice, at_line, std::move(start), std::move(stop), std::move(step));
  }

  NodePtr call(NodePtr callee) {
    NodePtr node = make(Kind::call, line(), std::move(callee));
    call_arguments(*node);
    return measured(std::move(node));
  }

  void call_arguments(Node& node) {
    const int at_line = line();
    const auto ensure = [&](bool valid) {
      if (!valid) syntax_error(at_line, "invalid syntax for function call expression");
    };
    expect_op("(");
    for (bool first = true; !at_op(")"); first = false) {
      if (!first) expect_op(",");
      if (!first && at_op(")")) break;
      if (skip_op("*")) {
        ensure(!node.argument_list && !node.argument_map);
        node.argument_list = expression();
      } else if (skip_op("**")) {
        ensure(!node.argument_map);
        node.argument_map = expression();
      } else if (at(TokenKind::name) && is(ahead(), TokenKind::op, "=")) {
        ensure(!node.argument_map);
        keyword(node);
      } else {
        ensure(!node.argument_list && !node.argument_map && node.keywords.empty());
        node.arguments.push_back(expression());
      }
    }
    expect_op(")");
  }

  void keyword(Node& node) {
    const std::string key = take().text;
    take();
    for (const auto& [other, value] : node.keywords) {
      if (other == key) syntax_error(line(), fmt::format("keyword argument '{}' repeated", key));
    }
    node.keywords.emplace_back(key, expression());
  }

  std::string dotted_name() {
    std::string text = expect_name();
    while (skip_op(".")) text += "." + expect_name();
    return text;
  }

  NodePtr filter(NodePtr input) {
    NodePtr node = make(Kind::filter, line(), std::move(input));
    node->name = dotted_name();
    if (at_op("(")) call_arguments(*node);
    return measured(std::move(node));
  }

  NodePtr filters(NodePtr input) {
    while (skip_op("|")) input = filter(std::move(input));
    return input;
  }

  bool at_bare_test_argument() const {
    if (at_word("else") || at_word("or") || at_word("and")) return false;
    return at(TokenKind::name) || at(TokenKind::string) || at(TokenKind::integer) || at(TokenKind::floating) ||
           at_op("[") || at_op("{");
  }

  NodePtr test(NodePtr input) {
    const int at_line = line();
    take();
    const bool negated = skip_word("not");
    NodePtr node = make(Kind::test, at_line, std::move(input));
    node->name = dotted_name();
    if (at_op("(")) {
      call_arguments(*node);
    } else if (at_bare_test_argument()) {
      if (at_word("is")) syntax_error(line(), "You cannot chain multiple tests with is");
      node->arguments.push_back(postfix(primary(false)));
    }
    node = measured(std::move(node));
    return negated ? make(Kind::logical_not, at_line, std::move(node)) : std::move(node);
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  Heap& constants_;
};

}  // namespace

Nodes parse(std::string_view source, Heap& constants) { return Parser(source, constants).parse(); }

}  // namespace expert::jinja
