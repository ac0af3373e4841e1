#include "models/layers.h"

#include <cassert>
#include <cmath>

namespace expert {
namespace {

// Where one site is bent. Neighbouring rows with the same delta become one range, so that kernels see long ones.
void collect(std::span<const AdapterRows> adapter_rows, int site, std::vector<SegmentDelta>& deltas) {
  deltas.clear();
  for (const AdapterRows& rows : adapter_rows) {
    const LinearDelta* delta = rows.adapters ? rows.adapters->delta(site) : nullptr;
    if (!delta) continue;
    SegmentDelta* last = deltas.empty() ? nullptr : &deltas.back();
    if (last && last->delta == delta && last->first_row + last->row_count == rows.first_row) {
      last->row_count += rows.row_count;
    } else {
      deltas.push_back({rows.first_row, rows.row_count, delta});
    }
  }
}

// One of at most kMostProjections of a call; valid until the next.
LinearOutput output_of(Pass& pass, const Projection& projection, size_t number) {
  const Linear& linear = projection.linear;
  collect(pass.adapter_rows, linear.site, pass.deltas[number]);
  return {linear.weight.get(), linear.bias ? &linear.bias : nullptr, projection.y, pass.deltas[number]};
}

}  // namespace

std::span<const SegmentDelta> deltas_at(Pass& pass, int site) {
  collect(pass.adapter_rows, site, pass.deltas.front());
  return pass.deltas.front();
}

void project(Pass& pass, const Tensor& x, std::initializer_list<Projection> projections) {
  assert(projections.size() <= kMostProjections);
  std::array<LinearOutput, kMostProjections> outputs;
  size_t count = 0;
  for (const Projection& projection : projections) {
    outputs[count] = output_of(pass, projection, count);
    ++count;
  }
  pass.operations.linear(x, std::span(outputs.data(), count));
}

void Attention::forward(Pass& pass, const Tensor& x) const {
  const Workspace& work = pass.work;
  project(pass, x, {{q, work.q}, {k, work.k}, {v, work.v}});

  AttentionOp op;
  op.q = work.q;
  op.k = work.k;
  op.v = work.v;
  op.q_norm = q_norm ? &q_norm : nullptr;
  op.k_norm = k_norm ? &k_norm : nullptr;
  op.norm_eps = norm_eps;
  op.rope = &pass.rope;
  op.kv = &pass.kv;
  op.layer = layer;
  op.heads = heads;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
  op.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  op.out = work.attended;
  pass.operations.attention(pass.layout, op);
}

void Mlp::forward(Pass& pass, const Tensor& x, const Tensor& out) const {
  const Workspace& work = pass.work;
  const LinearOutput gated = output_of(pass, {gate, work.gate}, 0);
  pass.operations.gated(x, gated, output_of(pass, {up, work.up}, 1), work.gate);
  project(pass, work.gate, {{down, out}});
}

void DecoderLayer::forward(Pass& pass) const {
  attend(pass);
  finish(pass);
}

void DecoderLayer::attend(Pass& pass) const {
  input_norm.forward(pass.operations, pass.work.x, pass.work.normed);
  attention.forward(pass, pass.work.normed);
}

void DecoderLayer::finish(Pass& pass) const {
  const Workspace& work = pass.work;
  project(pass, work.attended, {{attention.o, work.branch}});
  pass.operations.add(work.x, work.branch);

  post_attention_norm.forward(pass.operations, work.x, work.normed);
  mlp.forward(pass, work.normed, work.branch);
  pass.operations.add(work.x, work.branch);
}

}  // namespace expert
