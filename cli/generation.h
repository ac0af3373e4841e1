// One request from submit to its last character, with Ctrl-C in mind.
#pragma once

#include "library.h"
#include "options.h"

namespace cli {

struct StreamChoice {
  bool stream = false;
  bool no_stream = false;

  void add_to(CLI::App& app);
  // On a terminal text is shown as it comes; --json prints one document at the end.
  bool decide(const Common& common) const;
};

struct Answer {
  Result result;
  bool interrupted = false;  // Ctrl-C; the result is what there was until then
};

// Runs the request; with `stream` its text goes to stdout as it comes, followed by a line end.
Answer generate(expert_engine* engine, const expert_request* request, bool stream);
// The routing decision, the parameters in force and the timings, to stderr.
void explain(const expert_result* result);

}  // namespace cli
