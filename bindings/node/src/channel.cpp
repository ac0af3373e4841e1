#include "channel.h"

namespace expert_node {

Channel::Channel(Napi::Env env) : function_(Function::New(env, "expert", 0, 1)) { function_.Unref(env); }

void Channel::post(Event event) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  auto owned = std::make_unique<Event>(std::move(event));
  if (function_.NonBlockingCall(owned.get()) == napi_ok) owned.release();
}

void Channel::hold(Napi::Env env, bool awaited) {
  if (awaited == held_) return;
  held_ = awaited;
  if (awaited) {
    function_.Ref(env);
  } else {
    function_.Unref(env);
  }
}

void Channel::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

// An empty env: the environment ended with this event in its queue.
void Channel::deliver(Napi::Env env, Napi::Function /*unused*/, std::nullptr_t* /*context*/, Event* event) {
  const std::unique_ptr<Event> owned(event);
  if (static_cast<napi_env>(env) == nullptr) return;
  const Napi::HandleScope scope(env);
  try {
    try {
      (*event)(env);
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
  } catch (...) {
    // The environment is being terminated: nobody is left to hear it.
  }
}

}  // namespace expert_node
