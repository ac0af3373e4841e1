// Scales of quantised weights by trying: every lane is one output, so that no sum crosses lanes and all instruction
// sets, and the reference, choose the same. Errors are compared in units of the largest weight: nothing overflows.
#include "kernels/cpu/dot.h"

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

namespace {

// The weights of one vector of outputs over a group.
struct Group {
  Floats w[kGroup];
  Floats least;  // at most 0
  Floats most;   // at least 0
  Floats magnitude;
  Ints finite;  // all ones where every weight is
};

struct Choice {
  Floats error;
  Words scale;  // bits of the float
  Floats zero;
};

EXPERT_INLINE void read_group(const float* w, Group& group) {
  Ints largest = {};
  group.least = Floats{};
  group.most = Floats{};
  for (int64_t k = 0; k < kGroup; ++k) {
    const Floats value = load(w + k * kPanelRows);
    group.w[k] = value;
    group.least = value < group.least ? value : group.least;
    group.most = value > group.most ? value : group.most;
    const Ints bits = reinterpret_cast<Ints>(reinterpret_cast<Words>(value) & 0x7FFFFFFFU);
    largest = bits > largest ? bits : largest;
  }
  group.magnitude = max(group.most, -group.least);
  group.finite = largest < 0x7F800000;
}

EXPERT_INLINE Floats clamp(Floats x, float low, float high) {
  x = x > splat(low) ? x : splat(low);
  return x < splat(high) ? x : splat(high);
}

// Half to even.
EXPERT_INLINE Floats round(Floats x) { return (x + splat(0x1.8p23F)) - splat(0x1.8p23F); }

// The error with one scale per lane, against the best so far.
EXPERT_INLINE void try_scale(const Group& group, Words bits, Floats zero, float low, float high, Choice& best) {
  const Floats scale = reinterpret_cast<Floats>(bits);
  const Floats inverse = splat(1.0F) / scale;
  Floats sum = {};
  for (int64_t k = 0; k < kGroup; ++k) {
    const Floats wanted = group.w[k] * inverse + zero;
    const Floats off = wanted - round(clamp(wanted, low, high));
    sum += off * off;
  }
  const Floats unit = scale / group.magnitude;
  const Floats error = sum * (unit * unit);
  const Ints better = error < best.error;
  best.error = better ? error : best.error;
  best.scale = better ? bits : best.scale;
  best.zero = better ? zero : best.zero;
}

EXPERT_INLINE void search_int8(const Group& group, Choice& best) {
  const Words start = reinterpret_cast<Words>(group.magnitude * splat(1.0F / 127.0F)) >> 16;
  for (uint32_t i = 0; i < kInt8ScaleTries; ++i) {
    try_scale(group, (start + i - kInt8ScalesBelow) << 16, splat(kInt8Zero), 1.0F, 255.0F, best);
  }
}

EXPERT_INLINE void search_int4(const Group& group, Choice& best) {
  for (uint32_t z = 0; z < kInt4Zeros; ++z) {
    const float zero = kInt4FirstZero + kInt4ZeroStep * static_cast<float>(z);
    const Floats range = max(group.most * splat(1.0F / (15.0F - zero)), group.least * splat(-1.0F / zero));
    const Words start = reinterpret_cast<Words>(range) >> 19;
    for (uint32_t i = 0; i < kInt4ScaleTries; ++i) {
      try_scale(group, (start + i - kInt4ScalesBelow) << 19, splat(zero), 0.0F, 15.0F, best);
    }
  }
}

}  // namespace

void quantise_weights(Storage storage, const float* w, uint16_t* scales, unsigned char* codes) {
  const bool eight = storage == Storage::int8;
  const float low = eight ? 1.0F : 0.0F;
  const float high = eight ? 255.0F : 15.0F;
  const Floats first_zero = splat(eight ? kInt8Zero : kInt4FirstZero);
  for (int v = 0; v < kPanelVectors; ++v) {
    Group group;
    read_group(w + v * kLanes, group);
    Choice best = {splat(__builtin_inff()), Words{}, first_zero};
    if (eight) {
      search_int8(group, best);
    } else {
      search_int4(group, best);
    }
    const Ints counts = group.finite & (group.magnitude > splat(kLeastQuantised));
    const Words usable = counts ? best.scale : Words{};
    const Floats zero = counts ? best.zero : first_zero;
    const Floats inverse = splat(1.0F) / (counts ? reinterpret_cast<Floats>(best.scale) : splat(1.0F));
    const Words bits = group.finite ? usable : splat_words(0x7FC00000U);
    const Floats steps = (zero - first_zero) * splat(1.0F / kInt4ZeroStep);  // none for INT8
    for (int i = 0; i < kLanes; ++i) {
      scales[v * kLanes + i] = static_cast<uint16_t>(bits[i] >> 16 | static_cast<uint32_t>(steps[i]));
    }
    for (int64_t k = 0; k < kGroup; ++k) {
      const Floats weight = counts ? group.w[k] : Floats{};
      const Floats code = round(clamp(weight * inverse + zero, low, high));
      float lane[kLanes];
      store(lane, code);
      for (int i = 0; i < kLanes; ++i) codes[k * kPanelRows + v * kLanes + i] = static_cast<unsigned char>(lane[i]);
    }
  }
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE
