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

// Made when it is first asked for, by whichever thread; of two that make it at once one is kept. Without a lock, which a
// child of fork() might find held.
class TextOnDemand {
 public:
  TextOnDemand() = default;
  TextOnDemand(const TextOnDemand&) = delete;
  TextOnDemand& operator=(const TextOnDemand&) = delete;
  ~TextOnDemand() { delete text_.load(); }

  template <typename Make>
  const char* get(Make&& make) const {
    if (const std::string* made = text_.load(std::memory_order_acquire)) return made->c_str();
    auto text = std::make_unique<const std::string>(make());
    const std::string* first = nullptr;
    return text_.compare_exchange_strong(first, text.get()) ? text.release()->c_str() : first->c_str();
  }

 private:
  mutable std::atomic<const std::string*> text_ = nullptr;
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
  expert::capi::TextOnDemand plan;
  expert::capi::TextOnDemand json;

  explicit expert_result(std::shared_ptr<const expert::Result> finished) : result(std::move(finished)) {}
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
