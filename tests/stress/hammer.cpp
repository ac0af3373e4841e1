// Threads that load, infer, stream, cancel, unload and close engines in random order on one machine: no crash, no hang,
// and memory that does not grow.
//
//   hammer SECONDS [THREADS [SWAPS]]
// Then, where SWAPS are asked for, the same threads until so many small experts were loaded and unloaded, one call in 64
// being one of the others.
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <expert/expert.hpp>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "support/tsan_suppressions.h"

namespace {

using Clock = std::chrono::steady_clock;

const std::string kModels = std::string(EXPERT_SOURCE_DIR) + "/models";
const char* const kExperts[] = {"sql", "json", "jsonfmt", "shell", "classify"};

expert::Engine open_engine() {
  return expert::Engine({.base_model = kModels + "/base", .home = "/nonexistent/expert-home", .threads = 1});
}

// The engine that all threads use until one of them closes it and puts another in its place.
class Shared {
 public:
  expert::Engine get() {
    const std::lock_guard lock(mutex_);
    return engine_;
  }
  void replace() {
    expert::Engine next = open_engine();
    const std::lock_guard lock(mutex_);
    engine_.close();
    engine_ = next;
  }

 private:
  std::mutex mutex_;
  expert::Engine engine_ = open_engine();
};

expert::Request random_request(std::mt19937& random) {
  expert::Request request{.prompt = "Find all users older than " + std::to_string(random() % 90)};
  request.max_tokens = static_cast<int32_t>(1 + random() % 12);
  std::vector<expert::Use> uses;
  for (size_t i = random() % 3; i > 0; --i) uses.emplace_back(kExperts[random() % 5], 0.5F);
  if (uses.size() == 2 && uses[0].name == uses[1].name) uses.pop_back();
  request.experts = uses;
  return request;
}

void act(Shared& shared, std::mt19937& random) {
  const expert::Engine engine = shared.get();
  switch (random() % 8) {
    case 0: {
      const expert::Expert loaded = engine.load_expert(kModels + "/experts/" + kExperts[random() % 5]);
      static_cast<void>(engine.infer("Hello", {.experts = std::vector<expert::Use>{loaded}, .max_tokens = 2}));
      engine.unload(loaded);
      break;
    }
    case 1: {
      expert::Stream stream = engine.stream(random_request(random));
      for (const expert::Chunk& chunk : stream) {
        if (chunk.text().size() % 2 == 1) stream.cancel();
      }
      break;
    }
    case 2: {
      const expert::Stream stream = engine.stream(random_request(random));  // dropped: cancelled
      break;
    }
    case 3:
      static_cast<void>(engine.route(random_request(random)));
      break;
    case 4: {
      auto stream = engine.stream(random_request(random));
      stream.listen([](const expert::Chunk&) { return true; });
      break;
    }
    case 5:
      if (random() % 40 == 0) shared.replace();
      break;
    default:
      static_cast<void>(engine.infer(random_request(random)));
  }
}

// LoRA of rank 1 on one layer of the bundled base: what a sanitizer makes slow is packing large ones.
class SmallExperts {
 public:
  SmallExperts() {
    for (int i = 0; i < kCount; ++i) write(i);
  }
  ~SmallExperts() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  SmallExperts(const SmallExperts&) = delete;
  SmallExperts& operator=(const SmallExperts&) = delete;

  std::string any(std::mt19937& random) const { return folder(static_cast<int>(random() % kCount)); }

 private:
  static constexpr int kCount = 16;
  static constexpr size_t kHidden = 256;  // of the bundled base, whose q_proj is square

  std::string folder(int i) const { return (root_ / std::to_string(i)).string(); }

  void write(int i) const {
    std::filesystem::create_directories(folder(i));
    std::ofstream(folder(i) + "/adapter_config.json")
        << R"({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "layers_to_transform": [0]})";
    const std::string name = R"("base_model.model.model.layers.0.self_attn.q_proj.lora_)";
    const std::string header = "{" + name + R"(A.weight": {"dtype": "F32", "shape": [1, 256], "data_offsets": [0, 1024]}, )" +
                               name + R"(B.weight": {"dtype": "F32", "shape": [256, 1], "data_offsets": [1024, 2048]}})";
    const uint64_t length = header.size();
    const std::vector<float> values(2 * kHidden, 0.01F * static_cast<float>(i + 1));
    std::ofstream file(folder(i) + "/adapter_model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << header;
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  }

  const std::filesystem::path root_ =
      std::filesystem::temp_directory_path() / ("expert-hammer-" + std::to_string(::getpid()));
};

void swap_expert(Shared& shared, const SmallExperts& experts, std::mt19937& random) {
  const expert::Engine engine = shared.get();
  engine.unload(engine.load_expert(experts.any(random)));
}

double resident_megabytes() {
  malloc_trim(0);
  std::ifstream file("/proc/self/statm");
  long pages = 0;
  long resident = 0;
  file >> pages >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc > 1 ? std::atoi(argv[1]) : 3;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 32;
  Shared shared;
  std::atomic<long> done = 0;
  std::atomic<long> refused = 0;
  std::atomic<long> swapped = 0;
  const long swaps = argc > 3 ? std::atol(argv[3]) : 0;
  const auto run = [&](const auto& go_on, const auto& call) {
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&, i] {
        std::mt19937 random(static_cast<unsigned>(i));
        while (go_on()) {
          try {
            call(random);
            ++done;
          } catch (const expert::InferenceError&) {
            ++refused;  // closed, cancelled, or the queue was full: what the next thread did
          }
        }
      });
    }
    for (std::thread& worker : workers) worker.join();
  };
  const auto run_for = [&](int seconds_of_this_run) {
    const auto end = Clock::now() + std::chrono::seconds(seconds_of_this_run);
    run([end] { return Clock::now() < end; }, [&](std::mt19937& random) { act(shared, random); });
  };
  run_for(std::max(1, seconds / 4));
  const double before = resident_megabytes();
  run_for(seconds);
  const SmallExperts experts;
  run([&] { return swapped < swaps; },
      [&](std::mt19937& random) {
        if (random() % 64 == 0) return act(shared, random);
        swap_expert(shared, experts, random);
        ++swapped;
      });
  const double after = resident_megabytes();
  std::printf("%ld calls, %ld of them swaps at the end, %ld refused, %d threads; ", done.load(), swapped.load(),
              refused.load(), threads);
  std::printf("resident %.0f MB after a quarter, %.0f MB at the end\n", before, after);
  return done > 0 && after < before * 1.5 + 64 ? 0 : 1;
}
