#include "running.h"

namespace expert_node {

namespace {

// What the library gives back at the end, when it will not call again.
using Self = std::shared_ptr<Running>;

Napi::Value to_array(Napi::Env env, const std::vector<int32_t>& tokens) {
  Napi::Array out = Napi::Array::New(env, tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) out.Set(static_cast<uint32_t>(i), Napi::Number::New(env, tokens[i]));
  return out;
}

}  // namespace

std::shared_ptr<Running> Running::start(Napi::Env env, EngineHandle engine, std::shared_ptr<const Request> request,
                                        bool result_only, const Napi::Function& callback) {
  Addon& addon = Addon::of(env);
  auto running = std::make_shared<Running>();
  running->channel_ = addon.channel();
  running->callback_ = addon.keep(callback);
  running->stop_ = addon.add_stop([weak = std::weak_ptr(running)] {
    if (const auto alive = weak.lock()) alive->cancel();
  });
  run_in_pool([running, engine = std::move(engine), request = std::move(request), result_only] {
    try {
      running->submit(engine, *request, result_only);
    } catch (const Failure& failure) {
      running->fail(failure);
    } catch (const std::exception& error) {
      running->fail({EXPERT_ERROR_INTERNAL, error.what(), ""});
    }
  });
  return running;
}

void Running::submit(const EngineHandle& engine, const Request& request, bool result_only) {
  expert_stream* submitted = nullptr;
  check(request.with_view([&](const expert_request* view) { return expert_submit(engine.get(), view, &submitted); }));
  {
    const std::lock_guard lock(mutex_);
    stream_.reset(submitted);
    engine_ = engine;
    if (cancelled_) expert_cancel(submitted);
  }
  const auto hear = [](void* self, const expert_chunk* chunk, const expert_error* error) {
    if (chunk != nullptr || error != nullptr) return (*static_cast<Self*>(self))->hear(chunk, error);
    delete static_cast<Self*>(self);
    return 0;
  };
  auto self = std::make_unique<Self>(shared_from_this());
  check(expert_stream_listen(submitted, result_only ? EXPERT_LISTEN_RESULT_ONLY : 0, hear, self.get()));
  self.release();
}

int Running::hear(const expert_chunk* chunk, const expert_error* error) {
  if (error != nullptr) {
    fail({error->status, error->message, error->hint});
    return 0;
  }
  size_t length = 0;
  const char* bytes = expert_chunk_text(chunk, &length);
  std::string text(bytes, length);
  size_t count = 0;
  const int32_t* ids = expert_chunk_tokens(chunk, &count);
  std::vector<int32_t> tokens(ids, ids + count);
  const expert_result* result = expert_chunk_result(chunk);
  const auto arguments = [text = std::move(text), tokens = std::move(tokens)](Napi::Env env) {
    return std::vector<napi_value>{env.Null(), Napi::String::New(env, text), to_array(env, tokens)};
  };
  if (result == nullptr) {
    channel_->post([id = callback_, arguments](Napi::Env env) { Addon::of(env).call(env, id, arguments(env)); });
  } else {
    end([arguments, json = std::string(expert_result_json(result))](Napi::Env env) {
      std::vector<napi_value> list = arguments(env);
      list.push_back(Napi::String::New(env, json));
      return list;
    });
  }
  return 0;
}

void Running::fail(Failure failure) {
  end([failure = std::move(failure)](Napi::Env env) {
    return std::vector<napi_value>{Addon::of(env).error(env, failure)};
  });
}

void Running::end(std::function<std::vector<napi_value>(Napi::Env)> arguments) {
  done_ = true;
  channel_->post([self = shared_from_this(), arguments = std::move(arguments)](Napi::Env env) {
    Addon& addon = Addon::of(env);
    const std::vector<napi_value> list = arguments(env);
    {
      const std::lock_guard lock(self->mutex_);
      self->engine_.reset();
      self->stream_.reset();
    }
    addon.remove_stop(self->stop_);
    try {
      addon.call(env, self->callback_, list);
    } catch (const Napi::Error&) {
      addon.drop(env, self->callback_);
      throw;
    }
    addon.drop(env, self->callback_);
  });
}

void Running::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (stream_ != nullptr) expert_cancel(stream_.get());
}

}  // namespace expert_node
