// Reads narrow BF16 (kernels/formats.h): what comes out are lines of a BF16 panel.
#pragma once

#include "kernels/cpu/simd.h"

#if defined(EXPERT_NARROW)

namespace expert::kernels::EXPERT_ISA_NAMESPACE {

constexpr int64_t kUnitLines = kNarrowInputs / 2;
constexpr int64_t kWidenedBytes = kUnitLines * 64;  // of a unit

typedef uint8_t Bytes __attribute__((vector_size(4 * kLanes)));

EXPERT_INLINE Bytes load_bytes(const unsigned char* p) {
  Bytes v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// Of a table of 16 bytes; indices are below 16.
EXPERT_INLINE Bytes look_up(const unsigned char* from, Bytes index) {
#if defined(__AVX512F__)
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<Bytes>(
      _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), reinterpret_cast<__m512i>(index)));
#elif defined(__AVX2__)
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<Bytes>(
      _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), reinterpret_cast<__m256i>(index)));
#else
  return vqtbl1q_u8(vld1q_u8(from), index);
#endif
}

// The same of a table that each 16 bytes hold.
EXPERT_INLINE Bytes look_up_in(Bytes table_of_codes, Bytes index) {
#if defined(__AVX512F__)
  return reinterpret_cast<Bytes>(
      _mm512_shuffle_epi8(reinterpret_cast<__m512i>(table_of_codes), reinterpret_cast<__m512i>(index)));
#elif defined(__AVX2__)
  return reinterpret_cast<Bytes>(
      _mm256_shuffle_epi8(reinterpret_cast<__m256i>(table_of_codes), reinterpret_cast<__m256i>(index)));
#else
  return vqtbl1q_u8(table_of_codes, index);
#endif
}

// In each 16 bytes, the first or the last eight of both in turns.
EXPERT_INLINE Words first_in_turns(Bytes a, Bytes b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_unpacklo_epi8(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_unpacklo_epi8(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  return reinterpret_cast<Words>(vzip1q_u8(a, b));
#endif
}

EXPERT_INLINE Words last_in_turns(Bytes a, Bytes b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_unpackhi_epi8(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_unpackhi_epi8(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
  return reinterpret_cast<Words>(vzip2q_u8(a, b));
#endif
}

// What first_in_turns and last_in_turns take apart: in each 16 bytes, the first (0) or second (1) byte of the eight halves of a
// word of `a`, then of `b`.
template <int kByte>
EXPERT_INLINE Bytes every_second(Words a, Words b) {
#if defined(__ARM_NEON)
  const auto x = reinterpret_cast<uint8x16_t>(a), y = reinterpret_cast<uint8x16_t>(b);
  return kByte == 0 ? vuzp1q_u8(x, y) : vuzp2q_u8(x, y);
#else
  const Words keep = (Words{} + 0x00FF00FFU);
  const Words x = kByte == 0 ? a & keep : a >> 8 & keep, y = kByte == 0 ? b & keep : b >> 8 & keep;
#if defined(__AVX512F__)
  return reinterpret_cast<Bytes>(_mm512_packus_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
#else
  return reinterpret_cast<Bytes>(_mm256_packus_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
#endif
#endif
}

EXPERT_INLINE bool any(Bytes v) {
  uint64_t words[sizeof v / 8];
  __builtin_memcpy(words, &v, sizeof v);
  uint64_t all = 0;
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

// The rows whose bases the bytes of a unit's codes go with.
alignas(64) constexpr unsigned char kRowOfCode[64] = {
    0, 0, 1, 1, 2,  2,  3,  3,  0, 0, 1, 1, 2,  2,  3,  3,  4,  4,  5,  5,  6,  6,  7,  7,  4,  4,  5,  5,  6,  6,  7,  7,
    8, 8, 9, 9, 10, 10, 11, 11, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 12, 12, 13, 13, 14, 14, 15, 15};
// What a code adds to its base: the distance below it, and the sign.
alignas(16) constexpr unsigned char kStepOfCode[16] = {0,   255, 254, 253, 252, 251, 250, 249,
                                                       128, 127, 126, 125, 124, 123, 122, 121};

// The codes in order, in every 16 bytes; and what remains of a high byte of a factor, where code 7 is zero.
alignas(64) constexpr unsigned char kCodes[64] = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
alignas(16) constexpr unsigned char kNotZero[16] = {255, 255, 255, 255, 255, 255, 255, 0,
                                                    255, 255, 255, 255, 255, 255, 255, 128};

// The panel's exceptions, met in order.
class Exceptions {
 public:
  void open(const unsigned char* first, int64_t most) {
    next_ = first;
    end_ = first + 4 * most;
  }

  // The unit that has the next one, or one that no panel has.
  int64_t unit() const { return static_cast<int64_t>(word() / (kUnitLines << 13)); }

  // Leaves out those of the units before.
  void skip(int64_t first_unit) {
    while (next_ < end_ && unit() < first_unit) next_ += 4;
  }

  // Puts those of a unit into its four lines.
  void put(unsigned char* lines) {
    for (const int64_t here = unit(); unit() == here && next_ < end_; next_ += 4) {
      lines[word() / (1U << 13) % kUnitLines * 64 + (word() >> 8 & 31U) * 2 + 1] = static_cast<unsigned char>(word());
    }
  }

 private:
  uint32_t word() const {
    uint32_t word = kNoException;
    if (next_ < end_) __builtin_memcpy(&word, next_, sizeof word);
    return word;
  }

  const unsigned char* next_;
  const unsigned char* end_;
};

// Two lines of a unit, the first (0) or the last (1): high bytes from codes by `high`, interleaved with the low bytes.
typedef Words HalfUnit[kUnitLines / 2][kPanelVectors];

template <int kHalf, class High>
EXPERT_INLINE void widen_half(const unsigned char* unit, const High& high_of, HalfUnit& lines) {
  for (int v = 0; v < kPanelVectors; ++v, unit += sizeof(Bytes)) {
    const Bytes both = load_bytes(unit);
    const Bytes high = high_of(v, kHalf == 0 ? both & 15 : both >> 4);
    const Bytes low = load_bytes(unit + 64 + 64 * kHalf);
    lines[0][v] = first_in_turns(low, high);
    lines[1][v] = last_in_turns(low, high);
  }
}

// To where the next two lines come.
EXPERT_INLINE unsigned char* put_half(const HalfUnit& lines, unsigned char* to) {
  for (int i = 0; i < kUnitLines / 2; ++i) {
    for (int v = 0; v < kPanelVectors; ++v, to += sizeof(Words)) __builtin_memcpy(to, &lines[i][v], sizeof(Words));
  }
  return to;
}

class NarrowPanel {
 public:
  __attribute__((always_inline)) void open(const void* panels, int64_t inputs, int64_t index) {
    const auto* panel = static_cast<const unsigned char*>(panels) + index * panel_bytes(Storage::narrow_bf16, inputs);
    units_ = panel + narrow_head_bytes(inputs);
    exceptions_.open(panel + kNarrowBases, most_exceptions(inputs));
    for (int v = 0; v < kPanelVectors; ++v) bases_[v] = look_up(panel, load_bytes(kRowOfCode + v * kVectorBytes));
  }

  // The first unit not yet passed that has exceptions, which widen() does not know of. Loops run up to it: a check in each
  // step would cost the compiler its registers.
  int64_t next_exception() const { return exceptions_.unit(); }
  void skip(int64_t first_unit) { exceptions_.skip(first_unit); }

  // The first (0) or last (1) two lines of a unit.
  template <int kHalf>
  __attribute__((always_inline)) void widen(int64_t unit, HalfUnit& lines) const {
    widen_half<kHalf>(
        units_ + unit * kNarrowUnitBytes,
        [&](int v, Bytes codes) __attribute__((always_inline)) { return bases_[v] + look_up(kStepOfCode, codes); }, lines);
  }

  // The four lines of a unit, its exceptions among them; units with exceptions in ascending order.
  __attribute__((always_inline)) void read(int64_t unit, unsigned char* lines) {
    HalfUnit half;
    widen<0>(unit, half);
    unsigned char* last = put_half(half, lines);
    widen<1>(unit, half);
    put_half(half, last);
    if (unit == exceptions_.unit()) [[unlikely]] exceptions_.put(lines);
  }

  __attribute__((always_inline)) void prefetch(int64_t unit) const {
    for (int64_t at = 0; at < kNarrowUnitBytes; at += 64) __builtin_prefetch(units_ + unit * kNarrowUnitBytes + at);
  }

 private:
  static constexpr int kVectorBytes = static_cast<int>(sizeof(Bytes));

  Exceptions exceptions_;
  const unsigned char* units_;
  Bytes bases_[kPanelVectors];
};

// Lines of a row of A, or a panel of B (kernels/factors.h).
class NarrowLines {
 public:
  __attribute__((always_inline)) void open(const unsigned char* head, int64_t head_bytes) {
    units_ = head + head_bytes;
    const Bytes steps = look_up(kStepOfCode, load_bytes(kCodes));
    high_ = (steps + head[0]) & look_up(kNotZero, load_bytes(kCodes));
  }

  template <int kHalf>
  __attribute__((always_inline)) void widen(int64_t unit, HalfUnit& lines) const {
    const auto high = [&](int, Bytes codes) __attribute__((always_inline)) { return look_up_in(high_, codes); };
    widen_half<kHalf>(units_ + unit * kNarrowUnitBytes, high, lines);
  }

 private:
  const unsigned char* units_;
  Bytes high_;  // of each code, in every 16 bytes
};

// The lines of so many units behind a head; gives where the next ones come.
EXPERT_INLINE unsigned char* widen_lines(const unsigned char* head, int64_t head_bytes, int64_t units, unsigned char* to) {
  NarrowLines narrow;
  narrow.open(head, head_bytes);
  for (int64_t unit = 0; unit < units; ++unit) {
    HalfUnit lines;
    narrow.widen<0>(unit, lines);
    to = put_half(lines, to);
    narrow.widen<1>(unit, lines);
    to = put_half(lines, to);
  }
  return to;
}

}  // namespace expert::kernels::EXPERT_ISA_NAMESPACE

#endif
