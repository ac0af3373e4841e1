// Streams that are told instead of asked: one delivery thread each, which only reads the stream; or told of their end.
#include <system_error>
#include <thread>

#include "guard.h"
#include "handles.h"

using namespace expert;
using namespace expert::capi;

namespace {

struct Listener {
  std::shared_ptr<Generation> generation;
  expert_listen_callback callback;
  void* user_data;
  bool result_only;

  // 0: go on. A listener written in C++ may throw; the exception ends here.
  int tell(const expert_chunk* chunk, const expert_error* error) const noexcept {
    try {
      return callback(user_data, chunk, error);
    } catch (...) {
      return 1;
    }
  }

  // The next chunk; one without a result may be followed by others.
  std::optional<StreamChunk> next() const {
    if (result_only) return StreamChunk{{}, {}, generation->wait(std::chrono::nanoseconds::max())};
    return generation->next(std::chrono::nanoseconds::max());
  }

  void deliver() const {
    const expert_status status = guard([&] {
      while (std::optional<StreamChunk> chunk = next()) {
        expert_chunk given{std::move(chunk->text), std::move(chunk->tokens), {}};
        const bool last = chunk->result != nullptr;
        if (last) given.result.emplace(std::move(chunk->result));
        if (tell(&given, nullptr) != 0) generation->cancel();
        if (last) return;
      }
    });
    if (status != EXPERT_OK) static_cast<void>(tell(nullptr, expert_last_error()));
    static_cast<void>(tell(nullptr, nullptr));
  }
};

}  // namespace

expert_status expert_stream_listen(expert_stream* stream, uint32_t flags, expert_listen_callback callback,
                                   void* user_data) {
  return guard([&] {
    expert_stream& heard = require(stream, "stream");
    require_flags(flags, EXPERT_LISTEN_RESULT_ONLY, "expert_stream_listen");
    if (callback == nullptr) fail(ErrorCode::invalid_request, "callback is NULL");
    const Listener listener{heard.held.share(), callback, user_data, (flags & EXPERT_LISTEN_RESULT_ONLY) != 0};
    if (heard.ended.exchange(true)) fail(ErrorCode::invalid_request, "the stream has ended or has a reader");
    try {
      std::thread([listener] { listener.deliver(); }).detach();
    } catch (const std::system_error& error) {
      heard.ended = false;
      fail(ErrorCode::out_of_memory, "no thread for the listener: {}", error.what());
    }
  });
}

expert_status expert_stream_signal_end(expert_stream* stream, int event_fd) {
  return guard([&] { require(stream, "stream").held.get().signal_end(event_fd); });
}
