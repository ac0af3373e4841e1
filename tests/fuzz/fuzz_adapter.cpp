// Any text as adapter_config.json and, after a NUL byte, any bytes as adapter_model.safetensors, against a base of one
// layer: refused with a typed error, or deltas that fit the base and compose.
#include <cmath>
#include <cstdint>
#include <memory>
#include <string_view>

#include "adapters/adapter_set.h"
#include "core/error.h"
#include "io/json.h"

namespace {

using namespace expert;

constexpr int64_t kHidden = 4;
constexpr int64_t kWide = 6;
constexpr int64_t kVocab = 8;

MatrixPtr matrix(Backend& backend, int64_t rows, int64_t cols) {
  MatrixSource source;
  source.rows = rows;
  source.cols = cols;
  source.read = [cols](int64_t first, int64_t count, void* to) {
    for (int64_t i = 0; i < count * cols; ++i) static_cast<float*>(to)[i] = 0.25F * static_cast<float>(first + i % 7) - 0.5F;
  };
  return backend.pack(source, WeightFormat::f32);
}

struct Base {
  std::unique_ptr<Backend> backend;
  SiteTable sites;

  Base() {
    BackendOptions options;
    options.device = "reference";
    backend = make_backend(options);
    const auto add = [&](const char* name, int64_t out, int64_t in, SiteKind kind) {
      const bool table = kind == SiteKind::embedding;
      sites.add({name, out, in, kind, false, matrix(*backend, table ? in : out, table ? out : in)});
    };
    add("model.layers.0.self_attn.q_proj", kWide, kHidden, SiteKind::linear);
    add("model.layers.0.mlp.down_proj", kHidden, kWide, SiteKind::linear);
    add("lm_head", kVocab, kHidden, SiteKind::head);
    add("model.embed_tokens", kHidden, kVocab, SiteKind::embedding);
    sites.set_tied_head(true);
  }
};

void use(const Base& base, const std::shared_ptr<const Adapter>& adapter) {
  for (const SiteDelta& delta : adapter->deltas()) {
    const LinearSite& site = base.sites[delta.site];
    const bool table = site.kind == SiteKind::embedding;
    if (delta.a && (delta.a->format() != WeightFormat::f32 && delta.a->format() != WeightFormat::bf16)) __builtin_trap();
    if (delta.a && (table ? delta.a->rows() : delta.a->cols()) != site.in) __builtin_trap();
    if (delta.b && delta.b->rows() != site.out) __builtin_trap();
    for (const std::vector<float>* values : {&delta.input_scale, &delta.output_scale, &delta.result_scale, &delta.bias}) {
      const auto size = static_cast<int64_t>(values->size());
      if (size != 0 && size != (values == &delta.input_scale ? site.in : site.out)) __builtin_trap();
      for (const float value : *values) {
        if (!std::isfinite(value)) __builtin_trap();
      }
    }
  }
  const WeightedAdapter weighted{adapter, 0.5F, 0, {}};
  if (AdapterSet::compose(std::span(&weighted, 1), base.sites.size())->empty()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Base base;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  if (end == text.npos) return 0;
  try {
    const Json config = parse_json(text.substr(0, end), "fuzz", {.max_bytes = 1 << 16, .max_depth = 32});
    const ByteView bytes = as_bytes(text.substr(end + 1));
    const SafeTensors tensors =
        SafeTensors::from_memory(std::make_shared<const Bytes>(bytes.begin(), bytes.end()), "fuzz");
    Adapter::Source source;
    source.origin = "fuzz";
    source.config = &config;
    source.tensors = &tensors;
    const auto checkpoint = []() -> TensorSet { fail(ErrorCode::load, "no checkpoint here"); };
    use(base, Adapter::load(source, {base.sites, *base.backend, WeightFormat::f32, checkpoint, {}, {}}));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) __builtin_trap();
  }
  return 0;
}
