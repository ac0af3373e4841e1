// Two experts bend one base in one request: each alone, then both.
#include <expert/expert.hpp>
#include <iostream>

int main() try {
  const expert::Engine engine;
  const expert::Expert sql = engine.load_expert("sql");
  const std::vector<std::vector<expert::Use>> sets = {{sql}, {"jsonfmt"}, {sql, {"jsonfmt", 0.8F}}};
  for (const auto& experts : sets) {
    const expert::Result result =
        engine.infer("Find all users older than 25",
                     {.schema = "users(id,name,age)", .experts = experts, .max_tokens = 48, .temperature = 0.0F});
    for (const auto& [name, version, weight] : result.experts_used()) std::cout << name << " x " << weight << "  ";
    std::cout << "-> " << result.output() << "\n";
  }
} catch (const expert::Error& error) {
  std::cerr << "error: " << error.what() << "\n  hint: " << error.hint() << "\n";
  return 1;
}
