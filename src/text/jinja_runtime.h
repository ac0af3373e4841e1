// One rendering: variables, output and the operations that need them. Not thread-safe; every rendering has its own.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_resolver.h"

namespace expert::jinja {

using Source = std::function<bool(Value&)>;  // gives the next item, false at the end

// The variables of a running function. A macro keeps the one it was defined in.
struct Activation : Object {
  Activation* parent = nullptr;
  std::vector<Value> slots;
};

struct Macro : Object {
  std::string name;  // empty: a call block
  const Node* node = nullptr;
  size_t first_default = 0;  // among the node's operands
  Activation* home = nullptr;
};

struct Loop : Object {
  Source source;
  Value iterable;
  Value before, current, after;  // after: peeked, missing when not
  Value last_changed;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  const Node* recursive = nullptr;
  Activation* home = nullptr;

  bool next(Value& item);
  const Value& peek();
  int64_t length();

 private:
  int64_t length_ = -1;
};

class Runtime {
 public:
  Runtime(const Limits& limits, std::chrono::system_clock::time_point now);

  Heap& heap() { return heap_; }
  std::chrono::system_clock::time_point now() const { return now_; }
  void set_variable(std::string name, Value value) { variables_[std::move(name)] = value; }
  std::string run(const Program& program);

  // Python's iter(), list(), len(), obj.name, obj[key], obj(...), as Jinja2's sandbox allows them.
  Source iterate(const Value& value);
  std::vector<Value> collect(const Value& value);
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  Value call(const Value& callee, const Arguments& arguments);
  Value call_filter(const std::string& name, const Value& input, const Arguments& arguments);
  bool call_test(const std::string& name, const Value& input, const Arguments& arguments);

 private:
  enum class Flow : uint8_t { next, leave_loop, next_turn };
  class Depth;

  Flow execute(const Nodes& nodes);
  Flow execute(const Node& node);
  void output(const Node& node);
  Value folded(const Node& expression);
  Flow for_loop(const Node& node);
  Flow run_loop(const Node& node, Source source, const Value& iterable, int64_t depth0, Activation* home);
  std::string recursive_loop(const Node& node, const Value& iterable, int64_t depth0, Activation* home);
  Source filtered(const Node& node, Source source);
  Flow set_block(const Node& node);
  Flow filter_block(const Node& node);
  Flow with(const Node& node);
  void call_block(const Node& node);

  void check_namespaces(const Node& target);
  void assign(const Node& target, const Value& value, bool for_test = false);
  void assign_item(const Value& holder, const Value& key, const Value& value);
  void unpack(const Node& target, const Value& value, bool for_test);
  void enter(const Scope& scope);
  Value& slot(const Place& place);

  Value evaluate(const Node& node);
  Value evaluate_or_none(const NodePtr& node);
  Value name(const Node& node);
  Value dict(const Node& node);
  Value getitem(const Node& node);
  Value comparison(const Node& node);
  Value concat(const Node& node);
  Arguments arguments(const Node& node);
  Value call_macro(Macro& macro, const Arguments& given);
  Value make_macro(const Node& node, size_t first_default);
  void bind_macro(const Macro& macro, const Arguments& given, std::vector<Value>& slots);
  void fill_defaults(const Macro& macro);

  void write(std::string_view text);
  template <typename F>
  Flow captured(std::string& text, F&& body);

  Heap heap_;
  std::chrono::system_clock::time_point now_;
  std::unordered_map<std::string, Value> variables_;
  Activation* activation_ = nullptr;
  std::string* out_ = nullptr;
  Value block_text_;  // what the filter of a filter block or set block is applied to
  bool folding_ = false;  // within folded()
  int line_ = 1;
  size_t depth_ = 0;
};

int64_t length(const Value& value);  // len(), fails where Python's would
bool has_length(const Value& value);
bool iterable(const Value& value);

}  // namespace expert::jinja
