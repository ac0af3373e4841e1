#include "text/jinja_resolver.h"

#include <map>
#include <optional>
#include <set>

#include "text/jinja_filters.h"
#include "text/jinja_lexer.h"

namespace expert::jinja {
namespace {

constexpr uint16_t kSlotLimit = 20000;

// What becomes one activation at run time.
struct Function {
  Function* parent = nullptr;
  uint16_t slots = 0;
  int line = 1;

  uint16_t new_slot() {
    if (slots >= kSlotLimit) syntax_error(line, "too many variables");
    return slots++;
  }
};

enum class Load : uint8_t { parameter, context, alias, unset };

struct Reference {
  Function* function = nullptr;
  uint16_t slot = 0;
};

// The names of one scope: where each lives and what it starts with.
struct Symbols {
  struct Own {
    uint16_t slot = 0;
    Load load = Load::unset;
    Reference alias;
  };

  Symbols(Symbols* outer, Function& home) : parent(outer), function(&home) {}

  Symbols* parent;
  Function* function;
  std::map<std::string, Own> own;
  std::set<std::string> stores;

  std::optional<Reference> find(const std::string& name) const {
    for (const Symbols* symbols = this; symbols != nullptr; symbols = symbols->parent) {
      const auto found = symbols->own.find(name);
      if (found != symbols->own.end()) return Reference{symbols->function, found->second.slot};
    }
    return std::nullopt;
  }

  void define(const std::string& name, Load load, Reference alias = {}) {
    const auto [place, added] = own.try_emplace(name);
    if (added) place->second.slot = function->new_slot();
    place->second.load = load;
    place->second.alias = alias;
  }

  void load(const std::string& name) {
    if (!find(name)) define(name, Load::context);
  }

  void store(const std::string& name) {
    stores.insert(name);
    if (own.count(name) != 0) return;
    const std::optional<Reference> outer = parent == nullptr ? std::nullopt : parent->find(name);
    if (outer) {
      define(name, Load::alias, *outer);
    } else {
      define(name, Load::unset);
    }
  }

  uint16_t parameter(const std::string& name) {
    stores.insert(name);
    define(name, Load::parameter);
    return own[name].slot;
  }

  // After an if: what only some branch stores may still be unset, so it starts with the outer value.
  void merge(const std::vector<Symbols>& branches) {
    std::set<std::string> stored;
    for (const Symbols& branch : branches) stored.insert(branch.stores.begin(), branch.stores.end());
    for (const std::string& name : stores) stored.erase(name);
    for (const Symbols& branch : branches) {
      for (const auto& [name, entry] : branch.own) {
        const auto [place, added] = own.try_emplace(name, entry);
        if (!added) place->second.load = entry.load, place->second.alias = entry.alias;
      }
      stores.insert(branch.stores.begin(), branch.stores.end());
    }
    for (const std::string& name : stored) {
      const std::optional<Reference> outer = parent == nullptr ? std::nullopt : parent->find(name);
      define(name, outer ? Load::alias : Load::context, outer.value_or(Reference{}));
    }
  }
};

// The first pass over a scope's own statements: which names it loads and stores, in order. Inner scopes are not
// entered.
class Analyzer {
 public:
  explicit Analyzer(Symbols& symbols) : symbols_(&symbols) {}

  void visit(Node& node) {
    switch (node.kind) {
      case Kind::name:
        return variable(node);
      case Kind::namespace_reference:
        return symbols_->load(node.name);
      case Kind::if_:
        return branches(node);
      case Kind::macro:
        return symbols_->store(node.name);
      case Kind::set:
        return visit(*node.operands[1]), visit(*node.operands[0]);
      case Kind::set_block:
        return visit(*node.operands[0]);
      case Kind::for_:
        return visit(*node.operands[1]);
      case Kind::call_block:
        if (node.operands[0]) visit(*node.operands[0]);
        return;
      case Kind::filter_block:
        return visit(*node.operands[0]);
      case Kind::with:
        for (size_t i = 1; i < node.operands.size(); i += 2) visit(*node.operands[i]);
        return;
      default:
        for_each_child(node, [&](Node& child) { visit(child); });
    }
  }

  void visit_all(const Nodes& nodes) {
    for (const NodePtr& node : nodes) visit(*node);
  }

  // The names of an assignment target as parameters of the scope.
  void parameters(Node& target) {
    if (target.kind == Kind::name) symbols_->parameter(target.name);
    for (const NodePtr& item : target.operands) parameters(*item);
  }

 private:
  void variable(const Node& node) {
    if (node.use == Use::load) {
      symbols_->load(node.name);
    } else if (node.use == Use::store) {
      symbols_->store(node.name);
    } else {
      symbols_->parameter(node.name);
    }
  }

  void branches(Node& node) {
    visit(*node.operands[0]);
    Symbols* const outer = symbols_;
    std::vector<Symbols> copies(2, *outer);
    symbols_ = &copies[0];
    visit_all(node.body);
    symbols_ = &copies[1];
    visit_all(node.otherwise);
    symbols_ = outer;
    outer->merge(copies);
  }

  Symbols* symbols_;
};

// Which of the names are loaded below without being assigned before.
class Undeclared {
 public:
  explicit Undeclared(std::set<std::string> names) : names_(std::move(names)) {}

  std::set<std::string> of(const Nodes& nodes) {
    for (const NodePtr& node : nodes) visit(*node);
    return std::move(found_);
  }

 private:
  void visit(Node& node) {
    if (node.kind == Kind::name) {
      if (node.use == Use::load && names_.count(node.name) != 0) {
        found_.insert(node.name);
      } else {
        names_.erase(node.name);
      }
      return;
    }
    for_each_child(node, [&](Node& child) { visit(child); });
  }

  std::set<std::string> names_, found_;
};

void refuse_loop_assignment(Node& node) {
  if (node.kind == Kind::name && node.use == Use::store && node.name == "loop") {
    syntax_error(node.line, "can't assign to the special loop variable");
  }
  for_each_child(node, [](Node& child) { refuse_loop_assignment(child); });
}

// Where a statement stands.
struct Frame {
  Symbols* symbols;
  Function* function;
  bool soft = false;     // in a branch: an unknown filter fails only when it runs
  bool in_loop = false;  // break may leave a loop of the same function
};

class Resolver {
 public:
  Program run(Nodes body) {
    Program program;
    Function function;
    Symbols symbols(nullptr, function);
    if (!Undeclared({"self"}).of(body).empty())
      fail(ErrorCode::load, "the variable 'self' is not supported in chat templates");
    Analyzer(symbols).visit_all(body);
    enter(symbols, program.scope);
    visit_all(body, {&symbols, &function});
    program.routine.slots = function.slots;
    program.body = std::move(body);
    return program;
  }

 private:
  // -- places

  static Place place(const Reference& reference, const Function& from) {
    Place place;
    for (const Function* function = &from; function != reference.function; function = function->parent) ++place.hops;
    place.slot = reference.slot;
    return place;
  }

  static Place find(const Symbols& symbols, const std::string& name, const Function& from, int line) {
    const std::optional<Reference> reference = symbols.find(name);
    if (!reference) syntax_error(line, fmt::format("the variable '{}' is not known here", name));
    return place(*reference, from);
  }

  static void enter(const Symbols& symbols, Scope& scope) {
    for (const auto& [name, own] : symbols.own) {
      if (own.load == Load::parameter) continue;
      ScopeEntry entry;
      entry.slot = own.slot;
      entry.name = name;
      if (own.load == Load::alias) {
        entry.action = ScopeEntry::Action::alias;
        entry.from = place(own.alias, *symbols.function);
      } else {
        entry.action = own.load == Load::context ? ScopeEntry::Action::context : ScopeEntry::Action::unset;
      }
      scope.entries.push_back(std::move(entry));
    }
  }

  // -- the second pass

  void visit_all(const Nodes& nodes, const Frame& frame) {
    for (const NodePtr& node : nodes) visit(*node, frame);
  }

  void visit(const NodePtr& node, const Frame& frame) {
    if (node) visit(*node, frame);
  }

  void visit(Node& node, const Frame& frame) {
    switch (node.kind) {
      case Kind::name:
      case Kind::namespace_reference:
        node.place = find(*frame.symbols, node.name, *frame.function, node.line);
        return;
      case Kind::filter:
      case Kind::test:
        check_known(node, frame);
        return children(node, frame);
      case Kind::conditional:
        return children(node, soft(frame));
      case Kind::if_:
        return children(node, soft(frame));
      case Kind::for_:
        return loop(node, frame);
      case Kind::macro:
        node.place = find(*frame.symbols, node.name, *frame.function, node.line);
        return callable(node, frame, 0);
      case Kind::call_block:
        visit(node.operands[0], frame);
        return callable(node, frame, 1);
      case Kind::set_block:
        return set_block(node, frame);
      case Kind::filter_block:
        return filter_block(node, frame);
      case Kind::with:
        return with(node, frame);
      case Kind::break_:
      case Kind::continue_:
        if (!frame.in_loop) syntax_error(node.line, "break or continue outside of a loop");
        return;
      default:
        children(node, frame);
    }
  }

  void children(Node& node, const Frame& frame) {
    for_each_child(node, [&](Node& child) { visit(child, frame); });
  }

  static Frame soft(Frame frame) {
    frame.soft = true;
    return frame;
  }

  static Frame inner(const Frame& frame, Symbols& symbols) {
    return {&symbols, symbols.function, false, frame.in_loop && symbols.function == frame.function};
  }

  static void check_known(const Node& node, const Frame& frame) {
    const bool is_filter = node.kind == Kind::filter;
    const std::string_view what = is_filter ? "filter" : "test";
    if (is_filter && is_refused_filter(node.name)) {
      syntax_error(node.line, fmt::format("the filter '{}' is not supported in chat templates", node.name));
    }
    const bool known = is_filter ? find_filter(node.name) != nullptr : find_test(node.name) != nullptr;
    if (!known && !frame.soft) syntax_error(node.line, fmt::format("no {} named '{}'", what, node.name));
  }

  void loop(Node& node, const Frame& frame) {
    refuse_loop_assignment(node);
    Function own{frame.function, 0, node.line};
    Function& function = node.recursive ? own : *frame.function;
    Symbols body_symbols(frame.symbols, function), else_symbols(frame.symbols, function);
    node.extended = node.recursive || !Undeclared({"loop"}).of(node.body).empty();
    if (node.extended) body_symbols.parameter("loop");
    Analyzer body_analyzer(body_symbols);
    body_analyzer.parameters(*node.operands[0]);
    body_analyzer.visit_all(node.body);
    Analyzer(else_symbols).visit_all(node.otherwise);

    loop_test(node, frame);
    visit(node.operands[1], frame);
    if (node.extended) node.place = find(body_symbols, "loop", function, node.line);
    enter(body_symbols, node.scope);
    enter(else_symbols, node.else_scope);
    Frame body_frame = inner(frame, body_symbols);
    body_frame.in_loop = true;
    visit(*node.operands[0], body_frame);
    visit_all(node.body, body_frame);
    visit_all(node.otherwise, inner(frame, else_symbols));
    if (node.recursive) node.routine.slots = own.slots;
  }

  // The test runs in the function around the loop, with a copy of the target of its own.
  void loop_test(Node& node, const Frame& frame) {
    if (!node.operands[2]) return;
    Symbols symbols(frame.symbols, *frame.function);
    Analyzer analyzer(symbols);
    analyzer.parameters(*node.operands[0]);
    analyzer.visit(*node.operands[2]);
    enter(symbols, node.test_scope);
    test_target(*node.operands[0], symbols, *frame.function);
    visit(node.operands[2], inner(frame, symbols));
  }

  static void test_target(Node& target, const Symbols& symbols, const Function& function) {
    if (target.kind == Kind::name) target.test_place = find(symbols, target.name, function, target.line);
    for (const NodePtr& item : target.operands) test_target(*item, symbols, function);
  }

  // A macro or call block; its defaults are the operands from first_default on.
  void callable(Node& node, const Frame& frame, size_t first_default) {
    Function function{frame.function, 0, node.line};
    Symbols symbols(frame.symbols, function);
    Analyzer analyzer(symbols);
    const auto analyze = [&] {
      analyzer.visit_all(node.parameters);
      for (size_t i = first_default; i < node.operands.size(); ++i) analyzer.visit(*node.operands[i]);
      analyzer.visit_all(node.body);
    };
    analyze();
    Routine& routine = node.routine;
    declare_special(node, symbols, node.operands.size() - first_default);
    analyze();
    enter(symbols, node.scope);
    const Frame body_frame = inner(frame, symbols);
    visit_all(node.parameters, body_frame);
    for (size_t i = first_default; i < node.operands.size(); ++i) visit(node.operands[i], body_frame);
    visit_all(node.body, body_frame);
    routine.slots = function.slots;
  }

  static void declare_special(Node& node, Symbols& symbols, size_t defaults) {
    Routine& routine = node.routine;
    std::set<std::string> named;
    for (const NodePtr& parameter : node.parameters) {
      named.insert(parameter->name);
      routine.parameters.push_back(symbols.own.at(parameter->name).slot);
    }
    routine.explicit_caller = named.count("caller") != 0;
    const std::set<std::string> used = Undeclared({"caller", "kwargs", "varargs"}).of(node.body);
    const auto declare = [&](const std::string& name) { routine.parameters.push_back(symbols.parameter(name)); };
    if (used.count("caller") != 0) {
      routine.uses_caller = true;
      if (!routine.explicit_caller) declare("caller");
      if (routine.explicit_caller) refuse_caller_without_default(node, defaults);
    }
    if (used.count("kwargs") != 0 && named.count("kwargs") == 0) routine.uses_kwargs = true, declare("kwargs");
    if (used.count("varargs") != 0 && named.count("varargs") == 0) routine.uses_varargs = true, declare("varargs");
  }

  static void refuse_caller_without_default(const Node& node, size_t defaults) {
    for (size_t i = 0; i + defaults < node.parameters.size(); ++i) {
      if (node.parameters[i]->name == "caller") {
        syntax_error(node.line, "the special parameter 'caller' must be omitted or be given a default");
      }
    }
  }

  void set_block(Node& node, const Frame& frame) {
    Symbols symbols(frame.symbols, *frame.function);
    Analyzer(symbols).visit_all(node.body);
    enter(symbols, node.scope);
    const Frame block_frame = inner(frame, symbols);
    visit_all(node.body, block_frame);
    visit(node.operands[0], frame);
    visit(node.operands[1], block_frame);
  }

  void filter_block(Node& node, const Frame& frame) {
    Symbols symbols(frame.symbols, *frame.function);
    Analyzer analyzer(symbols);
    analyzer.visit_all(node.body);
    analyzer.visit(*node.operands[0]);
    enter(symbols, node.scope);
    children(node, inner(frame, symbols));
  }

  void with(Node& node, const Frame& frame) {
    Symbols symbols(frame.symbols, *frame.function);
    Analyzer analyzer(symbols);
    for (size_t i = 0; i < node.operands.size(); i += 2) analyzer.visit(*node.operands[i]);
    analyzer.visit_all(node.body);
    enter(symbols, node.scope);
    const Frame with_frame = inner(frame, symbols);
    for (size_t i = 0; i < node.operands.size(); i += 2) visit(node.operands[i], with_frame);
    for (size_t i = 1; i < node.operands.size(); i += 2) visit(node.operands[i], frame);
    visit_all(node.body, with_frame);
  }
};

}  // namespace

Program resolve(Nodes body) { return Resolver().run(std::move(body)); }

}  // namespace expert::jinja
