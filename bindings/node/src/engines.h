// The engines of the process, whichever JavaScript environment opened them.
#pragma once

#include "request.h"

namespace expert_node {

// Freeing waits for the engine's thread, so it happens on none of JavaScript's.
EngineHandle hold_engine(expert_engine* engine);

// Closes all engines and waits for calls that run, for as long as they may take to notice: exit() destroys what other threads
// may be using, OpenSSL's and the library's tables. Nothing begins after it until an environment does.
void end_all();

// An environment begins or ends; with the last one all ends.
void begin_environment();
void end_environment();

}  // namespace expert_node
