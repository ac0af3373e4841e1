// Composition against the formula, for random kinds, ranks, modules and weights: every site of random small models, the
// product of the backend beside an FP64 evaluation that is written down term by term. A case that fails is shrunk first.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "io/json.h"
#include "support/runner.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace {

using namespace expert;
using namespace expert::test;

constexpr double kBound = 1e-5;  // of the largest output of the site
constexpr int kCases = 150;

// --- what a case is -----------------------------------------------------------------------------------------------

enum class Kind : uint8_t { lora, rslora, lora_bias, changed_bias, dora, ia3, saved, tokens, embedding, count };

const char* name_of_kind(Kind kind) {
  static const char* const kNames[] = {"lora", "rslora", "lora_bias", "changed_bias", "dora",
                                       "ia3",  "saved",  "tokens",    "embedding"};
  return kNames[static_cast<size_t>(kind)];
}

struct ExpertCase {
  Kind kind = Kind::lora;
  int64_t rank = 1;
  std::vector<std::string> modules;
  float weight = 1;
  uint64_t seed = 0;
};

struct Case {
  std::string architecture;
  bool tied = false;
  std::vector<ExpertCase> experts;
};

std::string text_of(const Case& c) {
  std::string text = fmt::format("{}{}", c.architecture, c.tied ? ", tied" : "");
  for (const ExpertCase& expert : c.experts) {
    text += fmt::format("\n  {} rank {} on {} at weight {} (seed {})", name_of_kind(expert.kind), expert.rank,
                        fmt::join(expert.modules, ", "), expert.weight, expert.seed);
  }
  return text;
}

class Choice {
 public:
  explicit Choice(uint64_t seed) : random_(seed) {}
  int64_t below(int64_t n) { return static_cast<int64_t>((random_.next() + 1) / 2 * static_cast<float>(n)) % n; }
  float between(float low, float high) { return low + (random_.next() + 1) / 2 * (high - low); }

 private:
  TinyRandom random_;
};

const std::vector<std::string> kModules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

ExpertCase random_expert(Choice& choice, uint64_t seed) {
  ExpertCase expert;
  expert.kind = static_cast<Kind>(choice.below(static_cast<int64_t>(Kind::count)));
  expert.rank = 1 + choice.below(choice.below(3) == 0 ? 40 : 6);
  expert.weight = choice.below(4) == 0 ? 1.0F : choice.between(-0.5F, 1.7F);
  expert.seed = seed;
  for (const std::string& module : kModules) {
    if (choice.below(3) == 0) expert.modules.push_back(module);
  }
  if (expert.modules.empty()) expert.modules.push_back(kModules[static_cast<size_t>(choice.below(7))]);
  return expert;
}

Case random_case(uint64_t seed) {
  Choice choice(seed);
  static const char* const kArchitectures[] = {"Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM",
                                               "MistralForCausalLM"};
  Case c;
  c.architecture = kArchitectures[choice.below(4)];
  c.tied = choice.below(2) == 0;
  const int64_t count = 1 + choice.below(choice.below(3) == 0 ? 10 : 3);
  for (int64_t i = 0; i < count; ++i) c.experts.push_back(random_expert(choice, seed * 100 + static_cast<uint64_t>(i)));
  return c;
}

// --- one expert: its files, and what they mean ----------------------------------------------------------------------

using Matrix64 = std::vector<double>;  // row-major

// The terms of one expert at one site, in FP64, straight from the definitions of the methods.
struct Terms {
  Matrix64 d, e, c, db;  // empty: ones, or zeros
  Matrix64 delta;        // [out, in]: D, or s B A
  bool replaces_base = false;
};

struct ExpertFiles {
  Json config;
  std::vector<TensorToWrite> tensors;
};

Matrix64 values_of(const TensorToWrite& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return {values.begin(), values.end()};
}

class Maker {
 public:
  Maker(const ExpertCase& expert, const SiteTable& sites, const TensorSet& base, bool tied)
      : expert_(expert), sites_(sites), base_(base), tied_(tied), random_(expert.seed) {}

  ExpertFiles files;
  std::map<int, Terms> terms;  // by site

  void make() {
    files.config = tiny_lora_config(expert_.rank, expert_.modules);
    files.config["lora_alpha"] = 1.5 * static_cast<double>(expert_.rank);
    scale_ = 1.5;
    switch (expert_.kind) {
      case Kind::rslora:
        files.config["use_rslora"] = true;
        scale_ = 1.5 * std::sqrt(static_cast<double>(expert_.rank));
        break;
      case Kind::lora_bias:
        files.config["lora_bias"] = true;
        break;
      case Kind::changed_bias:
        files.config["bias"] = "lora_only";
        break;
      case Kind::dora:
        files.config["use_dora"] = true;
        break;
      case Kind::ia3:
        files.config = {{"peft_type", "IA3"},
                        {"target_modules", expert_.modules},
                        {"feedforward_modules", {"down_proj", "o_proj"}}};
        break;
      case Kind::saved:
        files.config["modules_to_save"] = {"lm_head", "gate_proj"};
        files.config["target_modules"] = {"q_proj"};
        break;
      case Kind::tokens:
        files.config["trainable_token_indices"] = {3, 60, 11};
        break;
      case Kind::embedding:
        files.config["target_modules"] = {"embed_tokens", "lm_head"};
        break;
      default:
        break;
    }
    for (int site = 0; site < sites_.size(); ++site) add_site(site);
  }

 private:
  std::string prefix(int site) const { return "base_model.model." + sites_[site].name; }

  bool is_target(const std::string& name) const {
    for (const Json& target : files.config.at("target_modules")) {
      if (name.ends_with("." + target.get<std::string>()) || name == target.get<std::string>()) return true;
    }
    return false;
  }

  const TensorToWrite& add(const std::string& name, std::vector<int64_t> shape, float scale, float centre = 0) {
    files.tensors.push_back(tiny_tensor(name, std::move(shape), random_, scale, centre));
    return files.tensors.back();
  }

  void add_site(int site) {
    const LinearSite& where = sites_[site];
    const bool saved = expert_.kind == Kind::saved && (where.name == "lm_head" || where.name.ends_with("gate_proj"));
    if (saved) return add_saved(site);
    if (expert_.kind == Kind::tokens && where.kind != SiteKind::linear) return add_tokens(site);
    if (!is_target(where.name)) return;
    if (expert_.kind == Kind::ia3) return add_ia3(site);
    add_lora(site);
    if (expert_.kind == Kind::changed_bias && where.has_bias) {
      Matrix64 changed = values_of(add(prefix(site) + ".base_layer.bias", {where.out}, 0.5F));
      subtract(changed, base_.at(where.name + ".bias").read_f32());
      terms[site].db = changed;
    }
  }

  void add_saved(int site) {
    const LinearSite& where = sites_[site];
    terms[site].replaces_base = true;
    terms[site].delta = values_of(add(prefix(site) + ".weight", {where.out, where.in}, 0.5F));
    if (!where.has_bias) return;
    terms[site].db = values_of(add(prefix(site) + ".bias", {where.out}, 0.5F));
    subtract(terms[site].db, base_.at(where.name + ".bias").read_f32());
  }

  // Rows of the table; a tied head follows. W' - W, whose rows are zero but for these tokens.
  void add_tokens(int site) {
    const bool embedding = sites_[site].kind == SiteKind::embedding;
    if (!embedding) return;
    const int64_t hidden = sites_[site].out;
    const int64_t vocab = sites_[site].in;
    const Matrix64 rows =
        values_of(add(prefix(site) + ".token_adapter.trainable_tokens_delta", {3, hidden}, 0.5F));
    const std::vector<float> table = base_.at("model.embed_tokens.weight").read_f32();
    Matrix64 change(static_cast<size_t>(vocab * hidden), 0.0);  // [vocab, hidden]
    const int64_t tokens[] = {3, 60, 11};
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t c = 0; c < hidden; ++c) {
        const auto at = static_cast<size_t>(tokens[i] * hidden + c);
        change[at] = rows[static_cast<size_t>(i * hidden + c)] - static_cast<double>(table[at]);
      }
    }
    if (tied_) terms[*sites_.find(SiteKind::head)].delta = change;
    terms[site].delta = transpose(change, vocab, hidden);
  }

  void add_ia3(int site) {
    const LinearSite& where = sites_[site];
    const bool input = where.name.ends_with("down_proj") || where.name.ends_with("o_proj");
    const std::vector<int64_t> shape = input ? std::vector<int64_t>{1, where.in} : std::vector<int64_t>{where.out, 1};
    const Matrix64 values = values_of(add(prefix(site) + ".ia3_l", shape, 0.7F, 1));
    (input ? terms[site].d : terms[site].c) = values;
  }

  void add_lora(int site) {
    const LinearSite& where = sites_[site];
    const bool table = where.kind == SiteKind::embedding;
    const int64_t r = expert_.rank;
    const Matrix64 a = values_of(add(prefix(site) + (table ? ".lora_embedding_A" : ".lora_A.weight"), {r, where.in}, 0.4F));
    const Matrix64 b = values_of(add(prefix(site) + (table ? ".lora_embedding_B" : ".lora_B.weight"), {where.out, r}, 0.4F));
    Terms& site_terms = terms[site];
    site_terms.delta = product(b, a, where.out, r, where.in, scale_);
    if (expert_.kind == Kind::lora_bias) {
      site_terms.db = values_of(add(prefix(site) + ".lora_B.bias", {where.out}, 0.4F));
      for (double& value : site_terms.db) value *= scale_;
    }
    if (expert_.kind != Kind::dora) return;
    const Matrix64 m = values_of(add(prefix(site) + ".lora_magnitude_vector", {where.out}, 0.5F, 1));
    const std::vector<float> w = base_.at(where.name + ".weight").read_f32();
    site_terms.e.resize(m.size());
    for (int64_t i = 0; i < where.out; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < where.in; ++k) {
        const auto at = static_cast<size_t>(i * where.in + k);
        const double value = static_cast<double>(w[at]) + site_terms.delta[at];
        sum += value * value;
      }
      const double gain = m[static_cast<size_t>(i)] / std::sqrt(sum);
      site_terms.e[static_cast<size_t>(i)] = gain;
      for (int64_t k = 0; k < where.in; ++k) site_terms.delta[static_cast<size_t>(i * where.in + k)] *= gain;
    }
  }

  static void subtract(Matrix64& from, const std::vector<float>& what) {
    for (size_t i = 0; i < from.size(); ++i) from[i] -= static_cast<double>(what[i]);
  }
  static Matrix64 product(const Matrix64& b, const Matrix64& a, int64_t out, int64_t r, int64_t in, double scale) {
    Matrix64 result(static_cast<size_t>(out * in), 0.0);
    for (int64_t i = 0; i < out; ++i) {
      for (int64_t k = 0; k < r; ++k) {
        for (int64_t j = 0; j < in; ++j) {
          result[static_cast<size_t>(i * in + j)] +=
              scale * b[static_cast<size_t>(i * r + k)] * a[static_cast<size_t>(k * in + j)];
        }
      }
    }
    return result;
  }
  static Matrix64 transpose(const Matrix64& m, int64_t rows, int64_t cols) {
    Matrix64 result(m.size());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) result[static_cast<size_t>(c * rows + r)] = m[static_cast<size_t>(r * cols + c)];
    }
    return result;
  }

  const ExpertCase& expert_;
  const SiteTable& sites_;
  const TensorSet& base_;
  bool tied_;
  TinyRandom random_;
  double scale_ = 1;
};

// --- the formula ----------------------------------------------------------------------------------------------------

// y = c * ( e * (W (d*x)) + sum w_i D_i (d*x) + b + sum w_i db_i ), D_i standing for every matrix term.
Matrix64 formula(const Matrix64& w, const Matrix64& x, const Matrix64& bias, int64_t out, int64_t in,
                 const std::vector<std::pair<double, const Terms*>>& experts) {
  const auto factor = [](const Matrix64& v, size_t i, double weight) {
    return v.empty() ? 1.0 : 1.0 + weight * (v[i] - 1.0);
  };
  Matrix64 scaled = x;
  for (size_t j = 0; j < scaled.size(); ++j) {
    for (const auto& [weight, terms] : experts) scaled[j] *= factor(terms->d, j, weight);
  }
  const auto times = [&](const Matrix64& matrix, size_t i) {
    double sum = 0;
    for (size_t j = 0; j < static_cast<size_t>(in); ++j) sum += matrix[i * static_cast<size_t>(in) + j] * scaled[j];
    return sum;
  };
  Matrix64 y(static_cast<size_t>(out));
  for (size_t i = 0; i < y.size(); ++i) {
    double e = 1;
    double c = 1;
    double rest = bias.empty() ? 0.0 : bias[i];
    for (const auto& [weight, terms] : experts) {
      if (terms->replaces_base) e += weight * (0.0 - 1.0);
      if (!terms->e.empty()) e += weight * (terms->e[i] - 1.0);
      c *= factor(terms->c, i, weight);
      if (!terms->delta.empty()) rest += weight * times(terms->delta, i);
      if (!terms->db.empty()) rest += weight * terms->db[i];
    }
    y[i] = c * (e * times(w, i) + rest);
  }
  return y;
}

// --- running one ----------------------------------------------------------------------------------------------------

class Bed {
 public:
  Bed(const std::string& device, const std::string& directory)
      : backend_(backend_of(device)), model_(Model::load(directory, *backend_)), base_(model_->source_tensors()) {}

  // Empty: all sites agree. Otherwise what did not.
  std::string check(const Case& c) {
    std::vector<Maker> makers;
    std::vector<WeightedAdapter> adapters;
    uint8_t mark = 0;
    for (const ExpertCase& expert : c.experts) {
      makers.emplace_back(expert, model_->sites(), base_, c.tied).make();
      adapters.push_back({load(makers.back().files, ++mark), expert.weight, 0, {}});
    }
    const auto set = AdapterSet::compose(adapters, model_->sites().size());
    for (int site = 0; site < model_->sites().size(); ++site) {
      std::vector<std::pair<double, const Terms*>> terms;
      for (size_t i = 0; i < makers.size(); ++i) {
        const auto found = makers[i].terms.find(site);
        if (found != makers[i].terms.end()) terms.emplace_back(static_cast<double>(c.experts[i].weight), &found->second);
      }
      if (terms.empty() != (set->delta(site) == nullptr)) return model_->sites()[site].name + ": bent or not?";
      if (terms.empty()) continue;
      const double error = error_at(site, *set, terms);
      if (!(error <= kBound)) return fmt::format("{}: off by {:.2e}", model_->sites()[site].name, error);
    }
    return {};
  }

 private:
  std::shared_ptr<const Adapter> load(const ExpertFiles& files, uint8_t mark) {
    const SafeTensors tensors =
        SafeTensors::from_memory(std::make_shared<const Bytes>(make_safetensors(files.tensors)), "expert");
    Adapter::Source source;
    source.origin = "expert";
    source.config = &files.config;
    source.tensors = &tensors;
    source.hash.fill(mark);
    return Adapter::load(
        source, {model_->sites(), *backend_, WeightFormat::f32, [this] { return model_->source_tensors(); }, {}, {}});
  }

  double error_at(int site, const AdapterSet& set, const std::vector<std::pair<double, const Terms*>>& terms) {
    const LinearSite& where = model_->sites()[site];
    const bool embedding = where.kind == SiteKind::embedding;
    const std::string stored = embedding || !base_.find(where.name + ".weight") ? "model.embed_tokens" : where.name;
    const std::vector<float> weight = base_.at(stored + ".weight").read_f32();
    std::vector<float> bias;
    if (where.has_bias) bias = base_.at(where.name + ".bias").read_f32();
    constexpr int32_t kRows = 5;
    const std::vector<int32_t> tokens = {3, 0, 60, 11, 17};
    const Tensor x = inputs(where, tokens);
    const Tensor y = backend_->allocate(DType::f32, kRows, where.out);
    const SegmentDelta part{0, kRows, set.delta(site)};
    if (embedding) {
      BatchLayout layout;
      layout.token_ids = tokens;
      backend_->embed(*where.weight, layout, y);
      backend_->embed_deltas(layout, std::span(&part, 1), y);
    } else {
      Tensor bias_tensor;
      if (!bias.empty()) {
        bias_tensor = backend_->allocate(DType::f32, 1, where.out);
        backend_->upload(bias_tensor, bias.data(), bias.size() * sizeof(float));
      }
      const LinearOutput output{where.weight.get(), bias.empty() ? nullptr : &bias_tensor, y, std::span(&part, 1)};
      backend_->linear(x, std::span(&output, 1));
    }
    std::vector<float> ours(static_cast<size_t>(kRows * where.out));
    backend_->download(ours.data(), y, ours.size() * sizeof(float));
    std::vector<float> rows(static_cast<size_t>(kRows * where.in));
    backend_->download(rows.data(), x, rows.size() * sizeof(float));

    Matrix64 w(weight.begin(), weight.end());
    if (embedding) {
      Matrix64 across(w.size());
      for (int64_t v = 0; v < where.in; ++v) {
        for (int64_t h = 0; h < where.out; ++h)
          across[static_cast<size_t>(h * where.in + v)] = w[static_cast<size_t>(v * where.out + h)];
      }
      w = std::move(across);
    }
    double largest = 0;
    double worst = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      const Matrix64 row(rows.begin() + r * where.in, rows.begin() + (r + 1) * where.in);
      const Matrix64 expected =
          formula(w, row, Matrix64(bias.begin(), bias.end()), where.out, where.in, terms);
      for (size_t i = 0; i < expected.size(); ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        worst = std::max(worst, std::abs(expected[i] - static_cast<double>(ours[static_cast<size_t>(r * where.out) + i])));
      }
    }
    return worst / largest;
  }

  // One-hot rows for the embedding, random ones for the others.
  Tensor inputs(const LinearSite& where, const std::vector<int32_t>& tokens) {
    const auto count = static_cast<int64_t>(tokens.size());
    std::vector<float> values(static_cast<size_t>(count * where.in), 0.0F);
    TinyRandom random(77);
    for (float& value : values) value = where.kind == SiteKind::embedding ? 0.0F : random.next();
    for (int64_t r = 0; where.kind == SiteKind::embedding && r < count; ++r) {
      values[static_cast<size_t>(r * where.in + tokens[static_cast<size_t>(r)])] = 1.0F;
    }
    const Tensor x = backend_->allocate(DType::f32, count, where.in);
    backend_->upload(x, values.data(), values.size() * sizeof(float));
    return x;
  }

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  TensorSet base_;
};

// --- shrinking ------------------------------------------------------------------------------------------------------

using Fails = std::function<bool(const Case&)>;

// The case with one thing less, for every thing there is.
std::vector<Case> smaller(const Case& c) {
  std::vector<Case> cases;
  for (size_t i = 0; i < c.experts.size(); ++i) {
    const auto change = [&](const std::function<void(ExpertCase&)>& edit) {
      cases.push_back(c);
      edit(cases.back().experts[i]);
    };
    if (c.experts.size() > 1) {
      cases.push_back(c);
      cases.back().experts.erase(cases.back().experts.begin() + static_cast<std::ptrdiff_t>(i));
    }
    const ExpertCase& expert = c.experts[i];
    for (size_t m = 0; expert.modules.size() > 1 && m < expert.modules.size(); ++m) {
      change([m](ExpertCase& e) { e.modules.erase(e.modules.begin() + static_cast<std::ptrdiff_t>(m)); });
    }
    if (expert.rank > 1) change([](ExpertCase& e) { e.rank = 1; });
    if (expert.rank > 2) change([](ExpertCase& e) { e.rank /= 2; });
    if (expert.weight != 1.0F) change([](ExpertCase& e) { e.weight = 1.0F; });
    if (expert.kind != Kind::lora) change([](ExpertCase& e) { e.kind = Kind::lora; });
  }
  return cases;
}

Case shrunk(Case c, const Fails& fails) {
  for (bool better = true; better;) {
    better = false;
    for (const Case& candidate : smaller(c)) {
      if (!fails(candidate)) continue;
      c = candidate;
      better = true;
      break;
    }
  }
  return c;
}

Json config_of(const Case& c) {
  Json config = tiny_config(c.architecture);
  config["tie_word_embeddings"] = c.tied;
  if (c.architecture == "LlamaForCausalLM") {
    config["attention_bias"] = true;
    config["mlp_bias"] = true;
  }
  return config;
}

}  // namespace

TEST_CASE("any mix of experts is the formula at every site") {
  const TempDir dir;
  for (const std::string device : {"cpu", "reference"}) {
    std::map<std::string, Bed> beds;
    const auto check = [&](const Case& c) {
      const std::string name = c.architecture + (c.tied ? "-tied" : "");
      auto bed = beds.find(name);
      if (bed == beds.end()) bed = beds.try_emplace(name, device, write_tiny_model(dir / name, config_of(c))).first;
      return bed->second.check(c);
    };
    for (int i = 0; i < (device == "cpu" ? kCases : kCases / 3); ++i) {
      const Case c = random_case(static_cast<uint64_t>(1000 + i));
      if (check(c).empty()) continue;
      const Case least = shrunk(c, [&](const Case& candidate) { return !check(candidate).empty(); });
      FAIL_CHECK(device << ": " << check(least) << "\n" << text_of(least));
      break;
    }
    CHECK(beds.size() > 4);
  }
}

TEST_CASE("a failing case shrinks to what makes it fail") {
  const auto fails = [](const Case& c) {
    return std::any_of(c.experts.begin(), c.experts.end(), [](const ExpertCase& e) {
      return e.kind == Kind::ia3 && e.weight < 0 &&
             std::find(e.modules.begin(), e.modules.end(), "k_proj") != e.modules.end();
    });
  };
  int found = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Case c = random_case(seed);
    if (!fails(c)) continue;
    ++found;
    const Case least = shrunk(c, fails);
    REQUIRE(least.experts.size() == 1);
    CHECK(least.experts[0].kind == Kind::ia3);
    CHECK(least.experts[0].rank == 1);
    CHECK(least.experts[0].modules == std::vector<std::string>{"k_proj"});
  }
  CHECK(found > 10);
}
