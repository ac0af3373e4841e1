#include "router/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "router/words.h"

namespace expert {
namespace {

constexpr double kEverydayWorth = 0.125;
constexpr double kExclusionCost = 2.0;
constexpr double kClearEvidence = 2.0;

// Words that stand in any request and say little about who should answer it.
const std::set<std::string_view>& everyday_words() {
  static const std::set<std::string_view> kWords = {
      "a",     "add",   "all",  "an",   "and",  "any",   "are",   "as",   "by",  "can",  "create", "data",
      "do",    "find",  "for",  "from", "get",  "give",  "has",   "have", "how", "in",   "is",     "it",
      "list",  "make",  "me",   "my",   "name", "need",  "new",   "of",   "on",  "or",   "put",    "show",
      "tell",  "text",  "than", "that", "the",  "their", "this",  "to",   "use", "want", "what",   "when",
      "where", "which", "who",  "why",  "will", "with",  "write", "you"};
  return kWords;
}

// How general questions begin.
const std::vector<std::vector<Word>>& question_openings() {
  static const std::vector<std::vector<Word>> kOpenings = [] {
    std::vector<std::vector<Word>> openings;
    for (const char* text :
         {"what is",  "what are",  "what was",      "what were",      "what does",     "what do",
          "what's",   "who is",    "who are",       "who was",        "who were",      "who's",
          "where is", "where are", "where's",       "when is",        "when are",      "when was",
          "how to",   "how do",    "how does",      "how can",        "how is",        "how are",
          "why",      "explain",   "meaning of",    "the meaning of", "definition of", "the definition of",
          "define",   "describe",  "tell me about", "tell me what",   "tell me why"}) {
      openings.push_back(split_words(text));
    }
    return openings;
  }();
  return kOpenings;
}

// The prompt's words with an index by word, so that long prompts and long keyword lists stay cheap.
class PromptWords {
 public:
  explicit PromptWords(std::string_view prompt) : words_(split_words(prompt)) {
    for (size_t i = 0; i < words_.size(); ++i) positions_[words_[i].text].push_back(i);
  }

  bool contains(const std::vector<Word>& phrase) const {
    if (phrase.empty()) return false;
    const auto found = positions_.find(phrase.front().text);
    if (found == positions_.end()) return false;
    return std::any_of(found->second.begin(), found->second.end(),
                       [&](size_t at) { return matches_at(phrase, at, true); });
  }
  // Polite words before it do not count. An apostrophe may stand inside an opening ("what's").
  bool opens_with(const std::vector<Word>& phrase) const { return matches_at(phrase, first_meant(), false); }

 private:
  bool matches_at(const std::vector<Word>& phrase, size_t at, bool unbroken) const {
    if (phrase.size() > words_.size() - std::min(at, words_.size())) return false;
    for (size_t i = 0; i < phrase.size(); ++i) {
      if (words_[at + i].text != phrase[i].text) return false;
      if (unbroken && i > 0 && phrase[i].follows && !words_[at + i].follows) return false;
    }
    return true;
  }
  size_t first_meant() const {
    static const std::set<std::string_view> kPolite = {"please", "hi",    "hello", "hey", "can",
                                                       "could",  "would", "you",   "so",  "ok"};
    size_t at = 0;
    while (at < words_.size() && kPolite.contains(words_[at].text)) ++at;
    return at;
  }

  std::vector<Word> words_;
  std::map<std::string, std::vector<size_t>, std::less<>> positions_;
};

std::string_view value_of(std::string_view capability, std::string_view prefix) {
  return capability.starts_with(prefix) ? capability.substr(prefix.size()) : std::string_view{};
}

bool has_tag(const RouteCandidate& candidate, std::string_view prefix) {
  return std::any_of(candidate.capabilities.begin(), candidate.capabilities.end(),
                     [&](const std::string& capability) { return capability.starts_with(prefix); });
}

bool is_format_expert(const RouteCandidate& candidate) {
  static constexpr std::array<std::string_view, 6> kContent = {
      "task:", "query:", "database:", "domain:", "tech:", "usecase:"};
  return has_tag(candidate, "format:") &&
         std::none_of(kContent.begin(), kContent.end(), [&](std::string_view tag) { return has_tag(candidate, tag); });
}

// Whether its answers are queries over the schema a user would give.
bool queries_a_schema(const RouteCandidate& candidate) {
  if (has_tag(candidate, "query:") || has_tag(candidate, "database:")) return true;
  return std::any_of(candidate.capabilities.begin(), candidate.capabilities.end(), [](const std::string& capability) {
    const std::string_view task = value_of(capability, "task:"), format = value_of(capability, "format:");
    return task.ends_with("2sql") || task.ends_with("2cypher") || task.ends_with("-to-sql") || format == "sql" ||
           format == "cypher";
  });
}

bool shares_format(const RouteCandidate& a, const RouteCandidate& b) {
  return std::any_of(a.capabilities.begin(), a.capabilities.end(), [&](const std::string& capability) {
    return capability.starts_with("format:") &&
           std::find(b.capabilities.begin(), b.capabilities.end(), capability) != b.capabilities.end();
  });
}

// `pattern` is "name", "name@range" or "name<=range"; ranges are taken as all versions, which errs on the safe side.
bool names(const std::string& pattern, const RouteCandidate& candidate) {
  auto bare = [](std::string_view name) {
    name = name.substr(0, name.find_first_of("@<>= "));
    return name.starts_with("expert-") ? name.substr(7) : name;
  };
  return bare(pattern) == bare(candidate.name);
}

bool incompatible(const RouteCandidate& a, const RouteCandidate& b) {
  auto excludes = [](const RouteCandidate& one, const RouteCandidate& other) {
    const auto& patterns = one.constraints.incompatible_with;
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& p) { return names(p, other); });
  };
  return excludes(a, b) || excludes(b, a);
}

struct Judgement {
  const RouteCandidate* candidate = nullptr;
  bool format = false;
  double score = 0;
  std::string reason;
  bool chosen = false;
};

class Judge {
 public:
  Judge(std::string_view prompt, const RouteOptions& options) : words_(prompt), options_(options) {
    const auto& openings = question_openings();
    general_question_ =
        std::any_of(openings.begin(), openings.end(), [&](const auto& opening) { return words_.opens_with(opening); });
  }
  bool general_question() const { return general_question_; }

  Judgement judge(const RouteCandidate& candidate) const {
    Judgement judgement{.candidate = &candidate, .format = is_format_expert(candidate), .score = 0, .reason = {}};
    const Hits hits = find_hits(candidate.routing.keywords);
    const std::vector<std::string> excluded = find_exclusions(candidate.routing.exclude_keywords);
    const bool schema = !options_.schema.empty() && !judgement.format && queries_a_schema(candidate);
    const double evidence =
        std::max(0.0, hits.worth + (schema ? 1.0 : 0.0) - kExclusionCost * static_cast<double>(excluded.size()));
    judgement.reason = describe(hits, excluded, schema);
    const bool clear = evidence >= kClearEvidence || (schema && evidence > 0) || (judgement.format && hits.any_phrase);
    if (general_question_ && !clear) {
      judgement.reason = "general question; " + judgement.reason;
      return judgement;
    }
    judgement.score = evidence / (evidence + 1) * (0.5 + 0.5 * std::clamp(candidate.routing.priority, 0.0, 1.0));
    return judgement;
  }

 private:
  struct Hits {
    std::vector<std::string> keywords;
    double worth = 0;
    bool any_phrase = false;  // one of several words
  };

  Hits find_hits(const std::vector<std::string>& keywords) const {
    Hits hits;
    std::set<std::string> seen;
    for (const std::string& keyword : keywords) {
      const std::vector<Word> phrase = split_words(keyword);
      std::string folded;
      for (const Word& word : phrase) folded += word.text + " ";
      if (!seen.insert(folded).second || !words_.contains(phrase)) continue;
      hits.keywords.push_back(keyword);
      hits.any_phrase |= phrase.size() > 1;
      hits.worth += phrase.size() == 1 && everyday_words().contains(phrase[0].text) ? kEverydayWorth : 1.0;
    }
    return hits;
  }

  std::vector<std::string> find_exclusions(const std::vector<std::string>& keywords) const {
    std::vector<std::string> found;
    for (const std::string& keyword : keywords) {
      const std::vector<Word> phrase = split_words(keyword);
      const bool opening = general_question_ && words_.opens_with(phrase);
      if (words_.contains(phrase) && !opening) found.push_back(keyword);
    }
    return found;
  }

  static std::string describe(const Hits& hits, const std::vector<std::string>& excluded, bool schema) {
    std::vector<std::string> parts;
    if (!hits.keywords.empty()) parts.push_back(fmt::format("matched {}", fmt::join(hits.keywords, ", ")));
    if (schema) parts.push_back("a schema was given");
    if (!excluded.empty()) parts.push_back(fmt::format("excluded by {}", fmt::join(excluded, ", ")));
    return parts.empty() ? "no keyword matched" : fmt::format("{}", fmt::join(parts, "; "));
  }

  PromptWords words_;
  const RouteOptions& options_;
  bool general_question_ = false;
};

// Marks who is chosen, best first; `judgements` is sorted by score.
std::vector<const Judgement*> choose(std::vector<Judgement>& judgements, const RouteOptions& options) {
  std::vector<const Judgement*> chosen;
  size_t limit = options.max_experts;
  auto take = [&](Judgement& one) {
    const auto max_chain = static_cast<size_t>(std::max<int64_t>(one.candidate->constraints.max_chain, 1));
    if (chosen.size() + 1 > std::min(limit, max_chain)) return void(one.reason += "; the composition is full");
    for (const Judgement* other : chosen) {
      if (incompatible(*one.candidate, *other->candidate)) {
        return void(one.reason += fmt::format("; incompatible with {}", other->candidate->name));
      }
      if (shares_format(*one.candidate, *other->candidate)) {
        return void(one.reason += fmt::format("; {} already answers in this format", other->candidate->name));
      }
    }
    limit = std::min(limit, max_chain);
    one.chosen = true;
    chosen.push_back(&one);
  };
  for (const bool format : {false, true}) {
    for (Judgement& one : judgements) {
      if (one.format != format || one.score <= 0) continue;
      if (one.score < options.threshold) {
        one.reason += "; below the threshold";
      } else if (!format && !chosen.empty()) {
        one.reason += fmt::format("; {} scores higher", chosen.front()->candidate->name);
      } else {
        take(one);
      }
    }
  }
  return chosen;
}

double confidence_of(const std::vector<Judgement>& judgements, const std::vector<const Judgement*>& chosen) {
  double best = 0, rival = 0;
  for (const Judgement& one : judgements) {
    if (one.chosen || chosen.empty()) best = std::max(best, one.score);
    if (!one.chosen && !one.format) rival = std::max(rival, one.score);
  }
  return chosen.empty() ? 1.0 - best : std::clamp(best - rival / 2, 0.0, 1.0);
}

std::string explain(const std::vector<const Judgement*>& chosen, bool general_question) {
  if (chosen.empty()) return general_question ? "base: a general question" : "base: no expert fits well enough";
  std::vector<std::string> parts;
  for (const Judgement* one : chosen) parts.push_back(fmt::format("{} ({})", one->candidate->name, one->reason));
  return fmt::format("{}", fmt::join(parts, " + "));
}

RoutedExpert to_routed(const Judgement& judgement) {
  return {.name = judgement.candidate->name,
          .version = judgement.candidate->version,
          .weight = judgement.chosen ? 1.0 : 0.0,
          .score = judgement.score,
          .reason = judgement.reason};
}

}  // namespace

RouteCandidate RouteCandidate::from(const Manifest& manifest) {
  return {.name = manifest.name,
          .version = manifest.version,
          .capabilities = manifest.capabilities,
          .routing = manifest.routing,
          .constraints = manifest.constraints,
          .decoding = manifest.decoding};
}

RoutePlan route(std::string_view prompt, const std::vector<RouteCandidate>& candidates, const RouteOptions& options) {
  const Judge judge(prompt, options);
  std::vector<Judgement> judgements;
  for (const RouteCandidate& candidate : candidates) judgements.push_back(judge.judge(candidate));
  std::stable_sort(judgements.begin(), judgements.end(), [](const Judgement& a, const Judgement& b) {
    return a.score != b.score ? a.score > b.score : a.candidate->name < b.candidate->name;
  });
  const std::vector<const Judgement*> chosen = choose(judgements, options);
  RoutePlan plan;
  std::vector<DecodingSource> decoding;
  for (const Judgement* one : chosen) {
    plan.experts.push_back(to_routed(*one));
    decoding.push_back({one->candidate->name, 1.0, &one->candidate->decoding});
  }
  for (const Judgement& one : judgements) plan.considered.push_back(to_routed(one));
  plan.parameters = to_parameters(merge_decoding(decoding));
  plan.confidence = confidence_of(judgements, chosen);
  plan.explanation = explain(chosen, judge.general_question());
  return plan;
}

}  // namespace expert
