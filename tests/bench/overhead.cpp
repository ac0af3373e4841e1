// What the C interface costs beyond the engine, as overhead.py measures it for the bindings. argv: model, home.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <expert/expert.hpp>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

expert::Request request(int32_t max_tokens) {
  return {.prompt = "Hello",
          .experts = std::vector<expert::Use>(),
          .max_tokens = max_tokens,
          .temperature = 0.0F,
          .ignore_eos = true};
}

}  // namespace

int main(int /*argc*/, char** argv) {
  const expert::Engine engine({.base_model = argv[1], .home = argv[2], .threads = 1});
  std::vector<double> calls;
  for (int i = 0; i < 400; ++i) {
    const auto start = Clock::now();
    const expert::Result result = engine.infer(request(1));
    calls.push_back(microseconds_since(start) - 1e3 * result.latency_ms());
  }
  std::vector<double> tokens;
  for (int i = 0; i < 5; ++i) {
    expert::Stream stream = engine.stream(request(600));
    static_cast<void>(stream.next());
    while (!stream.done()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const auto start = Clock::now();
    int count = 0;
    while (stream.next()) ++count;
    tokens.push_back(microseconds_since(start) / count);
  }
  std::printf("{\"call_us\": %.2f, \"token_us\": %.3f}\n", median(calls), median(tokens));
}
