#include "addon.h"

#include "engines.h"
#include "running.h"

namespace expert_node {

Addon::Addon(Napi::Env env)
    : env_(env), channel_(std::make_shared<Channel>(env)), wakeup_(Wakeup::open(env, wake)) {
  begin_environment();
  // Registered after the channel's function, so it runs before Node destroys that.
  env.AddCleanupHook(end, this);
}

Addon::~Addon() = default;

void Addon::end(Addon* addon) {
  addon->channel_->close();
  addon->wakeup_ = nullptr;  // it closes itself
  for (const auto& [id, running] : addon->running_) running->cancel();
  addon->running_.clear();
  end_environment();
}

Napi::Value Addon::promise(Napi::Env env, Place place, Work work) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  const uint64_t id = next_id_++;
  promises_.emplace(id, deferred);
  ++awaited_;
  update_hold(env);
  Task task = [channel = channel_, id, work = std::move(work)] {
    Convert convert;
    std::optional<Failure> failure;
    try {
      convert = work();
    } catch (const Failure& caught) {
      failure = caught;
    } catch (const std::bad_alloc&) {
      failure = Failure{EXPERT_ERROR_OUT_OF_MEMORY, "out of memory", ""};
    } catch (const std::exception& caught) {
      failure = Failure{EXPERT_ERROR_INTERNAL, caught.what(), ""};
    }
    channel->post([id, convert = std::move(convert), failure = std::move(failure)](Napi::Env here) {
      Addon::of(here).settle(here, id, convert, failure);
    });
  };
  if (place == Place::pool) {
    run_in_pool(std::move(task));
  } else {
    run_in_thread(std::move(task));
  }
  return deferred.Promise();
}

void Addon::settle(Napi::Env env, uint64_t id, const Convert& convert, const std::optional<Failure>& failure) {
  const auto found = promises_.find(id);
  if (found == promises_.end()) return;
  const Napi::Promise::Deferred deferred = found->second;
  promises_.erase(found);
  --awaited_;
  update_hold(env);
  if (failure) {
    deferred.Reject(error(env, *failure));
    return;
  }
  try {
    deferred.Resolve(convert(env));
  } catch (const Napi::Error& caught) {
    deferred.Reject(caught.Value());
  }
}

uint64_t Addon::keep(const Napi::Function& callback, bool silent) {
  const uint64_t id = next_id_++;
  callbacks_.emplace(id, Kept{Napi::Persistent(callback), silent});
  if (!silent) ++awaited_;
  update_hold(env_);
  return id;
}

void Addon::drop(Napi::Env env, uint64_t id) {
  const auto found = callbacks_.find(id);
  if (found == callbacks_.end()) return;
  if (!found->second.silent) --awaited_;
  callbacks_.erase(found);
  update_hold(env);
}

void Addon::call(Napi::Env env, uint64_t id, const std::vector<napi_value>& arguments) {
  const auto found = callbacks_.find(id);
  if (found == callbacks_.end()) return;
  const Napi::Function function = found->second.function.Value();
  function.Call(env.Global(), arguments);
}

Napi::Value Addon::error(Napi::Env env, const Failure& failure) const {
  return make_error_.Value().Call({Napi::String::New(env, expert_status_name(failure.status)),
                                   Napi::String::New(env, failure.message), Napi::String::New(env, failure.hint)});
}

uint64_t Addon::add(Napi::Env env, std::shared_ptr<Running> running) {
  const uint64_t id = next_id_++;
  running_.emplace(id, std::move(running));
  ++awaited_;
  update_hold(env);
  return id;
}

std::shared_ptr<Running> Addon::find(uint64_t id) const {
  const auto found = running_.find(id);
  return found != running_.end() ? found->second : nullptr;
}

void Addon::remove(Napi::Env env, uint64_t id) {
  if (running_.erase(id) == 0) return;
  --awaited_;
  update_hold(env);
}

void Addon::wake(Napi::Env env) {
  Addon& addon = of(env);
  std::vector<std::shared_ptr<Running>> ended;  // what JavaScript does then may begin others
  for (const auto& [id, running] : addon.running_) {
    if (running->signalled_end()) ended.push_back(running);
  }
  for (const auto& running : ended) {
    try {
      running->finish(env);
    } catch (const Napi::Error& error) {
      napi_fatal_exception(env, error.Value());
    }
  }
}

Napi::Value Addon::shared_numbers(Napi::Env env, size_t count, double*& numbers) {
  auto buffer = Napi::ArrayBuffer::New(env, count * sizeof(double));
  buffers_.push_back(Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1));
  numbers = static_cast<double*>(buffer.Data());
  return Napi::Float64Array::New(env, count, buffer, 0);
}

void Addon::update_hold(Napi::Env env) { channel_->hold(env, awaited_ != 0); }

Convert string_of(Text text, size_t length) {
  const std::shared_ptr<char> shared(std::move(text));
  return [shared, length](Napi::Env env) -> Napi::Value { return Napi::String::New(env, shared.get(), length); };
}

}  // namespace expert_node
