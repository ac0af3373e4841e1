// One question to the default model; the router chooses the experts.
#include <expert/expert.hpp>
#include <iostream>

int main() try {
  const expert::Engine engine;
  std::cout << engine.infer("Find all users older than 25", {.schema = "users(id,name,age)", .max_tokens = 64}).output()
            << "\n";
} catch (const expert::Error& error) {
  std::cerr << "error: " << error.what() << "\n  hint: " << error.hint() << "\n";
  return 1;
}
