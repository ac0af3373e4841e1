// The first router: prompt → experts with weights and reasons, by the keywords in the manifests alone. Nothing here
// knows any expert by name. Pure and deterministic: same prompt, candidates and options, same plan. Thread-safe.
//
// Score of one candidate, in [0, 1]:
//   hits      = distinct keywords found as whole words in the prompt (a keyword of several words matches across any
//   white
//               space; letter case does not count), each worth 1, or 1/8 when it is one everyday word ("get", "all", …)
//   evidence  = Σ worth; +1 when a schema was given and the capabilities say that the answer is a query over one;
//               −2 for each exclude keyword found, but for a question word at the start, which the next rule handles
//   strength  = evidence / (evidence + 1)         1 hit → 0.5, 2 → 0.67, 3 → 0.75: never lowered by a long keyword list
//   score     = strength · (0.5 + 0.5 · priority)
// General questions: a prompt that starts like one ("what is", "who are", "explain", …) goes to the base unless a
// candidate's evidence is at least 2, or comes from the schema, or (format experts) from a keyword of several words.
// Composition: at most one content expert, the best of those that reach the threshold, and beside it every format
// expert that reaches it, unless the content expert already answers in that format. A format expert has a "format:"
// capability and none that names a content (task:, query:, database:, domain:, tech:, usecase:). Experts that exclude
// each other by `incompatible_with` are not chosen together, and the smallest `max_chain` of the chosen is respected.
// Ties: higher score, then name. Weights are 1.
// Confidence: the best chosen score less half the best rejected content score; for the base, 1 − the best score.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "packages/manifest.h"

namespace expert {

struct RouteCandidate {
  std::string name;  // as it should appear in the plan
  std::string version;
  std::vector<std::string> capabilities;
  ManifestRouting routing;
  ManifestConstraints constraints;
  ManifestDecoding decoding;

  static RouteCandidate from(const Manifest& manifest);
};

struct RouteOptions {
  std::string_view schema;  // text given beside the prompt, may be empty
  double threshold = 0.25;  // least score that is chosen
  size_t max_experts = 10;
};

struct RoutedExpert {
  std::string name;
  std::string version;
  double weight = 1.0;
  double score = 0.0;  // 0 … 1
  std::string reason;  // one line: what matched, or why it was not chosen
};

struct RoutePlan {
  std::vector<RoutedExpert> experts;     // chosen, best content expert first; empty = the base answers
  std::vector<RoutedExpert> considered;  // all candidates by score, weight 0 when not chosen
  Json parameters;                       // to_parameters(merge_decoding(chosen))
  double confidence = 0.0;               // of the choice, 0 … 1
  std::string explanation;               // one line
};

RoutePlan route(std::string_view prompt, const std::vector<RouteCandidate>& candidates,
                const RouteOptions& options = {});

}  // namespace expert
