#include "text/jinja_runtime.h"

#include <algorithm>

#include "text/jinja_filters.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_unicode.h"

namespace expert::jinja {

// Guards the machine's stack: templates recurse through macros, loops and chains of lazy filters.
class Runtime::Depth {
 public:
  explicit Depth(Runtime& runtime) : runtime_(runtime) {
    if (++runtime_.depth_ > runtime_.heap_.limits().depth) {
      --runtime_.depth_;
      raise("the template recurses deeper than {} levels", runtime_.heap_.limits().depth);
    }
    runtime_.heap_.step();
  }
  ~Depth() { --runtime_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Runtime& runtime_;
};

namespace {

// Puts a value back when the scope ends, an exception included.
template <typename T>
class Restore {
 public:
  Restore(T& place, T value) : place_(place), old_(place) { place_ = value; }
  ~Restore() { place_ = old_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& place_;
  T old_;
};

Source over_items(const std::vector<Value>& items) {
  return [&items, i = size_t{0}](Value& out) mutable { return i < items.size() && (out = items[i++], true); };
}

Source over_characters(Runtime& runtime, const std::string& text) {
  return [&runtime, &text, at = size_t{0}](Value& out) mutable {
    if (at >= text.size()) return false;
    const size_t start = at;
    next_char(text, at);
    out = runtime.heap().string(text.substr(start, at - start));
    return true;
  };
}

Source over_dict(Runtime& runtime, const Dict& dict, DictView::Part part) {
  return [&runtime, &dict, part, i = size_t{0}](Value& out) mutable {
    if (i >= dict.entries.size()) return false;
    const auto& [key, value] = dict.entries[i++];
    out = part == DictView::Part::keys     ? key
          : part == DictView::Part::values ? value
                                           : runtime.heap().tuple({key, value});
    return true;
  };
}

Source over_range(const Range& range) {
  return [start = range.start, step = range.step, left = range.length(), i = int64_t{0}](Value& out) mutable {
    if (i >= left) return false;
    out = Value::integer(start + step * i++);
    return true;
  };
}

}  // namespace

bool Loop::next(Value& item) {
  if (!after.is_missing()) {
    item = after;
    after = Value();
  } else if (!source(item)) {
    return false;
  }
  ++index0;
  before = current;
  current = item;
  return true;
}

const Value& Loop::peek() {
  if (after.is_missing() && !source(after)) after = Value();
  return after;
}

int64_t Loop::length() {
  if (length_ >= 0) return length_;
  if (has_length(iterable)) return length_ = jinja::length(iterable);
  auto rest = std::make_shared<std::vector<Value>>();
  for (Value item; source(item);) rest->push_back(item);
  source = [rest, i = size_t{0}](Value& out) mutable { return i < rest->size() && (out = (*rest)[i++], true); };
  return length_ = static_cast<int64_t>(rest->size()) + index0 + 1 + (after.is_missing() ? 0 : 1);
}

Runtime::Runtime(const Limits& limits, std::chrono::system_clock::time_point now) : heap_(limits), now_(now) {
  add_globals(*this);
}

std::string Runtime::run(const Program& program) {
  Restore running(Heap::running(), &heap_);
  auto& root = heap_.make<Activation>();
  root.slots.resize(program.routine.slots);
  activation_ = &root;
  std::string text;
  out_ = &text;
  try {
    enter(program.scope);
    execute(program.body);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("line {}: {}", line_, error.what()), error.hint());
  }
  return text;
}

// -- statements

void Runtime::write(std::string_view text) {
  if (text.size() > heap_.limits().output_bytes - std::min(out_->size(), heap_.limits().output_bytes)) {
    raise("the output exceeds {} bytes", heap_.limits().output_bytes);
  }
  heap_.charge(text.size());
  out_->append(text);
}

template <typename F>
Runtime::Flow Runtime::captured(std::string& text, F&& body) {
  Restore out(out_, &text);
  return body();
}

Runtime::Flow Runtime::execute(const Nodes& nodes) {
  for (const NodePtr& node : nodes) {
    const Flow flow = execute(*node);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Runtime::Flow Runtime::execute(const Node& node) {
  Depth depth(*this);
  line_ = node.line;
  switch (node.kind) {
    case Kind::data:
      write(node.constant.text());
      return Flow::next;
    case Kind::output:
      output(node);
      return Flow::next;
    case Kind::if_:
      return execute(truthy(evaluate(*node.operands[0])) ? node.body : node.otherwise);
    case Kind::for_:
      return for_loop(node);
    case Kind::set:
      check_namespaces(*node.operands[0]);
      assign(*node.operands[0], evaluate(*node.operands[1]));
      return Flow::next;
    case Kind::set_block:
      return set_block(node);
    case Kind::macro:
      slot(node.place) = make_macro(node, 0);
      return Flow::next;
    case Kind::call_block:
      call_block(node);
      return Flow::next;
    case Kind::filter_block:
      return filter_block(node);
    case Kind::with:
      return with(node);
    case Kind::break_:
      return Flow::leave_loop;
    case Kind::continue_:
      return Flow::next_turn;
    default:
      fail(ErrorCode::internal, "a statement of an unknown kind");
  }
}

void Runtime::output(const Node& node) {
  for (const NodePtr& part : node.operands) {
    const Value value = node.folded ? folded(*part) : evaluate(*part);
    if (value.is_string()) {
      write(value.text());
    } else {
      write(to_string(value));
    }
  }
}

// Jinja2 computes a constant output while it compiles, and there a slice of what has none is undefined; where that fails
// it leaves the expression to the rendering.
Value Runtime::folded(const Node& expression) {
  try {
    Restore folding(folding_, true);
    return evaluate(expression);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_request) throw;
  }
  return evaluate(expression);
}

Runtime::Flow Runtime::for_loop(const Node& node) {
  const Value iterable = evaluate(*node.operands[1]);
  if (node.recursive) {
    write(recursive_loop(node, iterable, 0, activation_));
    return Flow::next;
  }
  return run_loop(node, iterate(iterable), iterable, 0, nullptr);
}

std::string Runtime::recursive_loop(const Node& node, const Value& iterable, int64_t depth0, Activation* home) {
  Depth depth(*this);
  auto& activation = heap_.make<Activation>();
  heap_.charge(node.routine.slots * sizeof(Value));
  activation.parent = home;
  activation.slots.resize(node.routine.slots);
  Restore inner(activation_, &activation);
  std::string text;
  captured(text, [&] { return run_loop(node, iterate(iterable), iterable, depth0, home); });
  return text;
}

Runtime::Flow Runtime::run_loop(const Node& node, Source source, const Value& iterable, int64_t depth0,
                                Activation* home) {
  auto& loop = heap_.make<Loop>();
  loop.source = node.operands[2] ? filtered(node, std::move(source)) : std::move(source);
  if (!node.operands[2]) loop.iterable = iterable;
  loop.depth0 = depth0;
  loop.recursive = node.recursive ? &node : nullptr;
  loop.home = home;
  bool ran = false;
  for (Value item; loop.next(item);) {
    heap_.step();
    enter(node.scope);
    assign(*node.operands[0], item);
    if (node.extended) slot(node.place) = Value::of(Type::loop, &loop);
    const Flow flow = execute(node.body);
    if (flow == Flow::leave_loop) break;
    ran = ran || flow == Flow::next;
  }
  if (ran || node.otherwise.empty()) return Flow::next;
  enter(node.else_scope);
  return execute(node.otherwise);
}

// The items that pass the loop's own test. It runs in the function around the loop.
Source Runtime::filtered(const Node& node, Source source) {
  Activation* const around = node.recursive ? activation_->parent : activation_;
  return [this, &node, around, source = std::move(source), entered = false](Value& out) mutable {
    Restore outer(activation_, around);
    if (!entered) enter(node.test_scope);
    entered = true;
    while (source(out)) {
      heap_.step();
      assign(*node.operands[0], out, true);
      if (truthy(evaluate(*node.operands[2]))) return true;
    }
    return false;
  };
}

Runtime::Flow Runtime::set_block(const Node& node) {
  std::string text;
  const Flow flow = captured(text, [&] {
    enter(node.scope);
    return execute(node.body);
  });
  if (flow != Flow::next) return flow;
  Value value = heap_.string(std::move(text));
  if (node.operands[1]) {
    Restore input(block_text_, value);
    value = evaluate(*node.operands[1]);
  }
  assign(*node.operands[0], value);
  return Flow::next;
}

Runtime::Flow Runtime::filter_block(const Node& node) {
  std::string text;
  const Flow flow = captured(text, [&] {
    enter(node.scope);
    return execute(node.body);
  });
  if (flow != Flow::next) return flow;
  Restore input(block_text_, heap_.string(std::move(text)));
  write(to_string(evaluate(*node.operands[0])));
  return Flow::next;
}

Runtime::Flow Runtime::with(const Node& node) {
  enter(node.scope);
  for (size_t i = 0; i < node.operands.size(); i += 2) assign(*node.operands[i], evaluate(*node.operands[i + 1]));
  return execute(node.body);
}

void Runtime::call_block(const Node& node) {
  const Value caller = make_macro(node, 1);
  if (!node.operands[0]) return write(to_string(call_macro(caller.object<Macro>(), {})));  // {% generation %}
  const Node& call_node = *node.operands[0];
  const Value callee = evaluate(*call_node.operands[0]);
  Arguments given = arguments(call_node);
  for (const auto& [name, value] : given.keyword) {
    if (name == "caller") raise("call block with two values for the argument 'caller'");
  }
  given.keyword.emplace_back("caller", caller);
  write(to_string(call(callee, given)));
}

// -- variables

Value& Runtime::slot(const Place& place) {
  Activation* activation = activation_;
  for (uint16_t i = 0; i < place.hops; ++i) activation = activation->parent;
  return activation->slots[place.slot];
}

void Runtime::enter(const Scope& scope) {
  for (const ScopeEntry& entry : scope.entries) {
    Value value;
    if (entry.action == ScopeEntry::Action::alias) {
      value = slot(entry.from);
    } else if (entry.action == ScopeEntry::Action::context) {
      const auto found = variables_.find(entry.name);
      if (found != variables_.end()) value = found->second;
    }
    activation_->slots[entry.slot] = value;
  }
}

void Runtime::check_namespaces(const Node& target) {
  if (target.kind == Kind::namespace_reference && !slot(target.place).is(Type::name_space)) {
    raise("cannot assign attribute on non-namespace object");
  }
  for (const NodePtr& item : target.operands) check_namespaces(*item);
}

void Runtime::assign(const Node& target, const Value& value, bool for_test) {
  if (target.kind == Kind::name) {
    slot(for_test ? target.test_place : target.place) = value;
  } else if (target.kind == Kind::namespace_reference) {
    const Value& holder = slot(target.place);
    if (!holder.is(Type::name_space)) return assign_item(holder, heap_.string(target.attribute), value);
    if (target.attribute[0] == '_')
      raise("cannot store the underscore-prefixed attribute '{}' on a namespace", target.attribute);
    heap_.charge(sizeof(Value) * 8);
    holder.object<Namespace>().attributes->set(heap_.string(target.attribute), value);
  } else {
    unpack(target, value, for_test);
  }
}

// {% set x.y %}…{% endset %} asks for no namespace: Jinja writes x['y'], which a dict takes.
void Runtime::assign_item(const Value& holder, const Value& key, const Value& value) {
  if (!holder.is(Type::dict)) raise("'{}' object does not support item assignment", type_name(holder));
  heap_.charge(sizeof(Value) * 8);
  holder.dict().set(key, value);
}

void Runtime::unpack(const Node& target, const Value& value, bool for_test) {
  const size_t wanted = target.operands.size();
  std::vector<Value> items;
  Source source = iterate(value);
  for (Value item; items.size() <= wanted && source(item);) items.push_back(item);
  if (items.size() > wanted) raise("too many values to unpack (expected {})", wanted);
  if (items.size() < wanted) raise("not enough values to unpack (expected {}, got {})", wanted, items.size());
  for (size_t i = 0; i < wanted; ++i) assign(*target.operands[i], items[i], for_test);
}

// -- expressions

Value Runtime::evaluate_or_none(const NodePtr& node) { return node ? evaluate(*node) : Value::none(); }

Value Runtime::evaluate(const Node& node) {
  Depth depth(*this);
  const auto operand = [&](size_t i) { return evaluate(*node.operands[i]); };
  switch (node.kind) {
    case Kind::constant:
      return node.constant;
    case Kind::name:
      return name(node);
    case Kind::tuple:
    case Kind::list: {
      std::vector<Value> items;
      for (const NodePtr& item : node.operands) items.push_back(evaluate(*item));
      return node.kind == Kind::list ? heap_.list(std::move(items)) : heap_.tuple(std::move(items));
    }
    case Kind::dict:
      return dict(node);
    case Kind::getattr:
      return attribute(operand(0), node.attribute);
    case Kind::getitem:
      return getitem(node);
    case Kind::call: {
      const Value callee = operand(0);
      const Arguments given = arguments(node);
      line_ = node.line;
      return call(callee, given);
    }
    case Kind::filter: {
      const Value input = node.operands[0] ? operand(0) : block_text_;
      const Arguments given = arguments(node);
      line_ = node.line;
      return call_filter(node.name, input, given);
    }
    case Kind::test: {
      const Value input = operand(0);
      return Value::boolean(call_test(node.name, input, arguments(node)));
    }
    case Kind::conditional:
      if (truthy(operand(0))) return operand(1);
      if (node.operands[2]) return operand(2);
      return heap_.undefined("the inline if-expression evaluated to false and no else section was defined.");
    case Kind::logical_or: {
      const Value left = operand(0);
      return truthy(left) ? left : operand(1);
    }
    case Kind::logical_and: {
      const Value left = operand(0);
      return truthy(left) ? operand(1) : left;
    }
    case Kind::logical_not:
      return Value::boolean(!truthy(operand(0)));
    case Kind::negative:
      return negate(operand(0));
    case Kind::positive:
      return plus(operand(0));
    case Kind::concat:
      return concat(node);
    case Kind::compare:
      return comparison(node);
    default: {
      const Value left = operand(0), right = operand(1);
      const bool negated = node.negated_base && left.is_number() && left.as_double() < 0;
      return negated ? negate(binary(*this, node.kind, negate(left), right)) : binary(*this, node.kind, left, right);
    }
  }
}

Value Runtime::name(const Node& node) {
  const Value& value = slot(node.place);
  if (!value.is_missing()) return value;
  return heap_.undefined(fmt::format("'{}' is undefined", node.name));
}

Value Runtime::dict(const Node& node) {
  const Value value = heap_.dict();
  heap_.charge(node.operands.size() * sizeof(Value) * 4);
  for (size_t i = 0; i < node.operands.size(); i += 2) {
    const Value key = evaluate(*node.operands[i]);
    const Value entry = evaluate(*node.operands[i + 1]);
    if (!hashable(key)) raise("unhashable type: '{}'", type_name(key));
    value.dict().set(key, entry);
  }
  return value;
}

Value Runtime::getitem(const Node& node) {
  const Value object = evaluate(*node.operands[0]);
  const Node& index = *node.operands[1];
  if (index.kind != Kind::slice) return item(object, evaluate(index));
  const Value start = evaluate_or_none(index.operands[0]);
  const Value stop = evaluate_or_none(index.operands[1]);
  const Value step = evaluate_or_none(index.operands[2]);
  if (folding_ && !sliceable(object)) return heap_.undefined(fmt::format("'{}' has no slices", type_name(object)));
  return slice(*this, object, start, stop, step);
}

Value Runtime::comparison(const Node& node) {
  Value left = evaluate(*node.operands[0]);
  for (size_t i = 0; i < node.comparisons.size(); ++i) {
    const Value right = evaluate(*node.operands[i + 1]);
    if (!compare_with(*this, node.comparisons[i], left, right)) return Value::boolean(false);
    left = right;
  }
  return Value::boolean(true);
}

Value Runtime::concat(const Node& node) {
  std::string text;
  for (const NodePtr& part : node.operands) {
    text += to_string(evaluate(*part));
    if (text.size() > heap_.limits().string_bytes) raise("a string exceeds {} bytes", heap_.limits().string_bytes);
  }
  return heap_.string(std::move(text));
}

Arguments Runtime::arguments(const Node& node) {
  Arguments given;
  for (const NodePtr& argument : node.arguments) given.positional.push_back(evaluate(*argument));
  for (const auto& [key, value] : node.keywords) given.keyword.emplace_back(key, evaluate(*value));
  if (node.argument_list) {
    for (const Value& value : collect(evaluate(*node.argument_list))) given.positional.push_back(value);
  }
  if (node.argument_map) {
    const Value map = evaluate(*node.argument_map);
    if (!map.is(Type::dict)) raise("argument after ** must be a mapping, not {}", type_name(map));
    for (const auto& [key, value] : map.dict().entries) {
      if (!key.is_string()) raise("keywords must be strings");
      for (const auto& other : given.keyword) {
        if (other.first == key.text()) raise("got multiple values for keyword argument '{}'", other.first);
      }
      given.keyword.emplace_back(key.text(), value);
    }
  }
  return given;
}

// -- macros

Value Runtime::make_macro(const Node& node, size_t first_default) {
  auto& macro = heap_.make<Macro>();
  macro.name = node.name;
  macro.node = &node;
  macro.first_default = first_default;
  macro.home = activation_;
  return Value::of(Type::macro, &macro);
}

Value Runtime::call_macro(Macro& macro, const Arguments& given) {
  Depth depth(*this);
  const int call_line = line_;
  auto& activation = heap_.make<Activation>();
  heap_.charge(macro.node->routine.slots * sizeof(Value));
  activation.parent = macro.home;
  activation.slots.resize(macro.node->routine.slots);
  bind_macro(macro, given, activation.slots);
  Restore inner(activation_, &activation);
  std::string text;
  captured(text, [&] {
    enter(macro.node->scope);
    fill_defaults(macro);
    return execute(macro.node->body);
  });
  line_ = call_line;
  return heap_.string(std::move(text));
}

// As Jinja2's Macro.__call__ sorts its arguments.
void Runtime::bind_macro(const Macro& macro, const Arguments& given, std::vector<Value>& slots) {
  const Routine& routine = macro.node->routine;
  const Nodes& parameters = macro.node->parameters;
  std::vector<std::pair<std::string, Value>> keyword = given.keyword;
  const auto take = [&](const std::string& name) {
    const auto found =
        std::find_if(keyword.begin(), keyword.end(), [&](const auto& entry) { return entry.first == name; });
    if (found == keyword.end()) return Value();
    const Value value = found->second;
    keyword.erase(found);
    return value;
  };
  bool found_caller = given.positional.size() >= parameters.size() && routine.explicit_caller;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const bool positional = i < given.positional.size();
    slots[routine.parameters[i]] = positional ? given.positional[i] : take(parameters[i]->name);
    if (!positional && parameters[i]->name == "caller") found_caller = true;
  }
  size_t next = parameters.size();
  if (routine.uses_caller && !found_caller) {
    Value caller = take("caller");
    if (caller.is_missing() || caller.is_none()) caller = heap_.undefined("No caller defined");
    slots[routine.parameters[next++]] = caller;
  }
  if (routine.uses_kwargs) {
    const Value rest = heap_.dict();
    for (const auto& [name, value] : keyword) rest.dict().set(heap_.string(name), value);
    slots[routine.parameters[next++]] = rest;
  } else if (!keyword.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", macro.name, keyword[0].first);
  }
  const size_t extra = std::min(given.positional.size(), parameters.size());
  if (routine.uses_varargs) {
    slots[routine.parameters[next]] =
        heap_.tuple({given.positional.begin() + static_cast<ptrdiff_t>(extra), given.positional.end()});
  } else if (given.positional.size() > parameters.size()) {
    raise("macro '{}' takes not more than {} argument(s)", macro.name, parameters.size());
  }
}

void Runtime::fill_defaults(const Macro& macro) {
  const Node& node = *macro.node;
  const size_t defaults = node.operands.size() - macro.first_default;
  const size_t first = node.parameters.size() - defaults;
  for (size_t i = 0; i < node.parameters.size(); ++i) {
    const uint16_t place = node.routine.parameters[i];
    if (!activation_->slots[place].is_missing()) continue;
    const Value value = i >= first
                            ? evaluate(*node.operands[macro.first_default + i - first])
                            : heap_.undefined(fmt::format("parameter '{}' was not provided", node.parameters[i]->name));
    activation_->slots[place] = value;
  }
}

// -- what filters and methods use too

Source Runtime::iterate(const Value& value) {
  switch (value.type()) {
    case Type::undefined:
      return [](Value&) { return false; };
    case Type::string:
      return over_characters(*this, value.text());
    case Type::list:
    case Type::tuple:
      return over_items(value.items());
    case Type::dict:
      return over_dict(*this, value.dict(), DictView::Part::keys);
    case Type::dict_view:
      return over_dict(*this, *value.object<DictView>().dict, value.object<DictView>().part);
    case Type::range:
      return over_range(value.object<Range>());
    case Type::iterator: {
      auto& iterator = value.object<Iterator>();
      return [this, &iterator](Value& out) {
        Depth depth(*this);
        return iterator.next(out);
      };
    }
    case Type::loop: {  // goes on with the same items: (item, loop), and the loop moves
      auto& loop = value.object<Loop>();
      return [this, value, &loop](Value& out) {
        Depth depth(*this);
        Value item;
        if (!loop.next(item)) return false;
        out = heap_.tuple({item, value});
        return true;
      };
    }
    default:
      raise("'{}' object is not iterable", type_name(value));
  }
}

std::vector<Value> Runtime::collect(const Value& value) {
  std::vector<Value> items;
  Source source = iterate(value);
  for (Value item; source(item);) {
    heap_.step();
    heap_.charge(sizeof(Value));
    items.push_back(item);
  }
  return items;
}

Value Runtime::attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) raise_undefined(object);
  const Value found = find_attribute(*this, object, name);
  if (!found.is_missing()) return found;
  if (object.is(Type::dict)) {
    if (const Value* entry = object.dict().find(name)) return *entry;
  }
  return heap_.undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), name));
}

Value Runtime::item(const Value& object, const Value& key) {
  if (object.is_undefined()) raise_undefined(object);
  if (object.is(Type::dict) && hashable(key)) {
    if (const Value* entry = object.dict().find(key)) return *entry;
  } else if (key.is_whole()) {
    const Value found = at_index(*this, object, key.as_integer());
    if (!found.is_missing()) return found;
  }
  if (key.is_string()) {
    const Value found = find_attribute(*this, object, key.text());
    if (!found.is_missing()) return found;
    return heap_.undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), key.text()));
  }
  return heap_.undefined(fmt::format("{} object has no such element", type_name(object)));
}

Value Runtime::call(const Value& callee, const Arguments& given) {
  switch (callee.type()) {
    case Type::undefined:
      raise_undefined(callee);
    case Type::macro:
      return call_macro(callee.object<Macro>(), given);
    case Type::function:
      return callee.object<Function>().call(*this, given);
    case Type::joiner: {
      given.bind("joiner", {}, 0);
      auto& joiner = callee.object<Joiner>();
      if (joiner.used) return joiner.separator;
      joiner.used = true;
      return heap_.string("");
    }
    case Type::loop: {
      auto& loop = callee.object<Loop>();
      const Value iterable = given.bind("loop", {"iterable"}, 1)[0];
      if (loop.recursive == nullptr) raise("The loop must have the 'recursive' marker to be called recursively.");
      return heap_.string(recursive_loop(*loop.recursive, iterable, loop.depth0 + 1, loop.home));
    }
    default:
      raise("'{}' object is not callable", type_name(callee));
  }
}

Value Runtime::call_filter(const std::string& name, const Value& input, const Arguments& given) {
  const Filter filter = find_filter(name);
  if (filter == nullptr) raise("No filter named '{}'.", name);
  return filter(*this, input, given);
}

bool Runtime::call_test(const std::string& name, const Value& input, const Arguments& given) {
  const Test test = find_test(name);
  if (test == nullptr) raise("No test named '{}'.", name);
  return test(*this, input, given);
}

bool has_length(const Value& value) {
  switch (value.type()) {
    case Type::undefined:
    case Type::string:
    case Type::list:
    case Type::tuple:
    case Type::dict:
    case Type::range:
    case Type::dict_view:
    case Type::loop:
      return true;
    default:
      return false;
  }
}

int64_t length(const Value& value) {
  switch (value.type()) {
    case Type::undefined:
      return 0;
    case Type::string:
      return static_cast<int64_t>(value.string().length);
    case Type::list:
    case Type::tuple:
      return static_cast<int64_t>(value.items().size());
    case Type::dict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Type::dict_view:
      return static_cast<int64_t>(value.object<DictView>().dict->entries.size());
    case Type::range:
      return value.object<Range>().length();
    case Type::loop:
      return value.object<Loop>().length();
    default:
      raise("object of type '{}' has no len()", type_name(value));
  }
}

bool iterable(const Value& value) { return has_length(value) || value.is(Type::iterator); }

}  // namespace expert::jinja
