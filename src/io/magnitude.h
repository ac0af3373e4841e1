// The largest magnitude among stored values, read at memory speed: weights are scanned with it while they are loaded.
#pragma once

#include <cstddef>

#include "core/types.h"

namespace expert {

// max |v| over `count` values of type F32, F16 or BF16 as stored; infinity where one of them is infinite or NaN, 0 for
// none. `values` needs no alignment. Other types are Error(internal).
float largest_magnitude(DType dtype, const void* values, size_t count);

}  // namespace expert
