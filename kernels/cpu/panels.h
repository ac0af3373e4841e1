// Repacking of row-major weights into panels (kernels/formats.h). Plain code, run once per matrix.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels {

enum class Source : int { f32, f16, bf16 };

// Packs `rows` rows of `source` [rows, inputs] into consecutive whole panels; rows missing in the last one become
// zeros. BF16 output rounds to nearest even. `source` needs no alignment.
void pack_panels(Source type, const void* source, int64_t rows, int64_t inputs, Storage storage, unsigned char* panels);

}  // namespace expert::kernels
