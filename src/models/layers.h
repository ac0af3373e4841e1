// The parts a decoder layer is made of. They hold weights and know their place; one forward pass is a `Pass`.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "adapters/adapter_set.h"
#include "backend/backend.h"

namespace expert {

// Activations of one pass, allocated once and reused: a token costs no allocation once they are wide enough.
struct Workspace {
  Tensor x;         // the residual stream, [rows, hidden]
  Tensor normed;    // [rows, hidden]
  Tensor branch;    // [rows, hidden]: what attention or the MLP gives, before it is added
  Tensor q, k, v;   // [rows, heads * head_dim], the last two [rows, kv_heads * head_dim]
  Tensor attended;  // [rows, heads * head_dim]
  Tensor gate, up;  // [rows, intermediate]
};

inline constexpr size_t kMostProjections = 3;  // of one input
using DeltaLists = std::array<std::vector<SegmentDelta>, kMostProjections>;

// Consecutive rows that share one set of experts (null: the base alone).
struct AdapterRows {
  int32_t first_row = 0;
  int32_t row_count = 0;
  const AdapterSet* adapters = nullptr;
};

// Everything one forward pass carries from layer to layer.
struct Pass {
  Operations& operations;
  const BatchLayout& layout;
  KvStorage& kv;
  const RopeTable& rope;
  // Exactly as many rows as the batch has, or in the last layer's finish() as are wanted; on a walk x and normed are each
  // walker's own.
  const Workspace& work;
  std::span<const AdapterRows> adapter_rows;
  DeltaLists& deltas;  // scratch of project(), keeps its memory between tokens
};

// Where the experts of the pass bend one site; valid until the next call.
std::span<const SegmentDelta> deltas_at(Pass& pass, int site);

// y = W x + b, bent by the experts of each row.
struct Linear {
  int site = -1;  // in the model's SiteTable
  MatrixPtr weight;
  Tensor bias;  // empty where there is none
};

struct Projection {
  const Linear& linear;
  Tensor y;
};

// All projections of one input in one call, so that they share a pass over it.
void project(Pass& pass, const Tensor& x, std::initializer_list<Projection> projections);

struct RmsNorm {
  Tensor weight;
  float eps = 0;
  void forward(Operations& operations, const Tensor& x, const Tensor& out) const {
    operations.rms_norm(x, weight, eps, out);
  }
};

// Grouped-query attention with rotary positions; Qwen3 also norms every query and key head.
struct Attention {
  Linear q, k, v, o;
  Tensor q_norm, k_norm;  // empty where there is none
  float norm_eps = 0;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  // To work.attended; the rows' keys and values are in the cache then.
  void forward(Pass& pass, const Tensor& x) const;
};

// SwiGLU: down(silu(gate(x)) * up(x)).
struct Mlp {
  Linear gate, up, down;
  // out may be x.
  void forward(Pass& pass, const Tensor& x, const Tensor& out) const;
};

struct DecoderLayer {
  RmsNorm input_norm;
  Attention attention;
  RmsNorm post_attention_norm;
  Mlp mlp;
  void forward(Pass& pass) const;
  // Its two halves. In the first rows see one another; in the second, from work.attended on, each is for itself (pass.layout is
  // not looked at), so that it can be left out for rows that nothing is wanted of any more.
  void attend(Pass& pass) const;
  void finish(Pass& pass) const;
};

}  // namespace expert
