// The parsed template. One node type: what each kind keeps where is the table below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace expert::jinja {

// clang-format off
enum class Kind : uint8_t {
  // expressions            name          operands                       elsewhere
  constant,              //                                              constant
  name,                  // variable                                     use, place
  namespace_reference,   // namespace                                    attribute, place
  tuple, list,           //               items
  dict,                  //               key, value, key, value, ...
  getattr,               //               object                         attribute
  getitem,               //               object, index (or slice)
  slice,                 //               start, stop, step (each may be null)
  call,                  //               callee                         arguments
  filter,                // filter        input (null: the block's text) arguments
  test,                  // test          input                          arguments
  conditional,           //               condition, then, else or null
  logical_or, logical_and, logical_not, negative, positive,  //  operands
  add, subtract, multiply, divide, floor_divide, modulo, power,  //  left, right
  concat,                //               parts
  compare,               //               first, then one per operator   comparisons
  // statements
  data,                  //                                              constant
  output,                //               expressions and data
  if_,                   //               condition                      body, otherwise (elif: one nested if_)
  for_,                  //               target, iterable, test or null body, otherwise, scope (and scopes of test, otherwise)
  set,                   //               target, value
  set_block,             //               target, filter or null         body, scope
  macro,                 // macro         defaults of the last parameters body, parameters, scope
  call_block,            //               call (null: {% generation %}),  body, parameters, scope
                         //               then the defaults
  filter_block,          //               filter                         body, scope
  with,                  //               target, value, target, value   body, scope
  break_, continue_,
};
// clang-format on

enum class Use : uint8_t { load, store, parameter };
enum class Comparison : uint8_t { eq, ne, lt, le, gt, ge, in, not_in };

// Where a variable lives: in the slot of an activation (of the template, a macro, ...), `hops` functions outwards.
struct Place {
  uint16_t hops = 0;
  uint16_t slot = 0;
};

// What happens to a scope's variables when it is entered; the rules are Jinja's compiler's.
struct ScopeEntry {
  enum class Action : uint8_t { unset, alias, context } action = Action::unset;
  uint16_t slot = 0;
  Place from;        // alias: the variable of an outer scope whose value it starts with
  std::string name;  // context: the variable of the rendering
};

struct Scope {
  std::vector<ScopeEntry> entries;
};

// A body with variables of its own lifetime: the template, a macro, a call block, a recursive loop.
struct Routine {
  uint16_t slots = 0;
  std::vector<uint16_t> parameters;  // slots, in order: named ones, then caller, kwargs, varargs where used
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  bool explicit_caller = false;
};

struct Node;
using NodePtr = std::unique_ptr<Node>;
using Nodes = std::vector<NodePtr>;

struct Node {
  Kind kind;
  Use use = Use::load;
  bool recursive = false;  // for_
  bool negated_base =
      false;  // power: Jinja2 writes a negative constant base without brackets, so (-2) ** x is -(2 ** x)
  bool folded = false;  // output: a constant with a slice, which Jinja2 computes while it compiles
  int line = 1;
  int depth = 1;  // height of the expression below
  std::string name;
  std::string attribute;
  Nodes operands;
  std::vector<std::pair<std::string, NodePtr>> keywords;  // call, filter, test: named arguments
  Nodes arguments;                                        // positional ones
  NodePtr argument_list, argument_map;                    // *x and **x
  std::vector<Comparison> comparisons;
  Value constant;
  Nodes parameters;  // names
  Nodes body, otherwise;

  // Filled by the resolver.
  Place place;            // name, namespace_reference; macro: where it is stored; for_: the variable `loop`
  Place test_place;       // name as the target of a for_ with a test: its copy that the test sees
  bool extended = false;  // for_: the body uses `loop`
  Scope scope, test_scope, else_scope;
  Routine routine;  // macro, call_block, for_ when recursive
};

// The children in the order Jinja2 visits them, which its scoping rules depend on.
template <typename NodeT, typename F>
void for_each_child(NodeT& node, F&& f) {  // NodeT: Node or const Node
  const auto visit = [&](const NodePtr& child) {
    if (child) f(*child);
  };
  const auto visit_all = [&](const Nodes& children) {
    for (const NodePtr& child : children) visit(child);
  };
  switch (node.kind) {
    case Kind::for_:
      visit(node.operands[0]), visit(node.operands[1]);
      visit_all(node.body), visit_all(node.otherwise), visit(node.operands[2]);
      return;
    case Kind::macro:
      visit_all(node.parameters), visit_all(node.operands), visit_all(node.body);
      return;
    case Kind::call_block:
      visit(node.operands[0]), visit_all(node.parameters);
      for (size_t i = 1; i < node.operands.size(); ++i) visit(node.operands[i]);
      visit_all(node.body);
      return;
    case Kind::filter_block:
      visit_all(node.body), visit_all(node.operands);
      return;
    case Kind::with:
      for (size_t i = 0; i < node.operands.size(); i += 2) visit(node.operands[i]);
      for (size_t i = 1; i < node.operands.size(); i += 2) visit(node.operands[i]);
      visit_all(node.body);
      return;
    default:
      visit_all(node.operands), visit_all(node.arguments);
      for (const auto& [name, value] : node.keywords) visit(value);
      visit(node.argument_list), visit(node.argument_map);
      visit_all(node.body), visit_all(node.otherwise);
  }
}

}  // namespace expert::jinja
