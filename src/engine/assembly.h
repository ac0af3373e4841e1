// An engine from its parts: what Engine::open() found and loaded, or what a test made up.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "engine/base_model.h"
#include "engine/engine.h"
#include "engine/step_loop.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace expert {

struct EngineParts {
  // In this order, so that the backend outlives what was made by it.
  std::shared_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // may be null
  SamplingOptions generation_config;
  BaseLocation base;
  std::optional<Store> store;
  StepLoopOptions loop;
  int32_t stream_queue = 1024;
  uint64_t memory_limit = 0;
  uint64_t expert_cache_bytes = 0;  // 0: a quarter of the free memory
  int max_experts = 10;
  std::string cache_directory;  // empty: nothing about experts is cached
  bool write_weight_cache = false;
  double load_ms = 0;
  std::function<void(const std::string& name)> on_expert_read;  // before an expert is read again; for tests
};

std::shared_ptr<Engine> assemble_engine(EngineParts parts);

}  // namespace expert
