#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace expert {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// Tensor name → shard, as model.safetensors.index.json has it. Shards are files of this directory and nothing else.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const Json index = read_json_file(path);
  const Json weight_map = JsonFields(index, path).object("weight_map").json();
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, value] : weight_map.items()) {
    if (!value.is_string()) fail(ErrorCode::load, "{}: the shard of {} must be a file name", path, tensor);
    const auto shard = value.get<std::string>();
    if (shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos || !shard.ends_with(".safetensors")) {
      fail(ErrorCode::load, "{}: {} is no plain name of a safetensors file in this directory", path,
           shard.substr(0, 200));
    }
    shards[tensor] = shard;
  }
  if (shards.empty()) fail(ErrorCode::load, "{}: weight_map is empty", path);
  return shards;
}

void check_against_index(const TensorSet& tensors, const std::map<std::string, std::string>& shards,
                         const std::string& index_path) {
  for (const auto& [name, shard] : shards) {
    const TensorRef tensor = tensors.find(name);
    if (!tensor) fail(ErrorCode::load, "{}: tensor {} is missing from {}", index_path, name, shard);
    if (last_segment(tensor.file->source()) != shard) {
      fail(ErrorCode::load, "{}: tensor {} is in {}, not in {}", index_path, name, last_segment(tensor.file->source()),
           shard);
    }
  }
}

SafeTensors open_shard(const std::string& directory, const std::string& file, const std::string& index_path) {
  const std::string path = join_path(directory, file);
  if (entry_exists(path)) return SafeTensors::open(path);
  throw Error(ErrorCode::load, fmt::format("{}: {} is missing from the directory", index_path, file),
              "the model was not downloaded whole: fetch the missing file");
}

// Says what the directory has instead of safetensors, so that the user knows what to convert.
[[noreturn]] void fail_without_weights(const std::string& directory) {
  for (const std::string& name : list_directory(directory)) {
    const std::string extension = std::filesystem::path(name).extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
      throw Error(
          ErrorCode::unsupported,
          fmt::format("{}: weights in {} are a pickle, which can run code and is never opened", directory, name),
          "convert them where you trust them: AutoModelForCausalLM.from_pretrained(DIR)"
          ".save_pretrained(OUT, safe_serialization=True)");
    }
    if (extension == ".gguf" || extension == ".h5" || extension == ".msgpack" || name == "consolidated.safetensors") {
      throw Error(ErrorCode::unsupported, fmt::format("{}: weights in {} are not supported", directory, name),
                  "use the Hugging Face directory with model.safetensors");
    }
  }
  throw Error(ErrorCode::load, fmt::format("{}: has neither {} nor {}", directory, kSingleFile, kIndexFile),
              "name a Hugging Face model directory");
}

}  // namespace

bool same_tensor(const TensorRef& a, const TensorRef& b) {
  if (a->dtype_name != b->dtype_name || a->shape != b->shape || a->bytes != b->bytes) return false;
  constexpr size_t kChunk = size_t{1} << 20;
  std::vector<std::byte> first(kChunk);
  std::vector<std::byte> second(kChunk);
  for (uint64_t offset = 0; offset < a->bytes; offset += kChunk) {
    const auto count = static_cast<size_t>(std::min<uint64_t>(kChunk, a->bytes - offset));
    a.read(offset, first.data(), count);
    b.read(offset, second.data(), count);
    if (std::memcmp(first.data(), second.data(), count) != 0) return false;
  }
  return true;
}

TensorSet::TensorSet(SafeTensors file) : source_(file.source()) { add_file(std::move(file)); }

void TensorSet::add_file(SafeTensors file) {
  const auto shared = std::make_shared<const SafeTensors>(std::move(file));
  for (const TensorEntry& entry : shared->entries()) {
    const TensorRef tensor{shared.get(), &entry};
    const auto [at, added] = tensors_.try_emplace(entry.name, tensor);
    if (!added && !same_tensor(at->second, tensor)) {
      fail(ErrorCode::load, "{}: tensor {} is also in {}", shared->source(), entry.name, at->second.file->source());
    }
  }
  files_.push_back(shared);
  list_names();
}

TensorSet TensorSet::open(const std::string& directory) {
  if (!directory_exists(directory)) {
    throw Error(ErrorCode::load,
                fmt::format("{}: {}", directory, file_exists(directory) ? "is a file" : "is no directory"),
                "name a Hugging Face model directory");
  }
  const std::string single = join_path(directory, kSingleFile), index_path = join_path(directory, kIndexFile);
  TensorSet set;
  set.source_ = directory;
  // Not file_exists(): a FIFO or a broken link under this name shall be named as such by open().
  if (entry_exists(single)) {
    set.add_file(SafeTensors::open(single));
    set.complete_names();
    return set;
  }
  if (!entry_exists(index_path)) fail_without_weights(directory);
  const std::map<std::string, std::string> shards = read_weight_map(index_path);
  std::vector<std::string> files;
  for (const auto& [tensor, shard] : shards) files.push_back(shard);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  for (const std::string& file : files) set.add_file(open_shard(directory, file, index_path));
  check_against_index(set, shards, index_path);
  set.complete_names();
  return set;
}

// A checkpoint saved from the bare decoder (Qwen3-Embedding, say) has its names without the "model." of the causal model,
// under which everything else looks for them; Transformers completes them too.
void TensorSet::complete_names() {
  constexpr std::string_view kPrefix = "model.";
  const bool complete = std::any_of(names_.begin(), names_.end(), [&](const auto& name) { return name.starts_with(kPrefix); });
  if (complete || !tensors_.contains("embed_tokens.weight")) return;
  std::map<std::string, TensorRef, std::less<>> completed;
  for (const auto& [name, tensor] : tensors_) {
    completed.emplace(name.starts_with("lm_head.") ? name : std::string(kPrefix) + name, tensor);
  }
  tensors_ = std::move(completed);
  list_names();
}

void TensorSet::list_names() {
  names_.clear();
  for (const auto& [name, tensor] : tensors_) names_.push_back(name);
}

TensorRef TensorSet::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? TensorRef{} : found->second;
}

TensorRef TensorSet::at(std::string_view name) const {
  const TensorRef tensor = find(name);
  if (!tensor) fail(ErrorCode::load, "{}: tensor {} is missing", source_, name);
  return tensor;
}

uint64_t TensorSet::total_bytes() const {
  uint64_t total = 0;
  for (const auto& [name, tensor] : tensors_) total += tensor->bytes;
  return total;
}

void TensorSet::require_unchanged() const {
  for (const auto& file : files_) {
    if (file->file() != nullptr) file->file()->require_unchanged();
  }
}

}  // namespace expert
