// What the C interface costs beyond the engine, as overhead.py measures it for the bindings. argv: model, home. For each
// line of input a line of output: "calls" gives a round of calls in microseconds, "named" one of calls that name an expert,
// "routed" one of calls for which the router chooses, "token" the time of a streamed token.
#include <chrono>
#include <cstdio>
#include <expert/expert.hpp>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

using Experts = std::optional<std::vector<expert::Use>>;

expert::Request request(int32_t max_tokens, const Experts& experts = std::vector<expert::Use>()) {
  return {.prompt = "Hello",
          .experts = experts,
          .max_tokens = max_tokens,
          .temperature = 0.0F,
          .ignore_eos = true};
}

double call(const expert::Engine& engine, const Experts& experts) {
  const auto start = Clock::now();
  const expert::Result result = engine.infer(request(1, experts));
  const double engines_part = 1e3 * result.latency_ms();
  const bool read = !result.text().empty() && result.tokens().size() == 1;
  const double taken = microseconds_since(start);
  return read ? taken - engines_part : -1e9;
}

double token(const expert::Engine& engine) {
  expert::Stream stream = engine.stream(request(600));
  static_cast<void>(stream.next());
  while (!stream.done()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const auto start = Clock::now();
  int count = 0;
  while (stream.next()) ++count;
  return microseconds_since(start) / count;
}

}  // namespace

int main(int /*argc*/, char** argv) {
  constexpr int kCalls = 40;
  const expert::Engine engine({.base_model = argv[1], .home = argv[2], .threads = 1});
  for (std::string wanted; std::getline(std::cin, wanted);) {
    if (wanted == "token") {
      std::printf("%.3f\n", token(engine));
    } else {
      Experts experts = std::vector<expert::Use>();
      if (wanted == "named") experts->push_back({"sql"});
      if (wanted == "routed") experts.reset();
      std::printf("[%.2f", call(engine, experts));
      for (int i = 1; i < kCalls; ++i) std::printf(", %.2f", call(engine, experts));
      std::printf("]\n");
    }
    std::fflush(stdout);
  }
}
