// Does what the host tier has to do (expert_cache.h) on a thread of its own, beside the engine's and its callers'.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/expert_cache.h"

namespace expert {

class ExpertLoader {
 public:
  struct Parts {
    std::function<ExpertPtr(const ExpertCardPtr&, const ExpertSource&)> read;
    std::function<std::shared_ptr<const AdapterSet>(const ExpertLease&)> form;
    std::function<void()> done;  // something was; may be empty
  };
  ExpertLoader(ExpertCache& cache, Parts parts) : cache_(cache), parts_(std::move(parts)) {}
  ~ExpertLoader() { close(); }

  // Sees to it that the lease gets its experts: by the thread, which the first call starts. Where no thread can be had,
  // the caller does the work, and throws out_of_memory for what would have to wait for room.
  void serve(ExpertLease& lease);
  // The set of a lease whose experts are in memory, on the calling thread. Throws what forming throws.
  void form(ExpertLease& lease);
  // Ends every claim that is not ready. Waits for what is being read now.
  void close();

 private:
  bool start();
  void run() noexcept;
  void carry_out(const ExpertWork& work);

  ExpertCache& cache_;
  const Parts parts_;
  std::mutex mutex_;
  std::thread thread_;
};

}  // namespace expert
