// One question, one answer: `run`, and `chat --prompt`.
#pragma once

#include "generation.h"

namespace cli {

void run_once(const ModelOptions& model, const RequestOptions& options, const StreamChoice& choice,
              const Common& common);

}  // namespace cli
