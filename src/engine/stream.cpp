#include "engine/stream.h"

#include "engine/fork_guard.h"

namespace expert {
namespace {

// wait_for, without the overflow of "now + for ever".
template <typename Ready>
bool wait_until_ready(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                      std::chrono::nanoseconds timeout, Ready ready) {
  constexpr auto kForever = std::chrono::hours(24 * 365);
  if (timeout < kForever) return changed.wait_for(lock, timeout, ready);
  changed.wait(lock, ready);
  return true;
}

class StreamHandle final : public Generation {
 public:
  explicit StreamHandle(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  ~StreamHandle() override {
    stream_->cancel();
    // The parent's engine thread may have held the stream's lock when this process was forked: never destroy it here.
    if (fork_guard_.inherited()) static_cast<void>(new std::shared_ptr<Stream>(std::move(stream_)));
  }

  std::optional<StreamChunk> next(std::chrono::nanoseconds timeout) override {
    fork_guard_.check();
    return stream_->next(timeout);
  }
  std::shared_ptr<const Result> wait(std::chrono::nanoseconds timeout) override {
    fork_guard_.check();
    return stream_->wait(timeout);
  }
  bool done() const override {
    fork_guard_.check();
    return stream_->done();
  }
  void signal_end(int event_fd) override {
    fork_guard_.check();
    stream_->signal_end(event_fd);
  }
  void cancel() override {
    fork_guard_.check();
    stream_->cancel();
  }

 private:
  ForkGuard fork_guard_;
  std::shared_ptr<Stream> stream_;
};

}  // namespace

void Stream::append(StreamChunk chunk) {
  if (reading_ || chunks_.empty()) return chunks_.push_back(std::move(chunk));
  StreamChunk& joined = chunks_.back();
  joined.text += chunk.text;
  joined.tokens.insert(joined.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
}

bool Stream::push(StreamChunk chunk) {
  {
    const std::lock_guard lock(mutex_);
    if (reading_ && chunks_.size() >= capacity_) return false;
    append(std::move(chunk));
  }
  changed_.notify_all();
  return true;
}

void Stream::finish(StreamChunk last) {
  EndSignal signal;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    signal = std::move(end_signal_);
    result_ = last.result;
    chunks_.push_back(std::move(last));
    ended_ = true;
  }
  changed_.notify_all();
  signal.raise();
}

void Stream::fail(const Error& error) {
  EndSignal signal;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    signal = std::move(end_signal_);
    error_.emplace(error.code(), error.what(), error.hint());  // a text of its own: another thread reads it
    ended_ = true;
  }
  changed_.notify_all();
  signal.raise();
}

std::optional<StreamChunk> Stream::next(std::chrono::nanoseconds timeout) {
  std::unique_lock lock(mutex_);
  reading_ = true;
  if (!wait_until_ready(changed_, lock, timeout, [&] { return !chunks_.empty() || ended_; })) return std::nullopt;
  if (!chunks_.empty()) {
    StreamChunk chunk = std::move(chunks_.front());
    chunks_.pop_front();
    return chunk;
  }
  if (error_ && !error_given_) {
    error_given_ = true;
    throw *error_;
  }
  return std::nullopt;
}

std::shared_ptr<const Result> Stream::wait(std::chrono::nanoseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!wait_until_ready(changed_, lock, timeout, [&] { return ended_; })) {
    throw Error(ErrorCode::timeout, "the request has not ended within the timeout; it goes on");
  }
  if (error_) throw *error_;
  return result_;
}

bool Stream::done() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

void Stream::signal_end(int event_fd) {
  EndSignal signal(event_fd);
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) {
      end_signal_ = std::move(signal);
      return;
    }
  }
  signal.raise();
}

std::shared_ptr<Generation> make_generation(std::shared_ptr<Stream> stream) {
  return std::make_shared<StreamHandle>(std::move(stream));
}

}  // namespace expert
