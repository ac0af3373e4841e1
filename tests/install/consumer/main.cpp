#include <expert/expert.hpp>
#include <iostream>

// The bundled model must be found where it was installed, and answer.
int main() try {
  const expert::Engine engine;
  std::cout << engine.info() << "\n";
  return engine.infer("Hello", {.max_tokens = 2}).tokens().empty() ? 1 : 0;
} catch (const expert::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
