// What belongs to one JavaScript environment: promises that wait for a thread, callbacks, running requests.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "channel.h"
#include "failure.h"
#include "pool.h"
#include "wakeup.h"

namespace expert_node {

// Made on a worker's thread, turned into a value on JavaScript's.
using Convert = std::function<Napi::Value(Napi::Env)>;
using Work = std::function<Convert()>;
enum class Place { pool, thread };

// Set from JavaScript, read by a call that runs.
using Flag = std::shared_ptr<std::atomic<bool>>;

class Running;

struct ToldExpert {
  std::string name;
  std::string version;
  float weight;
};

class Addon {
 public:
  explicit Addon(Napi::Env env);
  ~Addon();
  static Addon& of(Napi::Env env) { return *env.GetInstanceData<Addon>(); }

  // Runs `work` elsewhere; the promise gets its value or its failure.
  Napi::Value promise(Napi::Env env, Place place, Work work);

  // Keeps a callback of JavaScript until drop(). A silent one does not keep the process alive.
  uint64_t keep(const Napi::Function& callback, bool silent = false);
  void drop(Napi::Env env, uint64_t id);
  // Calls it, when it is still kept.
  void call(Napi::Env env, uint64_t id, const std::vector<napi_value>& arguments);

  Napi::Value error(Napi::Env env, const Failure& failure) const;
  void set_error_factory(const Napi::Function& factory) { make_error_ = Napi::Persistent(factory); }

  const std::shared_ptr<Channel>& channel() const { return channel_; }

  // What lib/running.js hears of requests: (id, error, …).
  void set_listener(const Napi::Function& listener) { listener_ = Napi::Persistent(listener); }
  Napi::Value listener() const { return listener_.Value(); }
  // Requests that run; they keep the process alive, and are cancelled when the environment ends.
  uint64_t add(Napi::Env env, std::shared_ptr<Running> running);
  std::shared_ptr<Running> find(uint64_t id) const;
  // By which a request tells its end; -1: none.
  int end_fd() const { return wakeup_ != nullptr ? wakeup_->event_fd() : -1; }
  void remove(Napi::Env env, uint64_t id);

  // Memory that JavaScript sees too: numbers on their way in, and out.
  Napi::Value shared_numbers(Napi::Env env, size_t count, double*& numbers);
  double* request_numbers = nullptr;
  double* result_figures = nullptr;
  std::vector<ToldExpert> told_experts;  // of the latest result that had any: lib/results.js knows them still

 private:
  void settle(Napi::Env env, uint64_t id, const Convert& convert, const std::optional<Failure>& failure);
  void update_hold(Napi::Env env);
  // A request that signals its end has ended.
  static void wake(Napi::Env env);
  static void end(Addon* addon);

  struct Kept {
    Napi::FunctionReference function;
    bool silent;
  };

  Napi::Env env_;
  std::shared_ptr<Channel> channel_;
  uint64_t next_id_ = 1;
  size_t awaited_ = 0;
  std::unordered_map<uint64_t, Napi::Promise::Deferred> promises_;
  std::unordered_map<uint64_t, Kept> callbacks_;
  std::unordered_map<uint64_t, std::shared_ptr<Running>> running_;
  Wakeup* wakeup_;
  std::vector<Napi::Reference<Napi::ArrayBuffer>> buffers_;
  Napi::FunctionReference listener_;
  Napi::FunctionReference make_error_;
};

// Converters that most calls need.
inline Convert nothing() {
  return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
}
Convert string_of(Text text, size_t length);
// `call(&text)`: a C function that gives NUL-terminated text.
template <typename Call>
Convert text_from(Call&& call) {
  char* given = nullptr;
  check(call(&given));
  return string_of(Text(given), std::char_traits<char>::length(given));
}

}  // namespace expert_node
