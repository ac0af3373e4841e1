// What the opaque types of expert.h hold. Handles hold shared ownership and never inherit, so they may be freed in any
// order.
#pragma once

#include <expert/expert.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "engine/fork_guard.h"

namespace expert::capi {

// Shared ownership that knows its process. Threads do not survive fork(): in a child the engine's are gone and its
// locks may be held for ever, so calls are refused there, and what the handle holds is left alone.
template <typename T>
class Held {
 public:
  explicit Held(std::shared_ptr<T> value) : value_(std::move(value)) {}
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    if (inherited()) static_cast<void>(new std::shared_ptr<T>(std::move(value_)));
  }
  bool inherited() const noexcept { return guard_.inherited(); }
  const std::shared_ptr<T>& share() const {
    guard_.check();
    return value_;
  }
  T& get() const { return *share(); }
  // For what never changes and needs no lock, also in a child.
  T& peek() const noexcept { return *value_; }

 private:
  std::shared_ptr<T> value_;
  ForkGuard guard_;
};

}  // namespace expert::capi

struct expert_engine {
  expert::capi::Held<expert::Engine> held;
};

struct expert_expert {
  expert::capi::Held<const expert::LoadedExpert> held;
  std::string kinds;
  std::string manifest;
  std::string warnings;

  explicit expert_expert(std::shared_ptr<const expert::LoadedExpert> loaded);
};

struct expert_result {
  std::shared_ptr<const expert::Result> result;
  std::string plan;
  std::string json;

  explicit expert_result(std::shared_ptr<const expert::Result> finished);
};

struct expert_chunk {
  std::string text;
  std::vector<int32_t> tokens;
  std::optional<expert_result> result;
};

struct expert_stream {
  expert::capi::Held<expert::Generation> held;
  std::atomic<bool> ended = false;  // the last chunk, or the error in its place, was handed out
};
