// One expert as people have it: a `.expert` archive, a directory with a manifest, or a bare PEFT directory. Opening
// reads every file into own memory once; afterwards the source may change or vanish. Pickles are never opened.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/archive.h"
#include "io/hash_memo.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "packages/manifest.h"

namespace expert {

struct PackageFile {
  std::string name;  // relative to the root of the package
  uint64_t size = 0;
};

// The base model an expert is asked to fit. The fingerprint costs a full read of the weights, so it is asked for only
// when a manifest names one.
struct BaseIdentity {
  std::string name;                          // directory or model id
  std::function<std::string()> fingerprint;  // bare hex; may be empty = unknown
};

struct BaseMatch {
  size_t base_model = 0;              // index into manifest().base_models; 0 without a manifest
  bool proven = false;                // the fingerprint in the manifest equals the base's
  std::vector<std::string> warnings;  // why it is not proven, for `plan` and `info`
};

class Package {
 public:
  // ErrorCode::load for what cannot be read, ::manifest for a bad manifest, ::unsupported for layouts and formats known
  // by name but not read.
  // With a memo, files it knows are not hashed again, and a folder's tensors are read in place while they are used; others
  // are hashed on a thread of their own while the caller goes on, and remembered by remember().
  static Package open(const std::string& path, const ArchiveLimits& limits = {}, const HashMemo* memo = nullptr);
  // A folder of the store: every file in it belongs to the expert; name and version stand in for a manifest.
  static Package open_installed(const std::string& folder, std::string name, std::string version,
                                const HashMemo* memo = nullptr);
  // The same over files that are already in memory. `source` names them in errors, `default_name` and version 0.0.0
  // stand in for a manifest.
  static Package from_entries(std::vector<ArchiveEntry> entries, std::string source, std::string default_name);

  const std::string& path() const { return path_; }        // as given to open()
  const std::string& name() const { return name_; }        // canonical with a manifest, the last path segment without
  const std::string& version() const { return version_; }  // "0.0.0" without a manifest
  bool has_manifest() const { return manifest_.has_value(); }
  const Manifest& manifest() const;  // throws ErrorCode::internal without one
  const std::optional<Manifest>& optional_manifest() const { return manifest_; }

  const Json& adapter_config() const { return adapter_config_; }
  const SafeTensors& tensors() const { return *tensors_; }  // the adapter's
  // Throws ErrorCode::load where tensors that are read in place have changed since: what was read is worth nothing.
  void require_unchanged() const;
  std::shared_ptr<const SafeTensors> shared_tensors() const { return tensors_; }
  // {"lora"}, {"dora"}, {"ia3"}, {"prompt_tuning"}, …: by adapter_config.json, as PEFT names them, lower case.
  const std::vector<std::string>& kinds() const { return kinds_; }
  // The name in adapter_config.json, "" when absent.
  std::string adapter_base_name() const;

  const std::vector<PackageFile>& files() const { return files_; }  // sorted by name, skipped files left out
  // Bytes of a file of the package ("tokenizer.json"), nullptr when absent or read in place. Valid while the package lives.
  const Bytes* file(std::string_view name) const;
  std::optional<std::string> text(std::string_view name) const;
  // decoding.grammar_file, else grammar.gbnf, when the package has it.
  std::optional<std::string> grammar() const;
  uint64_t size_bytes() const;  // of all files

  // SHA-256 over the names and bytes of all files.
  std::string files_hash() const;
  // SHA-256 over manifest, adapter_config and the adapter's tensor file: equal hashes compute the same thing.
  // Waits where it is still being computed.
  const std::string& content_hash() const { return content_hash_.get(); }
  bool content_hash_is_known() const;
  // Records the content hash for the files as they were read; nothing where they are too young to be told apart.
  void remember(HashMemo& memo) const { memo.record(memo_key_, content_hash()); }

  // Throws ErrorCode::incompatible when the expert was made for another base: a named fingerprint that differs, or no
  // base model entry whose name matches. Unproven matches are warnings. Shapes are checked by whoever loads it.
  BaseMatch match_base(const BaseIdentity& base) const;

 private:
  Package() = default;
  struct Content {
    std::shared_ptr<const Bytes> bytes;
    std::shared_ptr<const File> file;      // open only where the bytes are not in memory
    std::optional<FileIdentity> identity;  // of the file in a folder
    uint64_t size() const { return bytes ? bytes->size() : file->size(); }
  };
  using Contents = std::map<std::string, Content, std::less<>>;
  static Contents contents_of(std::vector<ArchiveEntry> entries);
  Contents contents_of(const std::string& folder, const ArchiveLimits& limits, bool everything, bool all_in_memory);

  // `archive` is the identity of the file all contents come from, if they come from one.
  void take(Contents contents, std::string default_name, const HashMemo* memo,
            const std::optional<FileIdentity>& archive = {});
  void read_manifest(std::string default_name);
  std::string find_known_hash(const HashMemo* memo, const std::optional<FileIdentity>& archive);
  void read_and_hash(bool on_a_thread);
  std::vector<std::pair<std::string, const Content*>> hashed_contents() const;
  void refuse_what_is_not_read() const;
  void locate_adapter();
  void read_adapter();
  const Content* find(std::string_view name) const;

  std::string path_;
  std::string name_;
  std::string version_ = "0.0.0";
  std::optional<Manifest> manifest_;
  std::string adapter_folder_;  // "" in the root layout, "weights/<model>/adapter/" in the nested one
  Json adapter_config_;
  std::shared_ptr<const SafeTensors> tensors_;
  std::vector<std::string> kinds_;
  std::vector<PackageFile> files_;
  Contents contents_;
  std::vector<std::string> skipped_;  // names seen in a directory and not read
  std::string memo_key_;  // empty: not to be remembered
  std::shared_future<std::string> content_hash_;
};

// The name a base model directory goes by: its last segment, or the model's name for a snapshot in the Hugging Face
// cache (…/models--Qwen--Qwen3-0.6B/snapshots/<hash>).
std::string base_name_of(std::string_view directory);

// Whether two tokenizer.json documents turn every text into the same ids as far as vocabulary goes: model type,
// vocabulary, merges in either spelling, added tokens (content and id). Formatting, padding and truncation do not
// count.
bool same_tokenizer(const Json& a, const Json& b);

}  // namespace expert
