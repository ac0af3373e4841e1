// A model without weights that notices every mistake of an engine: it stores the token of each position in the KV block
// it was told to, reads the whole history back through the block table, and hashes it into its logits. A block that two
// requests share, a wrong position, a lost or repeated token changes the answer.
#pragma once

#include <atomic>
#include <chrono>
#include <climits>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/assembly.h"
#include "models/model.h"

namespace expert::test {

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(size_t size) : bytes(size) {}
  size_t size_bytes() const noexcept override { return bytes.size(); }
  std::vector<std::byte> bytes;
};

struct FakeKv final : KvStorage {
  FakeKv(int32_t blocks, size_t bytes_per_block, std::atomic<int32_t>& touched_blocks)
      : tokens(static_cast<size_t>(blocks) * kKvBlockTokens, -1), block_bytes(bytes_per_block), touched(touched_blocks) {}
  size_t size_bytes() const noexcept override { return tokens.size() / kKvBlockTokens * block_bytes; }
  void touch(int32_t first, int32_t count) override {
    for (int32_t i = first * kKvBlockTokens; i < (first + count) * kKvBlockTokens; ++i) {
      if (tokens.at(static_cast<size_t>(i)) != -1) throw std::logic_error("a block that was in use is touched");
    }
    touched += count;
  }
  std::vector<int32_t> tokens;
  size_t block_bytes;
  std::atomic<int32_t>& touched;
};

// Memory only.
class FakeBackend final : public Backend {
 public:
  size_t kv_block_bytes = kKvBlockTokens * sizeof(int32_t);  // as it says
  std::atomic<int32_t> touched{0};                           // KV blocks
  const BackendInfo& info() const noexcept override { return info_; }
  Tensor allocate(DType dtype, int64_t rows, int64_t cols) override {
    Tensor tensor{nullptr, 0, dtype, rows, cols};
    tensor.buffer = std::make_shared<HostBuffer>(tensor.size_bytes());
    return tensor;
  }
  void upload(const Tensor& destination, const void* source, size_t bytes) override {
    if (bytes != 0) std::memcpy(data(destination), source, bytes);
  }
  void download(void* destination, const Tensor& source, size_t bytes) override {
    if (bytes != 0) std::memcpy(destination, data(source), bytes);
  }
  void synchronize() override {}
  std::unique_ptr<KvStorage> create_kv(const KvShape& shape) override {
    return std::make_unique<FakeKv>(shape.blocks, kv_block_bytes, touched);
  }
  MatrixPtr pack(const MatrixSource&, WeightFormat) override { unused(); }
  std::span<const std::byte> packed_bytes(const Matrix&) const override { return {}; }
  MatrixPtr adopt(int64_t, int64_t, WeightFormat, std::span<const std::byte>, std::shared_ptr<const void>) override {
    unused();
  }
  void unpack_rows(const Matrix&, int64_t, int64_t, float*) const override { unused(); }
  bool adopts(int64_t, int64_t, WeightFormat, size_t) const override { return false; }
  void embed(const Matrix&, const BatchLayout&, const Tensor&) override { unused(); }
  void embed_deltas(const BatchLayout&, std::span<const SegmentDelta>, const Tensor&) override { unused(); }
  void rms_norm(const Tensor&, const Tensor&, float, const Tensor&) override { unused(); }
  void linear(const Tensor&, std::span<const LinearOutput>) override { unused(); }
  void attention(const BatchLayout&, const AttentionOp&) override { unused(); }
  void swiglu(const Tensor&, const Tensor&, const Tensor&) override { unused(); }
  void add(const Tensor&, const Tensor&) override { unused(); }
  void gather_rows(const Tensor&, std::span<const int32_t>, const Tensor&) override { unused(); }

 private:
  static std::byte* data(const Tensor& tensor) {
    return static_cast<HostBuffer*>(tensor.buffer.get())->bytes.data() + tensor.offset;
  }
  [[noreturn]] static void unused() { throw std::logic_error("the fake backend computes nothing"); }
  BackendInfo info_{"fake", "none", 1, "none"};
};

inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

class FakeModel final : public Model {
 public:
  // Where it returns a token, that token is certain; -1: the hash decides.
  using Script = std::function<int32_t(const std::vector<int32_t>& history)>;

  FakeModel(Backend& backend, int32_t vocab, int64_t context) : backend_(backend), context_(context) {
    config_.architecture = "FakeForCausalLM";
    config_.model_type = "fake";
    config_.vocab_size = vocab;
    config_.hidden_size = 8;
    config_.layers = 1;
    config_.kv_heads = 1;
    config_.head_dim = 1;
  }

  Script script = [](const std::vector<int32_t>&) { return -1; };
  std::atomic<int> delay_us{0};    // per step
  std::atomic<int> fail_steps{0};  // this many next steps throw,
  std::atomic<bool> spare_single{false};  // those of one request not counted
  mutable std::atomic<int> failed_steps{0};
  mutable std::atomic<int> steps{0};
  mutable std::atomic<int> most_segments{0};
  ModelConfig& mutable_config() { return config_; }

  const ModelConfig& config() const noexcept override { return config_; }
  const SiteTable& sites() const noexcept override { return sites_; }
  WeightFormat weight_format() const noexcept override { return WeightFormat::f32; }
  int64_t context_size() const noexcept override { return context_; }
  size_t weight_bytes() const noexcept override { return 0; }
  size_t bytes_per_token() const noexcept override { return 0; }
  bool loaded_from_cache() const noexcept override { return false; }
  KvShape kv_shape(int32_t blocks, DType dtype) const override { return {1, 1, 1, blocks, dtype}; }
  std::string fingerprint() const override { return {}; }
  TensorSet source_tensors() const override { throw std::logic_error("the fake model has no files"); }
  bool write_weight_cache(const std::stop_token&) const override { return false; }

  Tensor forward(const Batch& batch, KvStorage& kv) const override { return run(batch, kv, config_.vocab_size); }
  Tensor hidden(const Batch& batch, KvStorage& kv) const override { return run(batch, kv, config_.hidden_size); }

 private:
  Tensor run(const Batch& batch, KvStorage& storage, int32_t width) const {
    ++steps;
    most_segments = std::max(most_segments.load(), static_cast<int>(batch.layout.segments.size()));
    if (delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    if (fail_steps > 0 && (!spare_single || batch.layout.segments.size() > 1)) {
      ++failed_steps;
      --const_cast<FakeModel*>(this)->fail_steps;
      throw std::runtime_error("scripted failure");
    }
    auto& kv = static_cast<FakeKv&>(storage);
    std::vector<float> rows;
    size_t wanted = 0;
    for (const Segment& segment : batch.layout.segments) {
      for (int32_t row = segment.first_row; row < segment.first_row + segment.row_count; ++row) {
        store(kv, batch.layout, segment, row);
        const bool is_wanted = wanted < batch.logit_rows.size() && batch.logit_rows[wanted] == row;
        if (!is_wanted) continue;
        ++wanted;
        append_row(rows, history(kv, segment, row), width);
      }
    }
    if (wanted != batch.logit_rows.size()) throw std::logic_error("logit_rows are not rows of the batch");
    Tensor result = backend_.allocate(DType::f32, static_cast<int64_t>(wanted), width);
    backend_.upload(result, rows.data(), rows.size() * sizeof(float));
    return result;
  }

  static size_t slot(const Segment& segment, int32_t position) {
    const auto block = segment.block_table[static_cast<size_t>(position / kKvBlockTokens)];
    return static_cast<size_t>(block * kKvBlockTokens + position % kKvBlockTokens);
  }

  static void store(FakeKv& kv, const BatchLayout& layout, const Segment& segment, int32_t row) {
    const auto index = static_cast<size_t>(row);
    const int32_t position = segment.first_position + row - segment.first_row;
    if (layout.positions.at(index) != position) throw std::logic_error("positions are not consecutive");
    kv.tokens.at(slot(segment, position)) = layout.token_ids.at(index);
  }

  static std::vector<int32_t> history(const FakeKv& kv, const Segment& segment, int32_t row) {
    const int32_t last = segment.first_position + row - segment.first_row;
    std::vector<int32_t> tokens;
    for (int32_t position = 0; position <= last; ++position) tokens.push_back(kv.tokens.at(slot(segment, position)));
    return tokens;
  }

  void append_row(std::vector<float>& rows, const std::vector<int32_t>& tokens, int32_t width) const {
    uint64_t hash = 1;
    for (const int32_t token : tokens) hash = mixed(hash + static_cast<uint64_t>(token) + 0x9E3779B97F4A7C15);
    const int32_t forced = width == config_.vocab_size ? script(tokens) : -1;
    for (int32_t i = 0; i < width; ++i) {
      const uint64_t bits = mixed(hash ^ mixed(static_cast<uint64_t>(i) + 1));
      rows.push_back(i == forced ? 100.0F : static_cast<float>(bits >> 40) * 0x1.0p-24F * 8.0F);
    }
  }

  Backend& backend_;
  int64_t context_;
  ModelConfig config_;
  SiteTable sites_;
};

// One token per byte of GPT-2's byte alphabet: id = byte. Then <|im_start|> 256, <|im_end|> 257, <think> 258 (not
// special).
inline std::shared_ptr<const Tokenizer> byte_tokenizer() {
  const auto utf8 = [](uint32_t c) {
    std::string text;
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xC0 | (c >> 6));
      text += static_cast<char>(0x80 | (c & 0x3F));
    }
    return text;
  };
  Json vocab = Json::object();
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[utf8(visible ? byte : next++)] = byte;
  }
  const auto added = [](int id, const char* content, bool special) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  TokenizerFiles files;
  files.tokenizer_json = Json{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens",
       {added(256, "<|im_start|>", true), added(257, "<|im_end|>", true), added(258, "<think>", false),
        added(259, "</think>", false)}},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges",
         Json::array()}}}}.dump();
  return Tokenizer::parse(files);
}

inline std::shared_ptr<const ChatTemplate> chatml_template() {
  return ChatTemplate::parse(
      "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
      "+ "
      "'\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
      "chatml");
}

inline constexpr int32_t kEnd = 257;

struct FakeEngine {
  std::shared_ptr<FakeBackend> backend;
  std::shared_ptr<FakeModel> model;
  std::shared_ptr<Engine> engine;
};

struct FakeOptions {
  int64_t context = 4096;
  int32_t kv_blocks = 256;
  size_t kv_block_bytes = kKvBlockTokens * sizeof(int32_t);
  int32_t most_kept = INT32_MAX;
  int32_t max_batch = 16;
  int32_t max_queue = 256;
  int32_t stream_queue = 1024;
  bool chat_template = true;
  FakeModel::Script script = {};
  SamplingOptions generation_config = {};
};

inline FakeEngine fake_engine(const FakeOptions& options = {}) {
  EngineParts parts;
  FakeEngine fake;
  fake.backend = std::make_shared<FakeBackend>();
  fake.backend->kv_block_bytes = options.kv_block_bytes;
  parts.backend = fake.backend;
  fake.model = std::make_shared<FakeModel>(*parts.backend, 300, options.context);
  fake.model->mutable_config().eos_token_ids = {kEnd};
  if (options.script) fake.model->script = options.script;
  parts.model = fake.model;
  parts.tokenizer = byte_tokenizer();
  if (options.chat_template) parts.chat_template = chatml_template();
  parts.generation_config = options.generation_config;
  parts.base.names = {"fake"};
  parts.loop.kv_blocks = options.kv_blocks;
  parts.loop.most_kept = options.most_kept;
  parts.loop.max_batch = options.max_batch;
  parts.loop.max_queue = options.max_queue;
  parts.stream_queue = options.stream_queue;
  fake.engine = assemble_engine(std::move(parts));
  return fake;
}

// Answers `text`, then the end token, to every prompt of `prompt_tokens` tokens.
inline FakeModel::Script answer(std::string text, bool end = true) {
  return [text, end](const std::vector<int32_t>& history) {
    // The answer begins after "assistant\n", or wherever the last line break of the prompt is.
    const std::string opening = "assistant\n";
    std::string said;
    for (const int32_t id : history) said += id < 256 ? static_cast<char>(id) : '\x01';
    const size_t start = said.rfind(opening);
    const size_t at = start == std::string::npos ? 0 : said.size() - start - opening.size();
    if (at < text.size()) return static_cast<int32_t>(static_cast<unsigned char>(text[at]));
    return end ? kEnd : static_cast<int32_t>('.');
  };
}

}  // namespace expert::test
