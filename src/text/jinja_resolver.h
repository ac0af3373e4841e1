// Gives every variable its slot, by the rules of Jinja2's compiler: which scope a name belongs to is decided by the
// text (a name assigned anywhere in a scope is that scope's own), not by what happened to run.
#pragma once

#include "text/jinja_ast.h"

namespace expert::jinja {

struct Program {
  Nodes body;
  Scope scope;
  Routine routine;
};

// Fails with ErrorCode::load on unknown filters and tests outside of branches, break outside of a loop, and the like.
Program resolve(Nodes body);

}  // namespace expert::jinja
