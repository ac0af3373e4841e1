// What storing keys and values in fewer bits costs: the mean KL divergence of the next-token distribution from the one
// with F32 keys and values, over text that the model itself writes. Prints JSON. Weights are the same in every run.
//
//   kv_loss [MODEL [EXPERT…]]     by default the bundled model and its experts
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <expert/expert.hpp>
#include <string>
#include <vector>

namespace {

constexpr const char* kPrompts[] = {
    "Find all users older than 25",
    "How many orders cost more than 100?",
    "List the names of the customers in Paris, sorted by age",
    "Copy all text files to the folder backup",
    "Which topic is this about: the match ended two to one after extra time",
    "Reply as JSON with key answer: the capital of France",
};
constexpr int kTokens = 160;  // of each text, the prompt not counted

// One text: a prompt through the chat template and what the model makes of it.
struct Text {
  std::vector<int32_t> ids;
  std::vector<expert::Use> experts;
};

struct Loss {
  double kl = 0, largest = 0, nll = 0;
  size_t positions = 0, same_choice = 0;
};

expert::Engine open(const std::string& model, const std::string& kv) {
  expert::EngineOptions options;
  options.base_model = model;
  options.kv = kv;
  options.weights = "f32";
  return expert::Engine(options);
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// Drawn at temperature 1, so that it does not run in circles; the seed makes it the same every time.
Text write_text(const expert::Engine& engine, const char* prompt, const std::vector<expert::Use>& experts, uint64_t seed) {
  expert::Request request;
  request.prompt = prompt;
  request.experts = experts;
  request.max_tokens = kTokens;
  request.temperature = 1.0F;
  request.seed = seed;
  request.ignore_eos = true;
  Text text;
  text.experts = experts;
  text.ids = engine.tokenize(engine.apply_chat_template("[{\"role\": \"user\", \"content\": " + quoted(prompt) + "}]"));
  const expert::Result result = engine.infer(request);
  text.ids.insert(text.ids.end(), result.tokens().begin(), result.tokens().end());
  return text;
}

std::vector<double> log_probabilities(const float* logits, size_t vocab) {
  const double most = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - most);
  std::vector<double> out(vocab);
  for (size_t i = 0; i < vocab; ++i) out[i] = static_cast<double>(logits[i]) - most - std::log(sum);
  return out;
}

void compare(const std::vector<float>& before, const std::vector<float>& after, const Text& text, Loss& loss) {
  const size_t vocab = before.size() / text.ids.size();
  for (size_t row = 0; row + 1 < text.ids.size(); ++row) {
    const std::vector<double> p = log_probabilities(before.data() + row * vocab, vocab);
    const std::vector<double> q = log_probabilities(after.data() + row * vocab, vocab);
    double kl = 0;
    for (size_t i = 0; i < vocab; ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
    loss.kl += kl;
    loss.largest = std::max(loss.largest, kl);
    const auto next = static_cast<size_t>(text.ids[row + 1]);
    loss.nll -= q[next];
    loss.same_choice += std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
    ++loss.positions;
  }
}

void print(const char* kv, const Loss& loss, bool last) {
  const auto n = static_cast<double>(loss.positions);
  std::printf(
      "  {\"kv\": \"%s\", \"mean_kl_nats\": %.3e, \"largest_kl_nats\": %.3e, \"perplexity\": %.5f, \"same_best_token\": %.5f}%s\n",
      kv, loss.kl / n, loss.largest, std::exp(loss.nll / n), static_cast<double>(loss.same_choice) / n, last ? "" : ",");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string model = argc > 1 ? argv[1] : "";
  std::vector<std::string> names(argv + std::min(argc, 2), argv + argc);
  if (argc < 2) names = {"sql", "json", "shell", "classify", "jsonfmt"};
  const expert::Engine reference = open(model, "f32");
  std::vector<Text> texts;
  std::vector<std::vector<float>> expected;
  Loss itself;
  for (size_t i = 0; i <= names.size(); ++i) {  // the last one: the base alone
    std::vector<expert::Use> experts;
    if (i < names.size()) experts.emplace_back(names[i]);
    for (const char* prompt : kPrompts) {
      texts.push_back(write_text(reference, prompt, experts, texts.size() + 1));
      expected.push_back(reference.logits(texts.back().ids, experts));
      compare(expected.back(), expected.back(), texts.back(), itself);
    }
  }
  std::printf("{\"model\": %s, \"texts\": %zu, \"positions\": %zu, \"rows\": [\n",
              quoted(model.empty() ? "bundled" : model).c_str(), texts.size(), itself.positions);
  print("f32", itself, false);
  for (const char* kv : {"bf16", "int8"}) {
    const expert::Engine engine = open(model, kv);
    Loss loss;
    for (size_t i = 0; i < texts.size(); ++i) {
      compare(expected[i], engine.logits(texts[i].ids, texts[i].experts), texts[i], loss);
    }
    print(kv, loss, std::string(kv) == "int8");
  }
  std::printf("]}\n");
}
