// A copy of a matrix in half a byte per weight by which its largest products can be found without reading the rest of it.
//
// The copy is INT4 as in kernels/formats.h, rounded with a subtracted dither (Schuchman 1964): with one random number
// u_k in [0, 1) per input and the zero point 7.5, the code of a weight is floor(w / scale + 7.5 + u_k), and stands for
// scale * (code - 7 - u_k). The errors of a row are then independent and uniform, within half a step. For activations h
// that do not depend on the numbers u, the products of a row with the matrix and with the copy differ by more than
//   sqrt(ln(2 / delta) / 6) * sqrt(sum over groups g of scale_g^2 ||h_g||^2)
// with a probability of at most delta (Chernoff's bound: E exp(t e) = sinh(t / 2) / (t / 2) <= exp(t^2 / 24) for e uniform
// within a half). By Cauchy and Schwarz the sum is at most sqrt(sum scale_g^4) sqrt(sum ||h_g||^4), of which the first
// factor is the matrix's own.
#pragma once

#include <stdint.h>

#include "kernels/formats.h"

namespace expert::kernels {

// Of the rows of one panel, the largest of each.
struct ScreenBound {
  float spread;  // (sum over groups of scale^4)^(1/4)
  float norm;    // length of a row
};

// How far products of one row of activations with the copy may be from those with the matrix, for a panel with bound b:
// spread * b.spread + norm * b.norm + least. Not finite where the activations are not.
struct ScreenMargin {
  float spread;
  float norm;
  float least;
};

// `w`: the [rows <= 16, inputs] weights of one panel, finite.
void pack_screen_panel(const float* w, int64_t rows, int64_t inputs, unsigned char* panel, ScreenBound& bound);

// `prepared`: the row x as CpuKernels::prepare_row makes it for INT4. Its products are those with the copy afterwards.
// `storage`: of the matrix, whose products round activations in their own way.
ScreenMargin prepare_screened_row(Storage storage, const float* x, int64_t inputs, unsigned char* prepared);

// maxima[p] = the largest of y at the outputs of panel p, for p in [begin, end). False, and maxima without meaning, where
// one of them is a NaN.
bool panel_maxima(const float* y, int64_t outputs, int64_t begin, int64_t end, float* maxima);

}  // namespace expert::kernels
