// The way from any thread to the one thread of a JavaScript environment (the main one, or a worker's).
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>

namespace expert_node {

// Runs on the environment's thread.
using Event = std::function<void(Napi::Env)>;

class Channel {
 public:
  // To be opened on the environment's thread. It keeps nothing alive until hold() says that answers are awaited.
  explicit Channel(Napi::Env env);
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // From any thread; dropped without a trace when the environment has ended.
  void post(Event event);

  // On the environment's thread: whether its event loop must wait for events.
  void hold(Napi::Env env, bool awaited);
  // Before the environment ends: a thread-safe function may not be called while Node destroys it.
  void close();

 private:
  static void deliver(Napi::Env env, Napi::Function unused, std::nullptr_t* context, Event* event);
  using Function = Napi::TypedThreadSafeFunction<std::nullptr_t, Event, deliver>;

  std::mutex mutex_;
  bool closed_ = false;
  bool held_ = false;
  Function function_;
};

}  // namespace expert_node
