// Three requests with three different experts run together, in one batch.
#include <expert/expert.hpp>
#include <iostream>

namespace {

expert::Request short_request(std::string prompt, const char* expert_name) {
  return {.prompt = std::move(prompt), .experts = std::vector<expert::Use>{expert_name}, .max_tokens = 16};
}

}  // namespace

int main() try {
  const expert::Engine engine;
  const std::vector<expert::Request> requests = {short_request("Find all users", "sql"),
                                                 short_request("List the files here", "shell"),
                                                 short_request("Hello there", "json")};
  const std::vector<expert::Result> results = engine.infer_batch(requests);
  for (size_t i = 0; i < results.size(); ++i) {
    std::cout << *requests[i].prompt << " -> " << results[i].output() << "\n";
  }
} catch (const expert::Error& error) {
  std::cerr << "error: " << error.what() << "\n  hint: " << error.hint() << "\n";
  return 1;
}
