// One running request: submitted on a pool thread, heard on a delivery thread of the library, told on JavaScript's.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "addon.h"
#include "request.h"

namespace expert_node {

class Running : public std::enable_shared_from_this<Running> {
 public:
  // `callback(error, text, tokens, result)` is called per chunk; an error or a result (JSON) is the last call.
  static std::shared_ptr<Running> start(Napi::Env env, EngineHandle engine, std::shared_ptr<const Request> request,
                                        bool result_only, const Napi::Function& callback);
  // From any thread, at any time.
  void cancel();
  bool done() const { return done_; }

 private:
  void submit(const EngineHandle& engine, const Request& request, bool result_only);
  int hear(const expert_chunk* chunk, const expert_error* error);
  void fail(Failure failure);
  // The last event: tells JavaScript and lets go of the callback.
  void end(std::function<std::vector<napi_value>(Napi::Env)> arguments);

  std::shared_ptr<Channel> channel_;
  uint64_t callback_ = 0;
  uint64_t stop_ = 0;
  std::atomic<bool> done_ = false;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::unique_ptr<expert_stream, Freed> stream_;
  EngineHandle engine_;  // a request that runs keeps its engine open
};

}  // namespace expert_node
