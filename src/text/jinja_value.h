// Values of a running template, with Python's meaning. All objects of one rendering live in its Heap and die with it,
// so that cycles (a macro in the scope it closes over, a namespace that holds itself) need no collector.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "text/template_limits.h"

namespace expert::jinja {

// A run-time failure of the template: what Python would raise as TypeError, UndefinedError, ...
template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::invalid_request, fmt::format(format, std::forward<Args>(args)...));
}

enum class Type : uint8_t {
  missing,  // no value at all: an unset variable or an argument not given; never seen by a template
  undefined,
  none,
  boolean,
  integer,
  floating,
  string,
  list,
  tuple,
  dict,
  range,
  iterator,  // consumed while it is read: what map, select, reverse, ... give
  dict_view,
  name_space,
  macro,
  function,
  loop,
  cycler,
  joiner,
};

struct Object {
  virtual ~Object() = default;
};
struct String;
struct List;
struct Dict;
struct Range;
struct Iterator;
struct DictView;
struct Namespace;
struct Macro;
struct Function;
struct Loop;
struct Cycler;
struct Joiner;

class Value {
 public:
  Value() = default;
  static Value none() { return Value(Type::none); }
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value floating(double d);
  // message: what an operation on the undefined value fails with; outlives the value.
  static Value undefined(const String* message);
  static Value of(Type type, Object* object);

  Type type() const { return type_; }
  bool is(Type type) const { return type_ == type; }
  bool is_missing() const { return type_ == Type::missing; }
  bool is_undefined() const { return type_ == Type::undefined; }
  bool is_none() const { return type_ == Type::none; }
  bool is_string() const { return type_ == Type::string; }
  bool is_sequence() const { return type_ == Type::list || type_ == Type::tuple; }
  bool is_whole() const { return type_ == Type::integer || type_ == Type::boolean; }  // Python's int
  bool is_number() const { return is_whole() || type_ == Type::floating; }

  bool as_boolean() const { return boolean_; }
  int64_t as_integer() const { return type_ == Type::boolean ? int64_t{boolean_} : integer_; }
  double as_double() const { return type_ == Type::floating ? floating_ : static_cast<double>(as_integer()); }
  const std::string& text() const;
  const String& string() const;
  const std::vector<Value>& items() const;  // list and tuple
  Dict& dict() const;
  template <typename T>
  T& object() const {
    return static_cast<T&>(*object_);
  }
  const Object* identity() const { return object_; }

 private:
  explicit Value(Type type) : type_(type) {}
  Type type_ = Type::missing;
  union {
    bool boolean_;
    int64_t integer_ = 0;
    double floating_;
    Object* object_;
  };
};

struct String : Object {
  std::string text;
  size_t length = 0;    // in code points
  bool markup = false;  // made by escape or safe: joining it with a plain string escapes the latter
  bool ascii() const { return length == text.size(); }
};

struct List : Object {
  std::vector<Value> items;
  bool group = false;  // a tuple of groupby, whose parts are also called grouper and list
};

struct ValueHash {
  size_t operator()(const Value& value) const;
};
struct ValueEqual {
  bool operator()(const Value& a, const Value& b) const;
};

// Keeps the order of insertion, as Python's does.
struct Dict : Object {
  std::vector<std::pair<Value, Value>> entries;
  const Value* find(const Value& key) const;  // the key is hashable
  const Value* find(std::string_view key) const;
  void set(const Value& key, const Value& value);

 private:
  std::unordered_map<Value, size_t, ValueHash, ValueEqual> index_;
};

struct Range : Object {
  int64_t start = 0, stop = 0, step = 1;
  int64_t length() const;
};

struct Iterator : Object {
  std::function<bool(Value&)> next;  // false at the end
};

struct DictView : Object {
  enum class Part : uint8_t { keys, values, items };
  Dict* dict = nullptr;
  Part part = Part::keys;
};

struct Namespace : Object {
  Dict* attributes = nullptr;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;

  // Sorts the arguments into the named parameters; those not given are missing. An empty name is positional only.
  // Fails on too many, unknown, doubled or (below `required`) absent ones.
  std::vector<Value> bind(std::string_view function, std::initializer_list<std::string_view> names,
                          size_t required) const;
  void refuse_keywords(std::string_view function) const;
};

class Runtime;
struct Function : Object {
  std::string name;
  std::function<Value(Runtime&, const Arguments&)> call;
};

struct Cycler : Object {
  std::vector<Value> items;
  size_t position = 0;
};

struct Joiner : Object {
  Value separator;
  bool used = false;
};

using Limits = TemplateLimits;

class Heap {
 public:
  explicit Heap(const Limits& limits) : limits_(limits) {}
  const Limits& limits() const { return limits_; }

  Value string(std::string text, bool markup = false);
  Value list(std::vector<Value> items);
  Value tuple(std::vector<Value> items);
  Value dict();
  Value iterator(std::function<bool(Value&)> next);
  Value undefined(std::string message);
  Value function(std::string name, std::function<Value(Runtime&, const Arguments&)> call);
  template <typename T>
  T& make() {
    charge(sizeof(T) + sizeof(void*));
    auto owned = std::make_unique<T>();
    T& object = *owned;
    objects_.push_back(std::move(owned));
    return object;
  }

  void charge(uint64_t bytes);  // before allocating
  void step(uint64_t count = 1);
  // The heap of the rendering on this thread, or null: comparing and printing count their steps in it.
  static Heap*& running();

 private:
  Limits limits_;
  uint64_t bytes_ = 0;
  uint64_t steps_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

std::string_view type_name(const Value& value);  // Python's name of it, for messages
bool truthy(const Value& value);
bool equal(const Value& a, const Value& b);
bool hashable(const Value& value);
bool identical(const Value& a, const Value& b);  // Python's `is`
// -1, 0, 1, or 2 where a NaN makes every comparison false; fails where Python has no order between the two.
int compare(const Value& a, const Value& b, std::string_view op = "<");
bool less(const Value& a, const Value& b);
std::string to_string(const Value& value);  // str()
std::string repr(const Value& value);
std::string in_quotes(std::string_view text);  // repr() of a string
std::string format_double(double value);    // repr() of a float
[[noreturn]] void raise_undefined(const Value& value);
std::string escape_html(std::string_view text);

}  // namespace expert::jinja
