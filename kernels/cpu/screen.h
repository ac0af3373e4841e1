// A copy of a matrix by which its largest products can be found without reading the rest of it: two bits per weight for all
// rows, in panels, and two more for each row that may still matter then.
//
// The rows w of the matrix are turned: w' = R w, and activations h as well, so that products stay what they are. R is made
// of random signs and Hadamard transforms. Then a turned row's coordinates are near normal whatever the row was, and one
// scale per row is all that is needed (RaBitQ: Gao and Long, SIGMOD 2024, and its extension to more bits, 2025). A row
// is rounded to z = f (c - 1.5), codes c of 0 to 3, with f chosen so that z = w' + e with e at right angles to w'. The
// product with z is then off by e h', where h' points, for a random turn, in any direction at right angles to w' alike: in d + 1
// dimensions
//   P(e h' > t |e| |h|) <= (1 - t^2)^((d-1)/2) / (t sqrt(2 pi (d-1))) sqrt(d / (d-1)), about exp(-s^2 / 2) / (s sqrt(2 pi)) for
// t = s / sqrt(d): a margin of kScreenConfidence / sqrt(d) |e| |h| is exceeded less than once in 10^10. With two more bits the codes are
// 4 c + b of 0 to 15, and |e| is a third of that.
// Activations are rounded too, to h' - d in steps of a 127th of the largest. What that adds is w' d, of the same kind but for the
// part of d along h', which is known, and e d, which is no larger than |e| |d|.
//
// The bound is one for R uniform among all turns. Three Hadamard transforms behind random signs are taken for that (four, of the
// first and the last inputs, where the inputs are no power of two), and the signs are a fixed hash of the input's place.
//
// A panel is 16 factors as floats and lines of 16 inputs each: byte i of lane r has of input k = 4 q + i the code from bit
// 2 q on. The finer bits are laid out by rows, in lines of 256 inputs each: byte i has of input k = 64 q + i the bits from 2 q on.
#pragma once

#include <stdint.h>

#include <vector>

#include "kernels/formats.h"

namespace expert::kernels {

constexpr int64_t kScreenLine = 16;       // inputs
constexpr int64_t kFineLine = 256;
constexpr int64_t kMostScreened = 1 << 17;  // inputs: sums of codes stay within 32 bits

constexpr double kScreenConfidence = 6.5;
constexpr double kScreenSlack = 1.001;  // margins are computed in floating point too

constexpr int64_t screen_panel_bytes(int64_t inputs) { return 64 + (inputs + kScreenLine - 1) / kScreenLine * 64; }

constexpr int64_t fine_lines(int64_t inputs) { return (inputs + kFineLine - 1) / kFineLine; }
constexpr int64_t fine_row_bytes(int64_t inputs) { return fine_lines(inputs) * 64; }

// Of one row, or of those of a panel the largest of each.
struct ScreenBound {
  float spread;  // |e|
  float norm;    // length of a row
};

// What is known of a row with all of its bits.
struct FineRow {
  float ratio;   // its factor beside that of the panel
  float factor;  // of the finer bits
  ScreenBound bound;
};

// How far products of one row of activations with the copy may be from those with the matrix, for a panel with bound b:
// spread * b.spread + norm * b.norm + least. With the finer bits FineRow::bound is b. Not finite where
// the activations are not.
struct ScreenMargin {
  float spread;
  float norm;
  float least;
};

// The turn of rows of so many inputs. Immutable.
class ScreenRotation {
 public:
  explicit ScreenRotation(int64_t inputs);
  // Of values no larger than 2^60.
  void apply(float* row) const;

 private:
  int64_t inputs_;
  std::vector<float> signs_;  // [rounds, inputs], with the transform's scale
};

// Where a panel goes, and what belongs to its 16 rows.
struct ScreenPanel {
  unsigned char* codes;  // screen_panel_bytes()
  unsigned char* fine;   // [16, fine_row_bytes()]
  FineRow* rows;         // [16]
  ScreenBound* bound;
};

// `w`: the [rows <= 16, inputs] weights of one panel, finite.
void pack_screen_panel(const ScreenRotation& rotation, const float* w, int64_t rows, int64_t inputs, const ScreenPanel& to);

// A row of activations as CpuKernels::screen and CpuKernels::refine read it: the floats below in 64 bytes, the codes as bytes, and
// the codes of 16 bits by 64: first 0 and 2 of each four, then 1 and 3; of inputs filled up with zeros to a multiple of 256.
struct ScreenedRow {
  float scale;
  float correction;  // what sums of products of codes lack
};
constexpr int64_t screened_inputs(int64_t inputs) { return fine_lines(inputs) * kFineLine; }
constexpr int64_t screened_pairs_at(int64_t inputs) { return 64 + screened_inputs(inputs); }
constexpr int64_t screened_row_bytes(int64_t inputs) { return 64 + 3 * screened_inputs(inputs); }

// Makes one of x [inputs]. `storage`: of the matrix, whose products round activations in their own way.
ScreenMargin prepare_screened_row(const ScreenRotation& rotation, Storage storage, const float* x, int64_t inputs,
                                  unsigned char* prepared);

// maxima[p] = the largest of y at the outputs of panel p, for p in [begin, end). False, and maxima without meaning, where
// one of them is a NaN.
bool panel_maxima(const float* y, int64_t outputs, int64_t begin, int64_t end, float* maxima);

}  // namespace expert::kernels
