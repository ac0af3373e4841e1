// Answers with the base alone while experts lie loaded beside it, for idle_experts.py to count instructions in.
// argv: model, home, tokens, expert directories …
#include <cstdio>
#include <cstdlib>
#include <expert/expert.hpp>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: idle_experts MODEL HOME TOKENS [EXPERT …]\n");
    return 2;
  }
  const expert::Engine engine({.base_model = argv[1], .home = argv[2], .threads = 1});
  std::vector<expert::Expert> loaded;
  for (int i = 4; i < argc; ++i) loaded.push_back(engine.load_expert(argv[i]));
  const expert::Result result = engine.infer({.prompt = "Hello",
                                              .experts = std::vector<expert::Use>(),
                                              .max_tokens = std::atoi(argv[3]),
                                              .temperature = 0.0F,
                                              .ignore_eos = true});
  std::printf("%zu tokens, %zu experts loaded\n", result.tokens().size(), loaded.size());
}
