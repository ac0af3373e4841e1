// One running request: submitted on JavaScript's thread where that is quick, else on a pool thread, heard on a delivery
// thread of the library, told on JavaScript's.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "addon.h"
#include "request.h"

namespace expert_node {

constexpr size_t kFigures = 12;  // of a result: how it ended, usage, timings

class Running : public std::enable_shared_from_this<Running> {
 public:
  enum How : uint32_t { kResultOnly = 1, kDocument = 2 };  // `document`: the result as JSON, for what fields do not say

  // Gives the number by which the listener hears of it: see tell() in running.cpp.
  static uint64_t start(Napi::Env env, EngineHandle engine, std::unique_ptr<const Request> request, uint32_t how);
  // From any thread, at any time.
  void cancel();
  // JavaScript's thread: whether it has ended and says so by the environment's eventfd; then finish() tells the listener.
  bool signalled_end();
  void finish(Napi::Env env);

 private:
  // False where it was wanted only if quick and is not: nothing has happened.
  bool submit_and_listen(const EngineHandle& engine, const Request& request, bool only_if_quick) noexcept;
  bool submit(const EngineHandle& engine, const Request& request, bool only_if_quick);
  int hear(const expert_chunk* chunk, const expert_error* error);
  void fail(Failure failure);
  // The last event; JavaScript's thread.
  void end(Napi::Env env, const std::vector<napi_value>& arguments);
  Result result() const;
  void add_result(Napi::Env env, Result owned, const std::string& json, std::vector<napi_value>& arguments) const;

  std::shared_ptr<Channel> channel_;
  uint64_t id_ = 0;
  uint32_t how_ = 0;
  int end_fd_ = -1;
  std::mutex mutex_;
  bool cancelled_ = false;
  bool signals_ = false;  // no listener: the eventfd tells of the end
  std::unique_ptr<expert_stream, Freed> stream_;
  EngineHandle engine_;  // a request that runs keeps its engine open
};

}  // namespace expert_node
