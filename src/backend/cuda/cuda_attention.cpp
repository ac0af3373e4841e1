// Backend::attention on a device: norm, rotation and KV write of all rows, then parts of the past for tiles of queries,
// then the parts of each query in order. The cuts are at absolute positions, so that nothing else changes the bits.
#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/op_checks.h"
#include "core/error.h"

namespace expert::cuda {

namespace kc = kernels::cuda;

namespace {

constexpr size_t kStateBytes = size_t{64} << 20;  // of parts at a time; more rows take turns

// Whole rows per tile, or a part of the queries of one row.
void add_tiles(const Segment& segment, int32_t group, std::vector<kc::QueryTile>& tiles) {
  const int32_t rows_per_tile = std::max(1, kc::kMostQueries / group);
  for (int32_t r = 0; r < segment.row_count; r += rows_per_tile) {
    const int32_t queries = std::min(rows_per_tile, segment.row_count - r) * group;
    for (int32_t q = 0; q < queries; q += kc::kMostQueries) {
      tiles.push_back({segment.first_row + r, q, std::min(kc::kMostQueries, queries - q)});
    }
  }
}

kc::KvPlace place_of(const CudaKv& kv, int32_t layer) {
  return {kv.layer(layer), kv.block_bytes(), kv.head_bytes(), kv.value_offset()};
}

int query_choice(int32_t most) { return most == 1 ? 0 : most == 2 ? 1 : most <= 4 ? 2 : 3; }

}  // namespace

bool CudaBackend::StepLists::hold(const BatchLayout& layout, int32_t wanted_group) const {
  if (step == 0 || layout.step != step || wanted_group != group) return false;
  return std::ranges::equal(segments, layout.segments, [](const Segment& a, const Segment& b) {
    return a.first_row == b.first_row && a.row_count == b.row_count && a.first_position == b.first_position &&
           a.block_table.data() == b.block_table.data() && a.block_table.size() == b.block_table.size();
  });
}

void CudaBackend::send_step(const BatchLayout& layout, const AttentionOp& op, const CudaKv& kv) {
  const int32_t group = op.heads / op.kv_heads;
  if (step_.hold(layout, group)) return;
  step_.step = 0;
  require_segments(layout, op, kv.shape());
  std::vector<kc::RowPlace> places;
  std::vector<int32_t> blocks;
  step_.query_tiles.clear();
  step_.most_splits = 1;
  for (const Segment& segment : layout.segments) {
    const auto table = static_cast<int32_t>(blocks.size());
    const int32_t end = segment.first_position + segment.row_count;
    const auto used = static_cast<size_t>(ceil_div(end, kKvBlockTokens));
    const std::span<const int32_t> in_use = segment.block_table.first(used);
    blocks.insert(blocks.end(), in_use.begin(), in_use.end());
    for (int32_t r = 0; r < segment.row_count; ++r) places.push_back({segment.first_position + r, table});
    add_tiles(segment, group, step_.query_tiles);
    step_.most_splits = std::max(step_.most_splits, static_cast<int32_t>(ceil_div(end, kc::kSplitPositions)));
  }
  step_.most_queries = 0;
  for (const kc::QueryTile& tile : step_.query_tiles) step_.most_queries = std::max(step_.most_queries, tile.count);
  step_.lists.clear();
  step_.places = step_.lists.add(std::span<const kc::RowPlace>(places));
  step_.blocks = step_.lists.add(std::span<const int32_t>(blocks));
  step_.tiles = step_.lists.add(std::span<const kc::QueryTile>(step_.query_tiles));
  step_.lists.send(staging_);
  step_.segments = layout.segments;
  step_.group = group;
  step_.step = layout.step;
}

void CudaBackend::attention(const BatchLayout& layout, const AttentionOp& op) {
  if (op.q.rows == 0) return;
  const auto& kv = static_cast<const CudaKv&>(*op.kv);
  require_attention_shapes(op, kv.shape());
  send_step(layout, op, kv);
  prepare_attention(op, kv);
  // As many tiles at a time as there is room for their parts; the tiles of one row stay together.
  const std::vector<kc::QueryTile>& tiles = step_.query_tiles;
  const size_t row_bytes = static_cast<size_t>(op.heads) * static_cast<size_t>(step_.most_splits) *
                           static_cast<size_t>(op.head_dim + 2) * sizeof(float);
  const auto most_rows = static_cast<int64_t>(std::max<size_t>(kStateBytes / row_bytes, kc::kMostQueries));
  for (size_t first = 0; first < tiles.size();) {
    size_t last = first;
    const int64_t row_end = tiles[first].first_row + most_rows - kc::kMostQueries + 1;  // a tile has up to that many rows
    while (last < tiles.size() && tiles[last].first_row < row_end) ++last;
    const int64_t end = last < tiles.size() ? tiles[last].first_row : op.q.rows;
    attend_tiles(op, kv, first, last, static_cast<int32_t>(end - tiles[first].first_row));
    first = last;
  }
}

void CudaBackend::prepare_attention(const AttentionOp& op, const CudaKv& kv) {
  kc::PrepareArgs args{};
  args.q = device_floats(op.q);
  args.k = device_floats(op.k);
  args.v = device_floats(op.v);
  args.q_norm = op.q_norm != nullptr ? device_floats(*op.q_norm) : nullptr;
  args.k_norm = op.k_norm != nullptr ? device_floats(*op.k_norm) : nullptr;
  args.cos = device_floats(op.rope->cos);
  args.sin = device_floats(op.rope->sin);
  args.places = step_.lists.at<kc::RowPlace>(step_.places);
  args.blocks = step_.lists.at<int32_t>(step_.blocks);
  args.kv = place_of(kv, op.layer);
  args.format = kv.format();
  args.row_count = static_cast<int32_t>(op.q.rows);
  args.heads = op.heads;
  args.kv_heads = op.kv_heads;
  args.head_dim = op.head_dim;
  args.half = op.rope->rotary_dim / 2;
  args.eps = op.norm_eps;
  const int64_t vectors = op.q.rows * (op.heads + 2 * op.kv_heads);
  const Grid grid{ceil_div(vectors, kc::kPrepareWarps), 1, 1, kc::kPrepareWarps * kc::kWarpLanes,
                  static_cast<size_t>(kc::kPrepareWarps * op.head_dim) * sizeof(float)};
  launch(*device_, kernels_.prepare, grid, args);
}

void CudaBackend::attend_tiles(const AttentionOp& op, const CudaKv& kv, size_t first, size_t last, int32_t rows) {
  const std::vector<kc::QueryTile>& tiles = step_.query_tiles;
  kc::AttendArgs args{};
  args.q = device_floats(op.q);
  args.places = step_.lists.at<kc::RowPlace>(step_.places);
  args.blocks = step_.lists.at<int32_t>(step_.blocks);
  args.tiles = step_.lists.at<kc::QueryTile>(step_.tiles) + first;
  args.kv = place_of(kv, op.layer);
  args.states = reinterpret_cast<float*>(states_.of(static_cast<size_t>(rows) * static_cast<size_t>(op.heads) *
                                                    static_cast<size_t>(step_.most_splits) *
                                                    static_cast<size_t>(op.head_dim + 2) * sizeof(float)));
  args.first_row = tiles[first].first_row;
  args.split_stride = step_.most_splits;
  args.heads = op.heads;
  args.kv_heads = op.kv_heads;
  args.head_dim = op.head_dim;
  args.scale = op.scale;
  const int choice = query_choice(step_.most_queries);
  const auto queries = static_cast<size_t>(1 << choice);
  const size_t padded_dim = static_cast<size_t>(ceil_div(op.head_dim, 4) * 4);
  launch(*device_, kernels_.attend[static_cast<int>(kv.format())][choice],
         {static_cast<int64_t>(last - first), op.kv_heads, step_.most_splits, kc::kAttendWarps * kc::kWarpLanes,
          queries * (padded_dim + kc::kSplitPositions) * sizeof(float)},
         args);
  const kc::MergeArgs merge{args.states, args.places,         device_floats(op.out), args.first_row,
                            args.split_stride, op.heads, op.head_dim};
  launch(*device_, kernels_.merge, {rows, op.heads, 1, kc::kPlainThreads}, merge);
}

}  // namespace expert::cuda
