#include "models/decoder.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/pages.h"

namespace expert {
namespace {

constexpr int64_t kMostScreened = 8;  // rows: with more of them a screen saves little
constexpr int64_t kRowStep = 16;  // scratch grows in steps of this many rows

std::vector<FileIdentity> identities_of(const TensorSet& tensors) {
  std::vector<FileIdentity> identities;
  for (const auto& file : tensors.files()) {
    if (file->file()) identities.push_back(file->file()->identity());
  }
  return identities;
}

template <typename Visit>
void for_each_tensor(Workspace& work, const Visit& visit) {
  for (Tensor* tensor : {&work.x, &work.normed, &work.branch, &work.q, &work.k, &work.v, &work.attended, &work.gate, &work.up}) {
    visit(*tensor);
  }
}

Workspace first_rows(const Workspace& wide, int64_t rows) {
  Workspace work = wide;
  for_each_tensor(work, [&](Tensor& tensor) { tensor.rows = rows; });
  return work;
}

// The same memory. A count that two threads change at every call goes to and fro between their cores.
std::shared_ptr<Buffer> counted_apart(const std::shared_ptr<Buffer>& buffer) {
  return {buffer.get(), [buffer](Buffer*) {}};
}

// A [rows, cols] view of `memory`, which grows when it is too small.
Tensor rows_of(Tensor& memory, int64_t rows, int64_t cols, Backend& backend) {
  if (memory.rows < rows) memory = backend.allocate(DType::f32, rows, cols);
  return memory.row_range(0, rows);
}

void segment_rows(const Batch& batch, std::vector<AdapterRows>& rows) {
  rows.clear();
  for (size_t i = 0; i < batch.layout.segments.size(); ++i) {
    const Segment& segment = batch.layout.segments[i];
    rows.push_back({segment.first_row, segment.row_count, batch.adapters[i]});
  }
}

// The same ranges counted in logit rows, which the head sees.
void logit_row_ranges(const Batch& batch, std::vector<AdapterRows>& rows) {
  rows.clear();
  int32_t next = 0;
  const auto count = static_cast<int32_t>(batch.logit_rows.size());
  for (size_t i = 0; i < batch.layout.segments.size(); ++i) {
    const Segment& segment = batch.layout.segments[i];
    const int32_t first = next;
    while (next < count && batch.logit_rows[static_cast<size_t>(next)] < segment.first_row + segment.row_count) ++next;
    if (next > first) rows.push_back({first, next - first, batch.adapters[i]});
  }
}

// Whether of every row no more than its best logits are wanted.
bool wants_few(const Batch& batch) {
  return !batch.best_logits.empty() && static_cast<int64_t>(batch.best_logits.size()) <= kMostScreened &&
         std::ranges::all_of(batch.best_logits, [](int32_t best) { return best > 0; });
}

[[noreturn]] void malformed(const char* what) { fail(ErrorCode::internal, "batch: {}", what); }

void check_segments(const Batch& batch) {
  const BatchLayout& layout = batch.layout;
  const auto rows = static_cast<int64_t>(layout.token_ids.size());
  if (rows == 0) malformed("no rows");
  if (layout.positions.size() != layout.token_ids.size()) malformed("positions and tokens differ in number");
  if (batch.adapters.size() != layout.segments.size()) malformed("one adapter set per segment");
  int64_t next = 0;
  for (const Segment& segment : layout.segments) {
    if (segment.first_row != next || segment.row_count < 1) malformed("segments must cover all rows in order");
    next += segment.row_count;
    if (next > rows || segment.first_position < 0) malformed("a segment outside the batch");
    const int64_t positions = int64_t{segment.first_position} + segment.row_count;
    if (static_cast<int64_t>(segment.block_table.size()) * kKvBlockTokens < positions)
      malformed("block table too short");
    for (int32_t i = 0; i < segment.row_count; ++i) {
      if (layout.positions[static_cast<size_t>(segment.first_row + i)] != segment.first_position + i) {
        malformed("positions of a segment must be consecutive");
      }
    }
  }
  if (next != rows) malformed("segments must cover all rows in order");
  for (const GivenRows& given : batch.given_rows) {
    if (given.first_row < 0 || given.first_row + given.embeddings.rows > rows) malformed("given rows outside the batch");
  }
  for (size_t i = 0; i < batch.logit_rows.size(); ++i) {
    const int32_t row = batch.logit_rows[i];
    if (row < 0 || row >= rows || (i > 0 && row <= batch.logit_rows[i - 1])) malformed("logit rows must ascend");
  }
  if (!batch.best_logits.empty() && batch.best_logits.size() != batch.logit_rows.size()) {
    malformed("one number of best logits per logit row");
  }
}

}  // namespace

Decoder::Decoder(ModelConfig config, const TensorSet& tensors, const std::string& directory, Backend& backend,
                 const ModelOptions& options)
    : config_(std::move(config)),
      backend_(backend),
      directory_(directory),
      cache_directory_(options.cache_dir.string()),
      identities_(identities_of(tensors)),
      fingerprint_(tensors, cache_directory_),
      context_size_(config_.context_for(options.context_size)),
      weights_(load_checkpoint(config_, tensors, directory, backend, options)),
      rope_(config_.rope, config_.head_dim, context_size_) {
  config_.warnings.insert(config_.warnings.end(), weights_.warnings.begin(), weights_.warnings.end());
}

KvShape Decoder::kv_shape(int32_t blocks, DType dtype) const {
  return {config_.layers, config_.kv_heads, config_.head_dim, blocks, dtype};
}

std::string Decoder::fingerprint() const {
  return fingerprint_.get();
}

TensorSet Decoder::source_tensors() const {
  TensorSet tensors = TensorSet::open(directory_);
  if (identities_of(tensors) != identities_) {
    fail(ErrorCode::load, "{}: the weight files have changed since they were loaded", directory_);
  }
  return tensors;
}

bool Decoder::write_weight_cache(const std::stop_token& stop) const {
  if (!weights_.cache_key || weights_.from_cache) return false;
  std::vector<CachedMatrix> matrices;
  for (size_t i = 0; i < weights_.matrices.size(); ++i) {
    const Matrix& matrix = *weights_.matrices[i];
    matrices.push_back({weights_.matrix_names[i], matrix.rows(), matrix.cols(), backend_.packed_bytes(matrix)});
  }
  return expert::write_weight_cache(*weights_.cache_key, matrices, stop);
}

bool Decoder::restore_huge_pages(const std::stop_token& stop) const {
  return weights_.cache_file && expert::restore_huge_pages(weights_.cache_file->bytes(), stop);
}

// --- forward ------------------------------------------------------------------------------------------------------

Tensor Decoder::hidden(const Batch& batch, KvStorage& kv) const {
  Pass pass = start(batch, kv);
  embed(pass, batch);
  const Tensor states = pass_layers(pass, batch);
  if (states.rows > 0) weights_.final_norm.forward(backend_, states, states);
  return states;
}

// Gives what comes out of the last one for the rows whose logits are wanted.
Tensor Decoder::pass_layers(Pass& pass, const Batch& batch) const {
  const int64_t rows = pass.work.x.rows;
  const int walkers = backend_.walkers(rows);
  if (walkers > 1) {
    make_walkers(walkers);
    if (backend_.walk([&](Operations& operations, int walker) { walk_layers(pass, operations, walker); })) {
      return wanted_rows(scratch_.walkers.front().wide.x.row_range(0, rows), batch);
    }
  }
  const std::span<const DecoderLayer> layers = weights_.layers;
  for (const DecoderLayer& layer : layers.first(layers.size() - 1)) layer.forward(pass);
  layers.back().attend(pass);
  return finish_wanted(pass, batch);
}

// The last layer's second half, of a prompt as a rule for its last row. (On a walk all rows go through it: they are few.)
Tensor Decoder::finish_wanted(Pass& pass, const Batch& batch) const {
  const DecoderLayer& layer = weights_.layers.back();
  const Tensor x = wanted_rows(pass.work.x, batch);
  if (x.rows == 0) return x;
  if (x.rows == pass.work.x.rows) {
    layer.finish(pass);
    return x;
  }
  Workspace work = first_rows(pass.work, x.rows);
  work.x = x;
  work.attended = work.q;  // as wide, and of no more use
  backend_.gather_rows(pass.work.attended, batch.logit_rows, work.attended);
  logit_row_ranges(batch, scratch_.head_rows);
  Pass few{pass.operations, pass.layout, pass.kv, pass.rope, work, scratch_.head_rows, pass.deltas};
  layer.finish(few);
  return x;
}

void Decoder::walk_layers(const Pass& pass, Operations& operations, int walker) const {
  Walker& own = scratch_.walkers[static_cast<size_t>(walker)];
  const Workspace work = first_rows(own.wide, pass.work.x.rows);
  Pass walk{operations, pass.layout, pass.kv, pass.rope, work, pass.adapter_rows, own.deltas};
  operations.gather_rows(pass.work.x, std::span(scratch_.all_rows).first(static_cast<size_t>(work.x.rows)), work.x);
  for (const DecoderLayer& layer : weights_.layers) layer.forward(walk);
}

// The table's rows, bent by experts of the embedding; then the rows that soft prompts put in place of tokens.
void Decoder::embed(Pass& pass, const Batch& batch) const {
  const Tensor& x = pass.work.x;
  backend_.embed(*weights_.embedding, batch.layout, x);
  const std::span<const SegmentDelta> deltas = deltas_at(pass, weights_.embedding_site);
  if (!deltas.empty()) backend_.embed_deltas(batch.layout, deltas, x);
  for (const GivenRows& given : batch.given_rows) {
    backend_.gather_rows(given.embeddings, all_rows(given.embeddings.rows),
                         x.row_range(given.first_row, given.embeddings.rows));
  }
}

Tensor Decoder::forward(const Batch& batch, KvStorage& kv) const {
  const Tensor states = hidden(batch, kv);
  const Tensor logits = rows_of(scratch_.logits, states.rows, config_.vocab_size, backend_);
  if (states.rows == 0) return logits;
  logit_row_ranges(batch, scratch_.head_rows);
  Pass pass{backend_,           batch.layout,   kv, rope_.covering(0, backend_), scratch_.work,
            scratch_.head_rows, scratch_.deltas};
  if (weights_.head_screen && wants_few(batch) && deltas_at(pass, weights_.head.site).empty()) {
    backend_.screened_linear(states, *weights_.head.weight, *weights_.head_screen, batch.best_logits, logits);
  } else {
    project(pass, states, {{weights_.head, logits}});
  }
  return logits;
}

// x itself where that is all of them.
Tensor Decoder::wanted_rows(const Tensor& x, const Batch& batch) const {
  const auto wanted = static_cast<int64_t>(batch.logit_rows.size());
  if (wanted == x.rows) return x;
  const Tensor rows = rows_of(scratch_.last, wanted, config_.hidden_size, backend_);
  if (wanted > 0) backend_.gather_rows(x, batch.logit_rows, rows);
  return rows;
}

Pass Decoder::start(const Batch& batch, KvStorage& kv) const {
  check(batch);
  const auto rows = static_cast<int64_t>(batch.layout.token_ids.size());
  make_room(rows);
  segment_rows(batch, scratch_.rows);
  const int32_t last = *std::max_element(batch.layout.positions.begin(), batch.layout.positions.end());
  const RopeTable& rope = rope_.covering(int64_t{last} + 1, backend_);
  return {backend_, batch.layout, kv, rope, scratch_.work, scratch_.rows, scratch_.deltas};
}

void Decoder::check(const Batch& batch) const {
  check_segments(batch);
  for (const int32_t id : batch.layout.token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      fail(ErrorCode::invalid_request, "token {} is outside the vocabulary of {}", id, config_.vocab_size);
    }
  }
  for (const int32_t position : batch.layout.positions) {
    if (position >= context_size_) {
      fail(ErrorCode::invalid_request, "position {} is outside the context of {}", position, context_size_);
    }
  }
}

void Decoder::make_room(int64_t rows) const {
  if (rows > scratch_.capacity) {
    const int64_t capacity = (rows + kRowStep - 1) / kRowStep * kRowStep;
    const int64_t heads_size = int64_t{config_.heads} * config_.head_dim;
    const int64_t kv_size = int64_t{config_.kv_heads} * config_.head_dim;
    const auto space = [&](int64_t cols) { return backend_.allocate(DType::f32, capacity, cols); };
    scratch_.wide = {};  // give the old memory back first
    scratch_.work = {};
    scratch_.walkers.clear();
    scratch_.capacity = 0;
    scratch_.wide = {space(config_.hidden_size),
                     space(config_.hidden_size),
                     space(config_.hidden_size),
                     space(heads_size),
                     space(kv_size),
                     space(kv_size),
                     space(heads_size),
                     space(config_.intermediate_size),
                     space(config_.intermediate_size)};
    scratch_.capacity = capacity;
  }
  scratch_.work = first_rows(scratch_.wide, rows);
}

void Decoder::make_walkers(int count) const {
  all_rows(scratch_.capacity);
  for (auto w = static_cast<int>(scratch_.walkers.size()); w < count; ++w) {
    Walker walker{scratch_.wide, {}};
    for_each_tensor(walker.wide, [](Tensor& tensor) { tensor.buffer = counted_apart(tensor.buffer); });
    walker.wide.x = backend_.allocate(DType::f32, scratch_.capacity, config_.hidden_size);
    walker.wide.normed = backend_.allocate(DType::f32, scratch_.capacity, config_.hidden_size);
    scratch_.walkers.push_back(std::move(walker));
  }
}

std::span<const int32_t> Decoder::all_rows(int64_t count) const {
  std::vector<int32_t>& rows = scratch_.all_rows;
  if (static_cast<int64_t>(rows.size()) < count) {
    rows.resize(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
  }
  return std::span(rows).first(static_cast<size_t>(count));
}

}  // namespace expert
