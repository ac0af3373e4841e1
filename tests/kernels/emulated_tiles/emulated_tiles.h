// The tile unit of AMX in plain C++, put in front of the kernels that use it (-include): they run where no processor has
// one. What the unit would refuse, ends the program. Formulas: Intel's instruction set reference, TDPBF16PS and TDPBSSD.
#pragma once

#include <immintrin.h>
#include <stddef.h>

namespace expert::emulated_tiles {

void configure(const void* config);
void release();
void zero(int tile);
void load(int tile, const void* from, size_t stride);
void store(int tile, void* to, size_t stride);
void multiply_pairs(int sums, int a, int b);  // BF16
void multiply_bytes(int sums, int a, int b);  // signed

}  // namespace expert::emulated_tiles

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_loadconfig(config) ::expert::emulated_tiles::configure(config)
#define _tile_release() ::expert::emulated_tiles::release()
#define _tile_zero(tile) ::expert::emulated_tiles::zero(tile)
#define _tile_loadd(tile, from, stride) ::expert::emulated_tiles::load(tile, from, stride)
#define _tile_stored(tile, to, stride) ::expert::emulated_tiles::store(tile, to, stride)
#define _tile_dpbf16ps(sums, a, b) ::expert::emulated_tiles::multiply_pairs(sums, a, b)
#define _tile_dpbssd(sums, a, b) ::expert::emulated_tiles::multiply_bytes(sums, a, b)
