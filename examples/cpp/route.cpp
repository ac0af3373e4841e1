// What the router would do with a prompt, as JSON with a reason per expert. Nothing is generated.
#include <expert/expert.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  const expert::Engine engine;
  std::cout << engine.route(argc > 1 ? argv[1] : "Find all users older than 25") << "\n";
} catch (const expert::Error& error) {
  std::cerr << "error: " << error.what() << "\n  hint: " << error.hint() << "\n";
  return 1;
}
