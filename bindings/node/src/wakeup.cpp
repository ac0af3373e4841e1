#include "wakeup.h"

#include <memory>

#if defined(__linux__) && __has_include(<uv.h>)
#include <sys/eventfd.h>
#include <unistd.h>
#include <uv.h>
#define EXPERT_NODE_WAKEUP 1
#endif

namespace expert_node {

#ifdef EXPERT_NODE_WAKEUP

struct Wakeup::Loop {
  uv_poll_t poll{};
  napi_async_cleanup_hook_handle hook = nullptr;

  // Before the environment ends. The loop lets go of a handle in its own time.
  static void end(napi_async_cleanup_hook_handle /*hook*/, void* wakeup) {
    Loop& loop = *static_cast<Wakeup*>(wakeup)->loop_;
    uv_close(reinterpret_cast<uv_handle_t*>(&loop.poll), [](uv_handle_t* handle) {
      const std::unique_ptr<Wakeup> owned(static_cast<Wakeup*>(handle->data));
      const std::unique_ptr<Loop> closed(owned->loop_);
      ::close(owned->event_fd_);
      static_cast<void>(napi_remove_async_cleanup_hook(closed->hook));
    });
  }
};

Wakeup* Wakeup::open(Napi::Env env, Wake wake) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return nullptr;
  std::unique_ptr<Wakeup> made(new Wakeup(env, wake));
  auto own = std::make_unique<Loop>();
  made->event_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (made->event_fd_ < 0) return nullptr;
  if (uv_poll_init(loop, &own->poll, made->event_fd_) != 0) {
    ::close(made->event_fd_);
    return nullptr;
  }
  made->loop_ = own.release();
  made->loop_->poll.data = made.get();
  const auto readable = [](uv_poll_t* poll, int /*status*/, int /*events*/) {
    static_cast<Wakeup*>(poll->data)->woken();
  };
  uv_poll_start(&made->loop_->poll, UV_READABLE, readable);
  uv_unref(reinterpret_cast<uv_handle_t*>(&made->loop_->poll));
  napi_add_async_cleanup_hook(env, Loop::end, made.get(), &made->loop_->hook);
  return made.release();
}

void Wakeup::woken() {
  eventfd_t count = 0;
  if (eventfd_read(event_fd_, &count) != 0) return;
  const Napi::HandleScope scope(env_);
  try {
    const Napi::AsyncContext context(env_, "expert");
    const Napi::CallbackScope callbacks(env_, context);
    wake_(env_);
  } catch (...) {
    // The environment is being terminated: nobody is left to hear it.
  }
}

#else

Wakeup* Wakeup::open(Napi::Env /*env*/, Wake /*wake*/) { return nullptr; }
void Wakeup::woken() {}

#endif

}  // namespace expert_node
