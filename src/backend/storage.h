// How the kernels store weights of each format.
#pragma once

#include "backend/matrix.h"
#include "kernels/formats.h"

namespace expert {

constexpr kernels::Storage storage_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::f32:
      return kernels::Storage::f32;
    case WeightFormat::bf16:
      return kernels::Storage::bf16;
    case WeightFormat::int8:
      return kernels::Storage::int8;
    case WeightFormat::int4:
      break;
  }
  return kernels::Storage::int4;
}

}  // namespace expert
