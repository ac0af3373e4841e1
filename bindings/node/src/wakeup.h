// The eventfd by which the engine wakes the event loop of one environment: a thread in between would cost as much as all
// else that the binding does. Linux, with Node's own headers; elsewhere there is none, and requests are listened to.
#pragma once

#include <napi.h>

namespace expert_node {

class Wakeup {
 public:
  using Wake = void (*)(Napi::Env env);

  // NULL where it cannot be. It keeps nothing alive, and ends with the environment, which frees it.
  static Wakeup* open(Napi::Env env, Wake wake);

  int event_fd() const { return event_fd_; }

 private:
  struct Loop;

  Wakeup(Napi::Env env, Wake wake) : env_(env), wake_(wake) {}
  void woken();

  Napi::Env env_;
  Wake wake_;
  int event_fd_ = -1;
  Loop* loop_ = nullptr;
};

}  // namespace expert_node
