// expert._core.ResultBase: what a result holds in memory of the library, and Python's objects for what was asked for.
#pragma once

#include "interop.h"

namespace expert_python {

// An expert.Result over a result of the library; `chunk`: the one that carries it, else the result is taken itself.
// Throws what Python raised.
py::object make_result(ResultHandle result);
py::object make_result(ChunkHandle chunk);

py::object tokens_of(const int32_t* tokens, size_t count);

// Adds ResultBase, and set_types(), by which results.py says which classes results are made of.
void bind_result(py::module_& m);

}  // namespace expert_python
