// A copy of a matrix by which its largest products can be found without reading the rest of it: three bits per weight for
// all rows, in panels, and a fourth for each row that may still matter then.
//
// The copy is rounded with a subtracted dither (Schuchman 1964): with one random number u_k in [0, 1) per input, the code
// of a weight is c = floor(w / scale + 3.5 + u_k) of 0 to 7, and stands for scale * (c - 3 - u_k). With the fourth bit
// b = floor(2 (w / scale + 3.5 + u_k)) - 2 c it stands for scale * (c + b / 2 - 3.25 - u_k). Both errors of a row are then
// independent and uniform, within half a step and a quarter of one. For activations h that do not depend on the numbers u,
// the products of a row with the matrix and with the copy differ by more than
//   sqrt(ln(2 / delta) / 6) * sqrt(sum over groups g of scale_g^2 ||h_g||^2)
// with a probability of at most delta (Chernoff's bound: E exp(t e) = sinh(t / 2) / (t / 2) <= exp(t^2 / 24) for e uniform
// within a half), with the fourth bit by more than a half of that. By Cauchy and Schwarz the sum is at most
// sqrt(sum scale_g^4) sqrt(sum ||h_g||^4), of which the first factor is the matrix's own: so much is known of a row before
// its fourth bits and scales are read.
//
// A panel is laid out as one of INT8 and INT4 (kernels/formats.h), with three lines of codes per group and the rows' scales as
// floats in the head. Byte i of lane r of these holds of input k = 8 p + 4 q + i, in lines 0
// and 1 for p / 2 = 0 and 1, the two low bits of its code from bit 4 q + p % 2 * 2 on, and in line 2 the high one in bit
// 4 q + p. A byte s of scales means 2^(s / 16 - 15) * (1 + s % 16 / 16), of the row's scale.
// The fourth bits are laid out by rows: the row's scale as a float, the groups' bytes of scales, and a word of bits per group.
#pragma once

#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels {

constexpr int64_t kScreenGroupBytes = 3 * 64;  // of codes
constexpr uint32_t kScreenScaleBits = 0x38000000U;  // of the float that byte 0 of scales means
constexpr int kScreenScaleShift = 19;

// sqrt(ln(2 / delta) / 6) for delta = 2^-50.
constexpr double kScreenConfidence = 2.4273;
constexpr double kScreenSlack = 1.001;  // margins are computed in floating point too

constexpr int64_t screen_scales_at(int64_t group) { return grouped_scales_at(kScreenGroupBytes, group); }
constexpr int64_t screen_codes_at(int64_t group) { return grouped_codes_at(kScreenGroupBytes, group); }
constexpr int64_t screen_panel_bytes(int64_t inputs) { return grouped_panel_bytes(kScreenGroupBytes, group_count(inputs)); }
constexpr int64_t screen_row_bytes(int64_t inputs) { return 4 + (group_count(inputs) * 5 + 3) / 4 * 4; }

// Of the rows of one panel, the largest of each.
struct ScreenBound {
  float spread;  // (sum over groups of scale^4)^(1/4)
  float norm;    // length of a row
};

// How far products of one row of activations with the copy may be from those with the matrix, for a panel with bound b:
// spread * b.spread + norm * b.norm + least. With the fourth bit Refined::margin stands for the first term. Not finite where
// the activations are not.
struct ScreenMargin {
  float spread;
  float norm;
  float least;
};

// `w`: the [rows <= 16, inputs] weights of one panel, finite. `fourth`: of its 16 rows.
void pack_screen_panel(const float* w, int64_t rows, int64_t inputs, unsigned char* panel, unsigned char* fourth,
                       ScreenBound& bound);

// A row x of activations as products with the copy read it: `prepared`, of quantised_row_bytes(), for CpuKernels::screen, and
// `fourth`, of fourth_row_words(), for CpuKernels::refine. `quantise`: CpuKernels::prepare_row. `storage`: of the matrix, whose
// products round activations in their own way.
typedef void (*QuantiseRow)(Storage storage, const float* x, int64_t inputs, InputRange part, unsigned char* out);
ScreenMargin prepare_screened_row(QuantiseRow quantise, Storage storage, const float* x, int64_t inputs,
                                  unsigned char* prepared, int32_t* fourth);

// Words of it: the codes; then as floats the scales of the groups as parts of the largest, the sums of their codes and of these
// squared, zeros behind the last up to a multiple of 16 groups, and the largest scale in a line; then the codes as bytes.
constexpr int64_t fourth_groups(int64_t inputs) { return (group_count(inputs) + 15) / 16 * 16; }
constexpr int64_t fourth_bytes_at(int64_t inputs) {  // words
  return group_count(inputs) * kGroup + 3 * fourth_groups(inputs) + 16;
}
constexpr int64_t fourth_row_words(int64_t inputs) { return fourth_bytes_at(inputs) + fourth_groups(inputs) * kGroup / 4; }

// maxima[p] = the largest of y at the outputs of panel p, for p in [begin, end). False, and maxima without meaning, where
// one of them is a NaN.
bool panel_maxima(const float* y, int64_t outputs, int64_t begin, int64_t end, float* maxima);

}  // namespace expert::kernels
