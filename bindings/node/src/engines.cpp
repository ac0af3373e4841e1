#include "engines.h"

#include <mutex>
#include <set>

#include "pool.h"

namespace expert_node {

namespace {

constexpr double kPatience = 10;  // seconds, for calls that nothing stops; a step of a request takes less than one

class Engines {
 public:
  void add(expert_engine* engine) {
    const std::lock_guard lock(mutex_);
    engines_.insert(engine);
  }
  void free(expert_engine* engine) {
    {
      const std::lock_guard lock(mutex_);
      engines_.erase(engine);
    }
    expert_engine_free(engine);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    for (expert_engine* engine : engines_) static_cast<void>(expert_engine_close(engine, 0));
  }

 private:
  std::mutex mutex_;
  std::set<expert_engine*> engines_;
};

// Never destroyed: threads may use them until the process has ended.
Engines& engines() {
  static Engines& all = *new Engines;
  return all;
}

std::mutex environments_mutex;
int environments = 0;

}  // namespace

EngineHandle hold_engine(expert_engine* engine) {
  engines().add(engine);
  return {engine, [](expert_engine* owned) { run_in_thread([owned] { engines().free(owned); }); }};
}

void end_all() {
  engines().close();
  static_cast<void>(end_work(kPatience));
  engines().close();  // those that were opened meanwhile
}

void begin_environment() {
  const std::lock_guard lock(environments_mutex);
  if (environments++ == 0) begin_work();
}

void end_environment() {
  const std::lock_guard lock(environments_mutex);
  if (--environments == 0) end_all();
}

}  // namespace expert_node
