// The kernels, as the host launches them: each takes one struct of args.h.
#pragma once

#include "kernels/cuda/args.h"

namespace expert::kernels::cuda {

constexpr int kRowChoices = 4;  // 1, 2, 4, 8 rows or queries at a time
constexpr int kStorages = 4;
constexpr int kKvFormats = 3;

struct Table {
  void (*product[kStorages][kRowChoices])(ProductArgs);
  void (*shrink)(ShrinkArgs);
  void (*finish)(FinishArgs);
  void (*embed)(EmbedArgs);
  void (*embed_deltas)(EmbedDeltaArgs);
  void (*prepare)(PrepareArgs);
  void (*attend[kKvFormats][kRowChoices])(AttendArgs);
  void (*merge)(MergeArgs);
  void (*rms_norm)(NormArgs);
  void (*swiglu)(PairArgs);
  void (*add)(PairArgs);
  void (*gather)(GatherArgs);
};

const Table& table();

}  // namespace expert::kernels::cuda
