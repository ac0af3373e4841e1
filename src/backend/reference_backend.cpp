#include "backend/reference_backend.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/host_memory.h"
#include "backend/storage.h"
#include "core/error.h"
#include "kernels/cpu/panels.h"
#include "kernels/formats.h"
#include "kernels/reference/reference.h"

namespace expert {

namespace {

namespace ref = kernels::reference;

float round_to(WeightFormat format, float value) {
  return format == WeightFormat::bf16 ? kernels::float_from_bf16(kernels::bf16_from_float(value)) : value;
}

// To the nearest value of a format without groups, or what the groups' scales and codes stand for.
void round_all(WeightFormat format, int64_t rows, int64_t cols, std::vector<float>& values) {
  if (!is_quantised(format)) {
    for (float& value : values) value = round_to(format, value);
    return;
  }
  constexpr int64_t kRows = kernels::kPanelRows;
  constexpr int64_t kBlock = kernels::kGroup * kRows;
  const kernels::Storage storage = storage_of(format);
  for (int64_t first = 0; first < rows; first += kRows) {
    const auto over_group = [&](int64_t group, float* w, const auto& visit) {
      for (int64_t k = group * kernels::kGroup; k < std::min((group + 1) * kernels::kGroup, cols); ++k) {
        for (int64_t r = first; r < std::min(first + kRows, rows); ++r) {
          visit(w[(k - group * kernels::kGroup) * kRows + r - first], values[static_cast<size_t>(r * cols + k)]);
        }
      }
    };
    const kernels::QuantisedPanel panel =
        kernels::quantise_panel(storage, cols, ref::quantise_weights, [&](int64_t group, float* w) {
          std::fill_n(w, kBlock, 0.0F);
          over_group(group, w, [](float& to, float from) { to = from; });
        });
    for (int64_t group = 0; group < kernels::group_count(cols); ++group) {
      float w[kBlock];
      ref::dequantise_weights(storage, panel.scales.data() + group * kRows, panel.codes.data() + group * kBlock, w);
      over_group(group, w, [](float from, float& to) { to = from; });
    }
  }
}

// Row-major floats that hold values of the format.
class ReferenceMatrix final : public Matrix {
 public:
  ReferenceMatrix(int64_t rows, int64_t cols, WeightFormat format, std::vector<float> values)
      : Matrix(rows, cols, format, is_quantised(format) ? static_cast<int>(kernels::kGroup) : 0,
               values.size() * (format == WeightFormat::f32 ? 4 : 2)),
        values_(std::move(values)) {}
  const float* values() const noexcept { return values_.data(); }

 private:
  std::vector<float> values_;
};

const float* values_of(const Matrix& matrix) { return static_cast<const ReferenceMatrix&>(matrix).values(); }

// [layer][block][kv head][token][head_dim] for K and for V, as floats that hold values of the dtype.
class ReferenceKv final : public KvStorage {
 public:
  explicit ReferenceKv(const KvShape& shape)
      : shape_(shape),
        keys_(static_cast<size_t>(int64_t{shape.layers} * shape.blocks * shape.kv_heads * kKvBlockTokens *
                                  shape.head_dim)),
        values_(keys_.size()) {}

  size_t size_bytes() const noexcept override {
    return static_cast<size_t>(kv_block_bytes(shape_)) * static_cast<size_t>(shape_.blocks);
  }
  const KvShape& shape() const noexcept { return shape_; }
  float* key(int64_t layer, int64_t block, int64_t head, int64_t token) {
    return keys_.data() + at(layer, block, head, token);
  }
  float* value(int64_t layer, int64_t block, int64_t head, int64_t token) {
    return values_.data() + at(layer, block, head, token);
  }
  // One vector of a head as the format keeps it.
  void store(const float* x, float* to) const {
    if (shape_.dtype == DType::i8) return ref::round_int8(x, shape_.head_dim, to);
    const auto format = shape_.dtype == DType::bf16 ? WeightFormat::bf16 : WeightFormat::f32;
    for (int32_t d = 0; d < shape_.head_dim; ++d) to[d] = round_to(format, x[d]);
  }

 private:
  int64_t at(int64_t layer, int64_t block, int64_t head, int64_t token) const {
    return (((layer * shape_.blocks + block) * shape_.kv_heads + head) * kKvBlockTokens + token) * shape_.head_dim;
  }
  KvShape shape_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

float read_value(DType dtype, const std::byte* p) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return dtype == DType::bf16 ? kernels::float_from_bf16(bits) : kernels::float_from_f16(bits);
}

// y of one row under one delta (or none), in FP64.
class LinearRow {
 public:
  LinearRow(const LinearOutput& output, const float* x, const LinearDelta* delta)
      : weight_(*output.weight), x_(x, x + weight_.cols()), y_(static_cast<size_t>(weight_.rows())) {
    if (delta == nullptr) {
      add_matrix(weight_, 1.0);
      add(output.bias);
      return;
    }
    scale(x_, delta->input_scale);
    if (!delta->skip_base) add_matrix(weight_, 1.0);
    scale(y_, delta->output_scale);
    for (const DenseTerm& term : delta->dense) add_matrix(*term.d, static_cast<double>(term.weight));
    for (const LowRankTerm& term : delta->low_rank) add_low_rank(term);
    add(output.bias);
    add(&delta->bias);
    scale(y_, delta->result_scale);
  }

  void write(float* to) const {
    std::transform(y_.begin(), y_.end(), to, [](double v) { return static_cast<float>(v); });
  }

 private:
  // A matrix sees its input rounded as its format says; low-rank terms never do.
  void add_matrix(const Matrix& w, double weight) {
    if (w.format() == WeightFormat::f32) {  // not even d * x
      return ref::add_product(x_.data(), 1, w.cols(), values_of(w), w.rows(), weight, y_.data());
    }
    const std::vector<float> row(x_.begin(), x_.end());
    std::vector<double> seen(x_.size());
    ref::round_activations(storage_of(w.format()), row.data(), w.cols(), seen.data());
    ref::add_product(seen.data(), 1, w.cols(), values_of(w), w.rows(), weight, y_.data());
  }
  void add_low_rank(const LowRankTerm& term) {
    std::vector<double> t(static_cast<size_t>(term.a->rows()));
    ref::add_product(x_.data(), 1, term.a->cols(), values_of(*term.a), term.a->rows(), static_cast<double>(term.weight),
                     t.data());
    ref::add_product(t.data(), 1, term.b->cols(), values_of(*term.b), term.b->rows(), 1.0, y_.data());
  }
  void add(const Tensor* bias) {
    if (bias == nullptr || !*bias) return;
    for (size_t i = 0; i < y_.size(); ++i) y_[i] += static_cast<double>(host_floats(*bias)[i]);
  }
  static void scale(std::vector<double>& v, const Tensor& by) {
    if (!by) return;
    for (size_t i = 0; i < v.size(); ++i) v[i] *= static_cast<double>(host_floats(by)[i]);
  }

  const Matrix& weight_;
  std::vector<double> x_;
  std::vector<double> y_;
};

// One embedded token under one delta, in FP64. Its base row is there already.
class EmbeddingRow {
 public:
  EmbeddingRow(const float* base, int64_t size, int32_t token) : y_(base, base + size), token_(token) {}

  void apply(const LinearDelta& delta) {
    if (delta.skip_base) std::fill(y_.begin(), y_.end(), 0.0);
    scale(delta.output_scale);
    for (const DenseTerm& term : delta.dense) {
      for (size_t i = 0; i < y_.size(); ++i) y_[i] += static_cast<double>(term.weight) * table(*term.d, i);
    }
    for (const LowRankTerm& term : delta.low_rank) {
      std::vector<double> t(static_cast<size_t>(term.a->cols()));
      for (size_t k = 0; k < t.size(); ++k) t[k] = static_cast<double>(term.weight) * table(*term.a, k);
      ref::add_product(t.data(), 1, term.b->cols(), values_of(*term.b), term.b->rows(), 1.0, y_.data());
    }
    if (delta.bias) {
      for (size_t i = 0; i < y_.size(); ++i) y_[i] += static_cast<double>(host_floats(delta.bias)[i]);
    }
    scale(delta.result_scale);
  }
  void write(float* to) const {
    std::transform(y_.begin(), y_.end(), to, [](double v) { return static_cast<float>(v); });
  }

 private:
  double table(const Matrix& matrix, size_t column) const {
    return static_cast<double>(values_of(matrix)[int64_t{token_} * matrix.cols() + static_cast<int64_t>(column)]);
  }
  void scale(const Tensor& by) {
    if (!by) return;
    for (size_t i = 0; i < y_.size(); ++i) y_[i] *= static_cast<double>(host_floats(by)[i]);
  }

  std::vector<double> y_;
  int32_t token_;
};

class ReferenceBackend final : public Backend {
 public:
  const BackendInfo& info() const noexcept override { return info_; }
  Tensor allocate(DType dtype, int64_t rows, int64_t cols) override { return allocate_host_tensor(dtype, rows, cols); }
  void upload(const Tensor& destination, const void* source, size_t bytes) override {
    if (bytes > destination.size_bytes())
      fail(ErrorCode::internal, "upload: {} bytes into {}", bytes, destination.size_bytes());
    if (bytes > 0) std::memcpy(host_bytes(destination), source, bytes);
  }
  void download(void* destination, const Tensor& source, size_t bytes) override {
    if (bytes > source.size_bytes()) fail(ErrorCode::internal, "download: {} bytes of {}", bytes, source.size_bytes());
    if (bytes > 0) std::memcpy(destination, host_bytes(source), bytes);
  }
  void synchronize() override {}
  std::unique_ptr<KvStorage> create_kv(const KvShape& shape) override {
    if (shape.dtype != DType::f32 && shape.dtype != DType::bf16 && shape.dtype != DType::i8)
      fail(ErrorCode::unsupported, "a KV cache in {}", name_of(shape.dtype));
    return std::make_unique<ReferenceKv>(shape);
  }

  MatrixPtr pack(const MatrixSource& source, WeightFormat format) override;
  // Nothing here is worth a cache file.
  std::span<const std::byte> packed_bytes(const Matrix&) const override { return {}; }
  MatrixPtr adopt(int64_t, int64_t, WeightFormat, std::span<const std::byte>, std::shared_ptr<const void>) override {
    fail(ErrorCode::unsupported, "the reference backend has no packed weights to adopt");
  }
  void unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const override {
    std::copy_n(values_of(matrix) + first_row * matrix.cols(), count * matrix.cols(), destination);
  }
  bool adopts(int64_t, int64_t, WeightFormat, size_t) const override { return false; }

  void embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) override;
  void embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) override;
  void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void linear(const Tensor& x, std::span<const LinearOutput> outputs) override;
  void attention(const BatchLayout& layout, const AttentionOp& op) override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) override;
  void add(const Tensor& x, const Tensor& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) override;

 private:
  BackendInfo info_{"reference", "scalar", 1, ""};
};

MatrixPtr ReferenceBackend::pack(const MatrixSource& source, WeightFormat format) {
  if (source.dtype == DType::i32) fail(ErrorCode::unsupported, "weights of type {}", name_of(source.dtype));
  if (source.rows < 1 || source.cols < 1)
    fail(ErrorCode::invalid_request, "a matrix of {} x {}", source.rows, source.cols);
  std::vector<float> values(static_cast<size_t>(source.rows * source.cols));
  std::vector<std::byte> row(static_cast<size_t>(source.cols) * size_of(source.dtype));
  for (int64_t r = 0; r < source.rows; ++r) {
    source.read(r, 1, row.data());
    for (int64_t c = 0; c < source.cols; ++c) {
      values[static_cast<size_t>(r * source.cols + c)] =
          read_value(source.dtype, row.data() + static_cast<size_t>(c) * size_of(source.dtype));
    }
  }
  round_all(format, source.rows, source.cols, values);
  return std::make_shared<ReferenceMatrix>(source.rows, source.cols, format, std::move(values));
}

void ReferenceBackend::embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), table.cols(), "embed: out");
  for (size_t r = 0; r < layout.token_ids.size(); ++r) {
    const int64_t token = layout.token_ids[r];
    if (token < 0 || token >= table.rows()) fail(ErrorCode::internal, "embed: token {} of {}", token, table.rows());
    std::copy_n(values_of(table) + token * table.cols(), table.cols(),
                host_floats(out) + static_cast<int64_t>(r) * table.cols());
  }
}

void ReferenceBackend::embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas,
                                    const Tensor& out) {
  require_shape(out, static_cast<int64_t>(layout.token_ids.size()), out.cols, "embed_deltas: out");
  for (const SegmentDelta& part : deltas) {
    if (part.delta->input_scale) fail(ErrorCode::internal, "embed_deltas: an embedding has no input scale");
    for (int64_t r = part.first_row; r < part.first_row + part.row_count; ++r) {
      EmbeddingRow row(host_floats(out) + r * out.cols, out.cols, layout.token_ids[static_cast<size_t>(r)]);
      row.apply(*part.delta);
      row.write(host_floats(out) + r * out.cols);
    }
  }
}

void ReferenceBackend::rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  require_shape(out, x.rows, x.cols, "rms_norm: out");
  require_shape(weight, 1, x.cols, "rms_norm: weight");
  ref::rms_norm(host_floats(x), host_floats(weight), eps, x.rows, x.cols, host_floats(out));
}

void ReferenceBackend::linear(const Tensor& x, std::span<const LinearOutput> outputs) {
  for (const LinearOutput& output : outputs) {
    require_shape(x, x.rows, output.weight->cols(), "linear: x");
    require_shape(output.y, x.rows, output.weight->rows(), "linear: y");
    for (int64_t r = 0; r < x.rows; ++r) {
      const LinearDelta* delta = nullptr;
      for (const SegmentDelta& part : output.deltas) {
        if (r >= part.first_row && r < part.first_row + part.row_count) delta = part.delta;
      }
      LinearRow(output, host_floats(x) + r * x.cols, delta).write(host_floats(output.y) + r * output.weight->rows());
    }
  }
}

void ReferenceBackend::attention(const BatchLayout& layout, const AttentionOp& op) {
  auto& kv = static_cast<ReferenceKv&>(*op.kv);
  const int64_t dim = op.head_dim;
  const int64_t half = op.rope->rotary_dim / 2;
  const int64_t group = op.heads / op.kv_heads;
  const auto norm_rope = [&](float* x, const Tensor* norm, int64_t position) {
    if (norm != nullptr) ref::rms_norm(x, host_floats(*norm), op.norm_eps, 1, dim, x);
    ref::rotate(x, host_floats(op.rope->cos) + position * half, host_floats(op.rope->sin) + position * half, half);
  };
  for (const Segment& segment : layout.segments) {
    const auto block_of = [&](int64_t position) {
      return segment.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    };
    for (int64_t i = 0; i < segment.row_count; ++i) {
      const int64_t row = segment.first_row + i;
      const int64_t position = segment.first_position + i;
      for (int64_t h = 0; h < op.heads; ++h)
        norm_rope(host_floats(op.q) + row * op.q.cols + h * dim, op.q_norm, position);
      for (int64_t h = 0; h < op.kv_heads; ++h) {
        float* k = host_floats(op.k) + row * op.k.cols + h * dim;
        const float* v = host_floats(op.v) + row * op.v.cols + h * dim;
        norm_rope(k, op.k_norm, position);
        kv.store(k, kv.key(op.layer, block_of(position), h, position % kKvBlockTokens));
        kv.store(v, kv.value(op.layer, block_of(position), h, position % kKvBlockTokens));
      }
    }
    const int64_t end = segment.first_position + segment.row_count;
    std::vector<float> keys(static_cast<size_t>(end * dim));
    std::vector<float> values(keys.size());
    for (int64_t h = 0; h < op.kv_heads; ++h) {
      for (int64_t p = 0; p < end; ++p) {
        std::copy_n(kv.key(op.layer, block_of(p), h, p % kKvBlockTokens), dim, keys.data() + p * dim);
        std::copy_n(kv.value(op.layer, block_of(p), h, p % kKvBlockTokens), dim, values.data() + p * dim);
      }
      for (int64_t i = 0; i < segment.row_count; ++i) {
        for (int64_t g = h * group; g < (h + 1) * group; ++g) {
          const int64_t at = (segment.first_row + i) * op.q.cols + g * dim;
          ref::attend(host_floats(op.q) + at, keys.data(), values.data(), segment.first_position + i + 1, dim, op.scale,
                      host_floats(op.out) + at);
        }
      }
    }
  }
}

void ReferenceBackend::swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_shape(up, gate.rows, gate.cols, "swiglu: up");
  require_shape(out, gate.rows, gate.cols, "swiglu: out");
  ref::swiglu(host_floats(gate), host_floats(up), gate.rows * gate.cols, host_floats(out));
}

void ReferenceBackend::add(const Tensor& x, const Tensor& y) {
  require_shape(y, x.rows, x.cols, "add: y");
  for (int64_t i = 0; i < x.rows * x.cols; ++i) host_floats(x)[i] += host_floats(y)[i];
}

void ReferenceBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  require_shape(out, static_cast<int64_t>(rows.size()), x.cols, "gather_rows: out");
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= x.rows) fail(ErrorCode::internal, "gather_rows: row {} of {}", rows[i], x.rows);
    std::copy_n(host_floats(x) + rows[i] * x.cols, x.cols, host_floats(out) + static_cast<int64_t>(i) * x.cols);
  }
}

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace expert
