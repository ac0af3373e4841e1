// Attention over KV blocks in the layout of kernels/kv_format.h: keys are panels of 16 tokens, values panels of 16
// dimensions, so both products read whole lines as those with weights do.
//
//   prepare  norm per head, rotation, keys and values into their blocks
//   attend   one part of the past (kSplitPositions, counted from position 0) for up to kMostQueries queries
//   merge    the parts of one query, in order
#pragma once

#include "kernels/cuda/args.h"
#include "kernels/cuda/dialect.h"

namespace expert::kernels::cuda {

__device__ inline unsigned char* kv_block(const KvPlace& kv, const int32_t* blocks, const RowPlace& place,
                                          int64_t block, int64_t head) {
  return kv.layer + static_cast<int64_t>(blocks[place.table + block]) * kv.block_bytes + head * kv.head_bytes;
}

// Where element (output, input) of a panel of a KV block stands, behind its scales.
template <KvFormat F>
__device__ inline int64_t kv_at(int64_t output, int64_t input) {
  if (F == KvFormat::f32) return input * 64 + output * 4;
  if (F == KvFormat::bf16) return input / 2 * 64 + output * 4 + input % 2 * 2;
  return input / 4 * 64 + output * 4 + input % 4;
}

// --- prepare ---------------------------------------------------------------------------------------------------------

// One vector of a head in shared memory, normed and rotated by one warp.
__device__ inline void norm_and_rotate(const PrepareArgs& args, const float* norm, int64_t position, float* x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  if (norm != nullptr) {
    float squares = 0.0F;
    for (int i = lane; i < args.head_dim; i += kWarpLanes) squares = fmaf(x[i], x[i], squares);
    const float inverse = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(args.head_dim) + args.eps);
    for (int i = lane; i < args.head_dim; i += kWarpLanes) x[i] = x[i] * inverse * norm[i];
  }
  __syncwarp();
  for (int i = lane; i < args.half; i += kWarpLanes) {
    const float a = x[i];
    const float b = x[args.half + i];
    const float c = args.cos[position * args.half + i];
    const float s = args.sin[position * args.half + i];
    x[i] = fmaf(a, c, -(b * s));
    x[args.half + i] = fmaf(b, c, a * s);
  }
  __syncwarp();
}

// The scale of a vector in INT8, as kernels/kv_format.h: quantise_int8 finds it. `inverse` is 0 where nothing counts.
__device__ inline float int8_scale(const float* x, int count, float& inverse) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  float most = 0.0F;
  float poison = 0.0F;
  for (int i = lane; i < count; i += kWarpLanes) {
    most = fmaxf(most, fabsf(x[i]));
    poison += x[i] - x[i];
  }
  most = warp_max(most);
  poison = warp_sum(poison);
  const float scale = most / 127.0F;
  const bool usable = scale >= 0x1p-126F && poison == 0.0F;
  inverse = usable ? 127.0F / most : 0.0F;
  return usable ? scale : poison;
}

// A warp writes one vector of a token; `keys`: as a column of the key panel, else as one of the value panels.
template <KvFormat F>
__device__ inline void store_vector(const float* x, int count, int token, bool keys, unsigned char* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  float inverse = 0.0F;
  if (F == KvFormat::int8) {
    const float scale = int8_scale(x, count, inverse);
    if (lane == 0) reinterpret_cast<float*>(to)[token] = scale;
  }
  unsigned char* panels = to + kv_scale_bytes(F);
  for (int i = lane; i < count; i += kWarpLanes) {
    unsigned char* at = keys ? panels + kv_at<F>(token, i)
                             : panels + i / kPanelRows * kv_panel_bytes(F, kKvBlock) + kv_at<F>(i % kPanelRows, token);
    if (F == KvFormat::f32) {
      *reinterpret_cast<float*>(at) = x[i];
    } else if (F == KvFormat::bf16) {
      *reinterpret_cast<uint16_t*>(at) = bf16_bits(x[i]);
    } else {
      *at = static_cast<unsigned char>((inverse != 0.0F ? static_cast<int>(rintf(x[i] * inverse)) : 0) + 128);
    }
  }
}

__device__ inline void store_by_format(KvFormat format, const float* x, int count, int token, bool keys,
                                       unsigned char* to) {
  if (format == KvFormat::f32) {
    store_vector<KvFormat::f32>(x, count, token, keys, to);
  } else if (format == KvFormat::bf16) {
    store_vector<KvFormat::bf16>(x, count, token, keys, to);
  } else {
    store_vector<KvFormat::int8>(x, count, token, keys, to);
  }
}

// One warp per vector: the q heads of a row, its k heads, its v heads.
__global__ void __launch_bounds__(kPrepareWarps* kWarpLanes) prepare(const PrepareArgs args) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int per_row = args.heads + 2 * args.kv_heads;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kPrepareWarps + warp;
  if (item >= static_cast<int64_t>(args.row_count) * per_row) return;
  const int64_t row = item / per_row;
  const int which = static_cast<int>(item % per_row);
  const bool is_q = which < args.heads;
  const bool is_k = !is_q && which < args.heads + args.kv_heads;
  const int head = is_q ? which : (which - args.heads) % args.kv_heads;
  const int64_t at = (row * (is_q ? args.heads : args.kv_heads) + head) * args.head_dim;
  const RowPlace place = args.places[row];
  float* x = reinterpret_cast<float*>(block_memory()) + static_cast<int64_t>(warp) * args.head_dim;
  const float* from = (is_q ? args.q : is_k ? args.k : args.v) + at;
  for (int i = lane; i < args.head_dim; i += kWarpLanes) x[i] = from[i];
  __syncwarp();
  if (is_q || is_k) {
    norm_and_rotate(args, is_q ? args.q_norm : args.k_norm, place.position, x);
    float* back = (is_q ? args.q : args.k) + at;
    for (int i = lane; i < args.head_dim; i += kWarpLanes) back[i] = x[i];
  }
  if (is_q) return;
  unsigned char* block = kv_block(args.kv, args.blocks, place, place.position / static_cast<int>(kKvBlock), head);
  store_by_format(args.format, x, args.head_dim, place.position % static_cast<int>(kKvBlock), is_k,
                  is_k ? block : block + args.kv.value_offset);
}

// --- attend ----------------------------------------------------------------------------------------------------------

// The four values of one output that a 32-bit word holds (one in F32, two in BF16).
template <KvFormat F>
struct Word {
  static constexpr int kValues = F == KvFormat::f32 ? 1 : F == KvFormat::bf16 ? 2 : 4;
  __device__ static float value(uint32_t word, int i) {
    if (F == KvFormat::f32) return float_of(word);
    if (F == KvFormat::bf16) return i == 0 ? low_half(word) : high_half(word);
    return static_cast<float>(static_cast<int>((word >> (8 * i)) & 255U) - 128);
  }
};

// What a block of threads shares: the queries, then a weight per query and position.
struct AttendMemory {
  float* queries;
  float* weights;
  int padded_dim;
  __device__ float* query(int q) const { return queries + q * padded_dim; }
  __device__ float* weight(int q) const { return weights + q * kSplitPositions; }
};

struct QueryPlace {
  int64_t row;
  int head;
  int last;  // position of its row; earlier ones and this one count
};

__device__ inline QueryPlace query_place(const AttendArgs& args, const QueryTile& tile, int kv_head, int q) {
  const int group = args.heads / args.kv_heads;
  const int index = tile.first_query + q;
  const int64_t row = tile.first_row + index / group;
  return {row, kv_head * group + index % group, args.places[row].position};
}

// Scores of one KV block of keys.
template <KvFormat F, int Q>
__device__ inline void score_block(const AttendArgs& args, const unsigned char* keys, const AttendMemory& memory,
                                   int in_split) {
  constexpr int kValues = Word<F>::kValues;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int lines = (args.head_dim + kValues - 1) / kValues;
  const unsigned char* from = keys + kv_scale_bytes(F) + lane % 4 * 16;
  float sums[Q][4] = {};
  EXPERT_UNROLL_FOUR
  for (int line = lane / 4; line < lines; line += 8) {
    const uint4 piece = load_piece(from + line * 64);
    EXPERT_UNROLL
    for (int q = 0; q < Q; ++q) {
      const float* x = memory.query(q) + line * kValues;
      EXPERT_UNROLL
      for (int o = 0; o < 4; ++o) {
        EXPERT_UNROLL
        for (int i = 0; i < kValues; ++i) sums[q][o] = fmaf(x[i], Word<F>::value(word_of(piece, o), i), sums[q][o]);
      }
    }
  }
  sum_lines<Q>(sums);
  if (!writes_row<Q>()) return;
  const int q = kept_row<Q>();
  EXPERT_UNROLL
  for (int o = 0; o < 4; ++o) {
    const int token = lane % 4 * 4 + o;
    float score = sums[0][o] * args.scale;
    if (F == KvFormat::int8) score *= reinterpret_cast<const float*>(keys)[token];
    memory.weight(q)[in_split + token] = score;  // weigh() looks at what is within the query's past only
  }
}

// Scores become weights exp(score - maximum), by one warp; those beyond `last` become zero. Writes maximum and sum.
__device__ inline void weigh(float* scores, int first_position, int last, float* state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  float most = -INFINITY;
  for (int i = lane; i < kSplitPositions; i += kWarpLanes) {
    if (first_position + i <= last) most = fmaxf(most, scores[i]);
  }
  most = warp_max(most);
  float sum = 0.0F;
  for (int i = lane; i < kSplitPositions; i += kWarpLanes) {
    const float weight = first_position + i <= last ? expf(scores[i] - most) : 0.0F;
    scores[i] = weight;
    sum += weight;
  }
  sum = warp_sum(sum);
  if (lane == 0) {
    state[0] = most;
    state[1] = sum;
  }
}

// sums[q][o] += weights times the values of this lane's four dimensions, over its lines of all KV blocks of the split.
template <KvFormat F, int Q>
__device__ inline void add_values(const AttendArgs& args, const RowPlace& place, int kv_head, int64_t panel,
                                  int first_position, int tokens, const AttendMemory& memory, const int (&last)[Q],
                                  float (&sums)[Q][4]) {
  constexpr int kValues = Word<F>::kValues;
  constexpr int kLines = static_cast<int>(kKvBlock) / kValues;  // of one panel in one KV block
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int lines = (tokens + static_cast<int>(kKvBlock) - 1) / static_cast<int>(kKvBlock) * kLines;
  EXPERT_UNROLL_FOUR
  for (int line = lane / 4; line < lines; line += 8) {
    const unsigned char* values = kv_block(args.kv, args.blocks, place,
                                           first_position / static_cast<int>(kKvBlock) + line / kLines, kv_head) +
                                  args.kv.value_offset;
    const uint4 piece =
        load_piece(values + kv_scale_bytes(F) + panel * kLines * 64 + line % kLines * 64 + lane % 4 * 16);
    EXPERT_UNROLL
    for (int i = 0; i < kValues; ++i) {
      const int token = line * kValues + i;
      const float scale = F == KvFormat::int8
                              ? reinterpret_cast<const float*>(values)[token % static_cast<int>(kKvBlock)]
                              : 1.0F;
      EXPERT_UNROLL
      for (int q = 0; q < Q; ++q) {
        if (first_position + token > last[q]) continue;  // what lies there may be anything, NaN too
        const float weight = F == KvFormat::int8 ? memory.weight(q)[token] * scale : memory.weight(q)[token];
        EXPERT_UNROLL
        for (int o = 0; o < 4; ++o) {
          sums[q][o] = fmaf(weight, Word<F>::value(word_of(piece, o), i), sums[q][o]);
        }
      }
    }
  }
}

__device__ inline float* state_of(const AttendArgs& args, const QueryPlace& query, int split) {
  const int64_t at = ((query.row - args.first_row) * args.heads + query.head) * args.split_stride + split;
  return args.states + at * (args.head_dim + 2);
}

template <KvFormat F, int Q>
__device__ inline void write_values(const AttendArgs& args, const QueryTile& tile, int kv_head, int split,
                                    int64_t panel, float (&sums)[Q][4]) {
  sum_lines<Q>(sums);
  const int q = kept_row<Q>();
  if (!writes_row<Q>() || q >= tile.count) return;
  float* state = state_of(args, query_place(args, tile, kv_head, q), split);
  EXPERT_UNROLL
  for (int o = 0; o < 4; ++o) {
    const int64_t d = panel * kPanelRows + static_cast<int>(threadIdx.x) % 4 * 4 + o;
    if (d < args.head_dim) state[d] = sums[0][o];
  }
}

// Blocks of threads: (tiles of queries, kv heads, splits).
template <KvFormat F, int Q>
__global__ void __launch_bounds__(kAttendWarps* kWarpLanes) attend(const AttendArgs args) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int split = static_cast<int>(blockIdx.z);
  const int first_position = split * kSplitPositions;
  const QueryTile tile = args.tiles[blockIdx.x];
  int last[Q];
  int farthest = -1;
  EXPERT_UNROLL
  for (int q = 0; q < Q; ++q) {
    last[q] = q < tile.count ? query_place(args, tile, kv_head, q).last : -1;
    farthest = last[q] > farthest ? last[q] : farthest;
  }
  if (farthest < first_position) return;
  const RowPlace place = args.places[tile.first_row];  // all rows of a tile are of one request
  AttendMemory memory;
  memory.padded_dim = (args.head_dim + 3) / 4 * 4;
  memory.queries = reinterpret_cast<float*>(block_memory());
  memory.weights = memory.queries + Q * memory.padded_dim;
  for (int i = static_cast<int>(threadIdx.x); i < Q * memory.padded_dim; i += kAttendWarps * kWarpLanes) {
    const int q = i / memory.padded_dim;
    const int d = i % memory.padded_dim;
    float value = 0.0F;
    if (q < tile.count && d < args.head_dim) {
      const QueryPlace query = query_place(args, tile, kv_head, q);
      value = args.q[(query.row * args.heads + query.head) * args.head_dim + d];
    }
    memory.queries[i] = value;
  }
  __syncthreads();
  const int left = farthest + 1 - first_position;
  const int tokens = left < kSplitPositions ? left : kSplitPositions;
  for (int block = warp; block * static_cast<int>(kKvBlock) < tokens; block += kAttendWarps) {
    const int in_split = block * static_cast<int>(kKvBlock);
    const unsigned char* keys =
        kv_block(args.kv, args.blocks, place, (first_position + in_split) / static_cast<int>(kKvBlock), kv_head);
    score_block<F, Q>(args, keys, memory, in_split);
  }
  __syncthreads();
  for (int q = warp; q < tile.count; q += kAttendWarps) {
    const QueryPlace query = query_place(args, tile, kv_head, q);
    if (query.last < first_position) continue;  // this split is none of its own
    weigh(memory.weight(q), first_position, query.last, state_of(args, query, split) + args.head_dim);
  }
  __syncthreads();
  const int panels = static_cast<int>(panel_count(args.head_dim));
  for (int panel = warp; panel < panels; panel += kAttendWarps) {
    float sums[Q][4] = {};
    add_values<F, Q>(args, place, kv_head, panel, first_position, tokens, memory, last, sums);
    write_values<F, Q>(args, tile, kv_head, split, panel, sums);
  }
}

// --- merge -----------------------------------------------------------------------------------------------------------

// Blocks of threads: (rows, heads).
__global__ void __launch_bounds__(kPlainThreads) merge(const MergeArgs args) {
  const int64_t row = args.first_row + static_cast<int64_t>(blockIdx.x);
  const int64_t head = static_cast<int64_t>(blockIdx.y);
  const int splits = args.places[row].position / kSplitPositions + 1;
  const int64_t stride = args.head_dim + 2;
  const float* states =
      args.states + (static_cast<int64_t>(blockIdx.x) * args.heads + head) * args.split_stride * stride;
  for (int d = static_cast<int>(threadIdx.x); d < args.head_dim; d += kPlainThreads) {
    float most = states[args.head_dim];
    float sum = states[args.head_dim + 1];
    float value = states[d];
    for (int split = 1; split < splits; ++split) {
      const float* state = states + split * stride;
      const float larger = fmaxf(most, state[args.head_dim]);
      const float before = expf(most - larger);
      const float now = expf(state[args.head_dim] - larger);
      sum = fmaf(sum, before, state[args.head_dim + 1] * now);
      value = fmaf(value, before, state[d] * now);
      most = larger;
    }
    args.out[(row * args.heads + head) * args.head_dim + d] = value / sum;
  }
}

}  // namespace expert::kernels::cuda
