#include "io/fingerprint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"
#include "io/hash_memo.h"
#include "io/sha256.h"

namespace expert {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

// False when it was stopped.
bool hash_tensor(Sha256& hash, const TensorRef& tensor, Bytes& chunk, const std::stop_token& stop) {
  hash.update_framed(tensor->name).update_framed(tensor->dtype_name).update_number(tensor->shape.size());
  for (const int64_t dim : tensor->shape) hash.update_number(static_cast<uint64_t>(dim));
  hash.update_number(tensor->bytes);
  for (uint64_t done = 0; done < tensor->bytes;) {
    const size_t n = std::min<uint64_t>(chunk.size(), tensor->bytes - done);
    tensor.read(done, chunk.data(), n);
    hash.update(ByteView(chunk.data(), n));
    done += n;
    if (stop.stop_requested()) return false;
  }
  return true;
}

// Of everything that would change with the files; empty when one of them is not on disk.
std::string key_of(const TensorSet& tensors) {
  std::vector<std::pair<std::string, FileIdentity>> files;
  for (const auto& file : tensors.files()) {
    if (file->file() == nullptr) return {};
    std::error_code error;
    const auto absolute = std::filesystem::absolute(file->source(), error);
    if (error) return {};
    files.emplace_back(absolute.string(), file->file()->identity());
  }
  return memo_key("base_fingerprint 1", files);
}

}  // namespace

std::string base_fingerprint(const TensorSet& tensors, const std::stop_token& stop) {
  Sha256 hash;
  Bytes chunk(kChunkBytes);
  for (const std::string& name : tensors.names()) {
    if (!hash_tensor(hash, tensors.at(name), chunk, stop)) return {};
  }
  tensors.require_unchanged();
  return hash.finish_hex();
}

std::string base_fingerprint(const TensorSet& tensors, const std::string& cache_directory,
                             const std::stop_token& stop) {
  const std::string key = cache_directory.empty() ? std::string() : key_of(tensors);
  if (key.empty()) return base_fingerprint(tensors, stop);
  tensors.require_unchanged();
  HashMemo memo(join_path(cache_directory, "fingerprints"));
  if (std::string known = memo.find(key); !known.empty()) return known;
  std::string fingerprint = base_fingerprint(tensors, stop);
  memo.record(key, fingerprint);
  return fingerprint;
}

PendingFingerprint::PendingFingerprint(TensorSet tensors, std::string cache_directory) {
  const auto held = std::make_shared<TensorSet>(std::move(tensors));
  const auto compute = [held, cache = std::move(cache_directory), stop = stop_.get_token()] {
    const TensorSet own = std::move(*held);  // the result outlives the open files
    return base_fingerprint(own, cache, stop);
  };
  try {
    result_ = std::async(std::launch::async, compute).share();
  } catch (const std::system_error&) {
    result_ = std::async(std::launch::deferred, compute).share();  // no thread to be had: whoever asks computes it
  }
}

PendingFingerprint::~PendingFingerprint() { stop_.request_stop(); }

}  // namespace expert
