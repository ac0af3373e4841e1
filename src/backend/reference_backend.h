// The same interface over plain scalar loops with FP64 sums: the truth other backends are compared with. Slow.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace expert {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace expert
