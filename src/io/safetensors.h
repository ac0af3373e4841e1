// safetensors files and Hugging Face weight directories. A file is checked whole when it is opened; afterwards every
// entry is known to lie inside it. Reading is by position (never mapped), so a file that is cut gives a LoadError.
// Format: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/types.h"
#include "io/file.h"

namespace expert {

struct TensorEntry {
  std::string name;
  std::optional<DType> dtype;  // empty: a type this library cannot read, see dtype_name
  std::string dtype_name;      // as in the file: "F32", "BF16", "F8_E4M3"
  std::vector<int64_t> shape;  // row-major, outermost first; empty for a scalar
  uint64_t offset = 0;         // of the first byte, from the start of the file
  uint64_t bytes = 0;

  uint64_t elements() const;
  std::string describe() const;  // "model.norm.weight F32 [1024]"
};

// One file. Const members are thread-safe.
class SafeTensors {
 public:
  static SafeTensors open(const std::string& path);
  // `source` names it in errors.
  static SafeTensors from_file(std::shared_ptr<const File> file, std::string source);
  static SafeTensors from_memory(std::shared_ptr<const Bytes> bytes, std::string source);

  const std::string& source() const { return source_; }
  // Sorted by name.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  const TensorEntry* find(std::string_view name) const;  // nullptr when absent
  const TensorEntry& at(std::string_view name) const;    // absent: ErrorCode::load
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // `n` bytes of the tensor from its byte `offset`, as stored (little-endian). The range must lie inside the tensor.
  void read(const TensorEntry& entry, uint64_t offset, void* destination, size_t n) const;
  // The whole tensor as float32, whatever its dtype (F32, F16, BF16; others are ErrorCode::unsupported by name).
  std::vector<float> read_f32(const TensorEntry& entry) const;

  // nullptr for from_memory.
  const File* file() const { return file_.get(); }

 private:
  SafeTensors() = default;
  void parse_header(uint64_t size);
  void read_bytes(uint64_t offset, void* destination, size_t n) const;

  std::string source_;
  std::shared_ptr<const File> file_;
  std::shared_ptr<const Bytes> memory_;
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

// A tensor of a TensorSet; valid while the set lives.
struct TensorRef {
  const SafeTensors* file = nullptr;
  const TensorEntry* entry = nullptr;

  explicit operator bool() const { return entry != nullptr; }
  const TensorEntry* operator->() const { return entry; }
  void read(uint64_t offset, void* destination, size_t n) const { file->read(*entry, offset, destination, n); }
  std::vector<float> read_f32() const { return file->read_f32(*entry); }
};

// All tensors of one model or adapter, however many files they are stored in.
class TensorSet {
 public:
  // A Hugging Face directory: model.safetensors.index.json with its shards, or model.safetensors.
  // Directories that hold only pickled weights are refused by name, with how to convert them.
  // A tensor may stand in two shards if it is the same in both. Names are those of the causal model, "model." included.
  static TensorSet open(const std::string& directory);
  explicit TensorSet(SafeTensors file);

  const std::vector<std::string>& names() const { return names_; }  // sorted
  TensorRef find(std::string_view name) const;                      // false when absent
  TensorRef at(std::string_view name) const;                        // absent: ErrorCode::load
  const std::vector<std::shared_ptr<const SafeTensors>>& files() const { return files_; }
  const std::string& source() const { return source_; }
  uint64_t total_bytes() const;  // of all tensors
  // Every file is still the one that was opened; otherwise ErrorCode::load.
  void require_unchanged() const;

 private:
  TensorSet() = default;
  void add_file(SafeTensors file);
  void complete_names();
  void list_names();

  std::string source_;
  std::vector<std::shared_ptr<const SafeTensors>> files_;
  std::map<std::string, TensorRef, std::less<>> tensors_;
  std::vector<std::string> names_;
};

// Equal type, shape and bytes; reads both.
bool same_tensor(const TensorRef& a, const TensorRef& b);

struct TensorToWrite {
  std::string name;
  std::string dtype_name;  // "F32", "F16", "BF16", …
  std::vector<int64_t> shape;
  Bytes bytes;
};
// One safetensors document, tensors in the order given. Wrong sizes and names given twice are
// ErrorCode::invalid_request.
Bytes make_safetensors(const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
void write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace expert
