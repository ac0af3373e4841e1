// One machine that can run a transformer: memory, packed weights and about seventeen transformer-sized operations.
//
// Operations are enqueued on the backend's one stream and run in order; download() and synchronize() wait. Activations
// are F32 [rows, features], one row per token of a flat batch in which requests (segments) stand one after the other.
// Batch invariance, bitwise: what a row gets depends on its own inputs, the weights and the format only - never on the
// other rows, the chunking of a prompt, or the number of threads (docs/architecture.md).
// Calls are not thread-safe with each other, except those of a walk() on the Operations it gives, allocate(), pack(), pack_factors(), plan_terms(), adopt(),
// unpack_rows(), screen_stats() and upload() to memory that no enqueued operation uses: experts are loaded while others generate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/linear_delta.h"
#include "backend/matrix.h"
#include "backend/tensor.h"
#include "core/error.h"

namespace expert {

inline constexpr int kKvBlockTokens = 16;  // tokens per KV block

// The rows of one request in a flat batch.
struct Segment {
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t first_position = 0;           // absolute position of its first row; the KV of [0, first_position) is in the cache
  std::span<const int32_t> block_table; // KV blocks covering positions [0, first_position + row_count)
};

// Host-side description of one step. `step` grows with every forward: a device backend uploads the lists once per step.
struct BatchLayout {
  uint64_t step = 0;
  std::vector<int32_t> token_ids;  // one per row
  std::vector<int32_t> positions;  // one per row, absolute
  std::vector<Segment> segments;   // in row order, covering all rows
};

// cos/sin per position for half-split rotation ("rotate_half"): f32 [positions, rotary_dim / 2] each, already multiplied
// by the attention factor of YaRN.
struct RopeTable {
  Tensor cos;
  Tensor sin;
  int32_t rotary_dim = 0;
};

// KV storage of all layers, in blocks of kKvBlockTokens; who owns which block is the engine's business.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  virtual size_t size_bytes() const noexcept = 0;
  // Brings memory of blocks that nobody has used yet into being. The system does it at the first write otherwise, which can take
  // milliseconds of a token.
  virtual void touch(int32_t /*first*/, int32_t /*count*/) {}
};

struct KvShape {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t blocks = 0;
  DType dtype = DType::f32;  // f32, bf16, or i8: whole numbers and an F32 scale per head and token
};

// Bytes of one block of all layers, keys and values.
constexpr uint64_t kv_block_bytes(const KvShape& shape) {
  const auto vectors = uint64_t{2} * static_cast<uint64_t>(shape.layers) * static_cast<uint64_t>(shape.kv_heads) *
                       static_cast<uint64_t>(kKvBlockTokens);
  const uint64_t scale = shape.dtype == DType::i8 ? sizeof(float) : 0;
  return vectors * (static_cast<uint64_t>(shape.head_dim) * size_of(shape.dtype) + scale);
}

// One projection of a shared input.
struct LinearOutput {
  const Matrix* weight = nullptr;  // [out, in]
  const Tensor* bias = nullptr;    // f32 [1, out] or null
  Tensor y;                        // f32 [rows, out]
  std::span<const SegmentDelta> deltas;
};

struct AttentionOp {
  Tensor q;                      // f32 [rows, heads * head_dim], overwritten by its normed, rotated self
  Tensor k;                      // f32 [rows, kv_heads * head_dim], likewise
  Tensor v;                      // f32 [rows, kv_heads * head_dim]
  const Tensor* q_norm = nullptr;  // f32 [1, head_dim] or null: RMSNorm per head before rotation (Qwen3)
  const Tensor* k_norm = nullptr;
  float norm_eps = 0;
  const RopeTable* rope = nullptr;
  KvStorage* kv = nullptr;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;  // usually 1 / sqrt(head_dim)
  Tensor out;       // f32 [rows, heads * head_dim]
};

// What screened_linear() has read since the backend was made.
struct ScreenStats {
  uint64_t calls = 0;
  uint64_t bytes = 0;  // of copies and matrices
  uint64_t whole = 0;  // calls that read the whole matrix, because its copy did not help
};

struct BackendInfo {
  std::string device;  // "cpu", "reference", "cuda:0"
  std::string isa;     // "avx2", …, "sm_90"
  int threads = 1;     // of the host
  std::string layout;  // names the packed layout; part of the key of the weight cache; empty: none to keep there
};

// What the layers of a transformer are made of.
class Operations {
 public:
  virtual ~Operations() = default;
  // out = x / sqrt(mean(x^2) + eps) * weight per row; out may be x.
  virtual void rms_norm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) = 0;
  // For every output: y = W x + b, then the deltas of the segments. Outputs share one pass over x.
  virtual void linear(const Tensor& x, std::span<const LinearOutput> outputs) = 0;
  // Norm per head (optional), rotation, write of K and V into the cache in its storage format, then causal attention
  // that reads K and V back as stored, also those this call wrote. Softmax is streamed over tiles at absolute positions.
  virtual void attention(const BatchLayout& layout, const AttentionOp& op) = 0;
  // out = silu(gate) * up; out may be gate.
  virtual void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) = 0;
  // linear() of the two, then swiglu(); out may be gate.y. What the two y hold then is not said.
  virtual void gated(const Tensor& x, const LinearOutput& gate, const LinearOutput& up, const Tensor& out) {
    const LinearOutput outputs[] = {gate, up};
    linear(x, outputs);
    swiglu(gate.y, up.y, out);
  }
  // x += y.
  virtual void add(const Tensor& x, const Tensor& y) = 0;
  // out[i] = x[rows[i]].
  virtual void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) = 0;
};

class Backend : public Operations {
 public:
  virtual const BackendInfo& info() const noexcept = 0;
  // Bytes left on a device with memory of its own; of the host's nothing is known here.
  virtual uint64_t free_memory() const { return UINT64_MAX; }

  // --- memory ---------------------------------------------------------------------------------------------------
  // Uninitialised. Throws Error(out_of_memory).
  virtual Tensor allocate(DType dtype, int64_t rows, int64_t cols) = 0;
  virtual void upload(const Tensor& destination, const void* source, size_t bytes) = 0;
  virtual void download(void* destination, const Tensor& source, size_t bytes) = 0;  // waits for enqueued work
  // An F32 tensor's own memory, where operations have ended when they return and the host can use it; empty elsewhere.
  virtual std::span<float> host_values(const Tensor&) const { return {}; }
  virtual void synchronize() = 0;
  virtual std::unique_ptr<KvStorage> create_kv(const KvShape& shape) = 0;

  // --- weights --------------------------------------------------------------------------------------------------
  // Repacks into own memory. F32/F16 sources under WeightFormat::bf16 are rounded to nearest even.
  // Throws Error(unsupported) for a format this backend does not have, and what `source.read` throws.
  virtual MatrixPtr pack(const MatrixSource& source, WeightFormat format) = 0;
  // The factors of one expert, all at once: one block of memory, packed side by side; null-free and in the order of
  // `sources`. Formats that only base weights have become BF16. Throws as pack() does.
  virtual std::vector<MatrixPtr> pack_factors(std::span<const FactorSource> sources, WeightFormat format);
  // What linear() would otherwise work out of them at every call, for LinearDelta::planned_terms; they must outlive it. Null
  // where there is nothing to gain. Throws Error(internal) for terms that do not fit one another.
  virtual std::shared_ptr<const void> plan_terms(std::span<const LowRankTerm>) const { return nullptr; }
  // The packed bytes for our own cache file (empty where a backend cannot give them), and their way back:
  // `bytes` must stay valid and unchanged while `owner` lives.
  virtual std::span<const std::byte> packed_bytes(const Matrix& matrix) const = 0;
  virtual MatrixPtr adopt(int64_t rows, int64_t cols, WeightFormat format, std::span<const std::byte> bytes,
                          std::shared_ptr<const void> owner) = 0;
  // The values a matrix multiplies with, as F32: `count` rows from `first_row` into host memory [count, cols].
  virtual void unpack_rows(const Matrix& matrix, int64_t first_row, int64_t count, float* destination) const = 0;
  // Whether packed_bytes() of such a matrix can have so many bytes.
  virtual bool adopts(int64_t rows, int64_t cols, WeightFormat format, size_t bytes) const = 0;
  // The same for the screen of a large matrix: what screened_linear() finds its largest products with.
  // screen_size() is 0 where a backend has none; nothing else of screens is called there.
  virtual size_t screen_size(int64_t, int64_t) const { return 0; }
  virtual MatrixPtr pack_screen(const Matrix&) { fail(ErrorCode::unsupported, "{}: screens", info().device); }
  virtual MatrixPtr adopt_screen(int64_t, int64_t, std::span<const std::byte>, std::shared_ptr<const void>) {
    fail(ErrorCode::unsupported, "{}: screens", info().device);
  }
  virtual ScreenStats screen_stats() const { return {}; }

  // --- operations on the whole of a batch -----------------------------------------------------------------------------
  // out[r] = table[layout.token_ids[r]]; out f32 [rows, cols of table].
  virtual void embed(const Matrix& table, const BatchLayout& layout, const Tensor& out) = 0;
  // The deltas of an embedding, after embed() has written `out`. An embedding is a linear layer whose input is one-hot,
  // so D and A are kept as tables, one row per token: D [vocab, hidden], A [vocab, rank]. There is no input scale.
  virtual void embed_deltas(const BatchLayout& layout, std::span<const SegmentDelta> deltas, const Tensor& out) = 0;
  // y = W x of a matrix with its screen, exact where it matters: of row r, the best[r] >= 1 largest values and all that
  // equal the last of them are those of linear(), bit for bit. The others are too, or estimates that are smaller.
  virtual void screened_linear(const Tensor& /*x*/, const Matrix& /*weight*/, const Matrix& /*screen*/,
                               std::span<const int32_t> /*best*/, const Tensor& /*y*/) {
    fail(ErrorCode::unsupported, "{}: screens", info().device);
  }

  // --- walking together -----------------------------------------------------------------------------------------
  // How many of the backend's threads go through the layers of a batch of so many rows side by side; 1: one thread calls the
  // operations, and they divide themselves. On a walk every thread calls the same operations, with the same shapes, on the
  // Operations that it is given: what linear(), gated() and attention() write is common to all, each makes a part of it, and
  // all of it is there when they return; what the others write belongs to the thread that calls them, so that each has
  // the few values that come in between without waiting for another.
  virtual int walkers(int64_t /*rows*/) const { return 1; }
  // walk(operations, walker) on each of them; returns when all have. Throws what the first of them threw. False, and nothing
  // called, where they are not to be had now.
  virtual bool walk(const std::function<void(Operations&, int walker)>& /*walk*/) { return false; }
};

struct BackendOptions {
  std::string device = "auto";  // auto (CUDA where its plug-in finds a device, else cpu) | cpu | reference | cuda[:N]
  int threads = 0;              // 0: one per core this process may use (affinity and cgroup quota)
  std::string isa;              // empty: EXPERT_ISA, else the best this machine has
};

// Throws Error(unsupported) for a device or an instruction set that is not there, by name, and Error(invalid_request) for
// a number that is none.
std::unique_ptr<Backend> make_backend(const BackendOptions& options);

}  // namespace expert
