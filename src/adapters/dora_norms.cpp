#include "adapters/dora_norms.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <system_error>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "io/file.h"
#include "io/sha256.h"

namespace expert {
namespace {

constexpr int64_t kRowsAtOnce = 64;
constexpr int64_t kWorthThreads = int64_t{1} << 22;  // multiply-adds
constexpr const char* kKind = "dora-norms-1";

// Sums of squares of the rows of base + left * right, or of its columns.
class NormPass {
 public:
  NormPass(const LinearSite& site, const LowRankUpdate& update, const Backend& backend)
      : site_(site), update_(update), backend_(backend), rows_(site.weight->rows()), cols_(site.weight->cols()) {}

  std::vector<double> run() {
    const int64_t chunks = (rows_ + kRowsAtOnce - 1) / kRowsAtOnce;
    sums_.assign(static_cast<size_t>(chunks * (by_column() ? cols_ : kRowsAtOnce)), 0.0);
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      std::vector<float> rows(static_cast<size_t>(kRowsAtOnce * cols_));
      for (int64_t chunk = next++; chunk < chunks; chunk = next++) take(chunk, rows.data());
    };
    const int64_t cost = rows_ * cols_ * std::max<int64_t>(1, update_.rank);
    const int helpers = cost < kWorthThreads ? 0 : static_cast<int>(std::min<int64_t>(backend_.info().threads, chunks)) - 1;
    std::vector<std::jthread> threads;
    try {
      for (int i = 0; i < helpers; ++i) threads.emplace_back(work);
    } catch (const std::system_error&) {
      // Fewer threads than wished: those there are do it.
    }
    work();
    threads.clear();
    if (!by_column()) {
      sums_.resize(static_cast<size_t>(rows_));
      return std::move(sums_);
    }
    // Chunks in order, so that the sum does not depend on who took which.
    std::vector<double> total(static_cast<size_t>(cols_), 0.0);
    for (size_t i = 0; i < sums_.size(); ++i) total[i % total.size()] += sums_[i];
    return total;
  }

 private:
  bool by_column() const { return site_.kind == SiteKind::embedding; }

  void take(int64_t chunk, float* rows) {
    const int64_t first = chunk * kRowsAtOnce;
    const int64_t count = std::min(kRowsAtOnce, rows_ - first);
    backend_.unpack_rows(*site_.weight, first, count, rows);
    double* columns = sums_.data() + chunk * cols_;
    for (int64_t r = 0; r < count; ++r) {
      float* row = rows + r * cols_;
      const float* left = update_.left.data() + (first + r) * update_.rank;
      for (int64_t k = 0; k < update_.rank; ++k) add_scaled(row, update_.right.data() + k * cols_, left[k], cols_);
      if (by_column()) {
        for (int64_t c = 0; c < cols_; ++c) columns[c] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
      } else {
        sums_[static_cast<size_t>(first + r)] = square_sum(row, cols_);
      }
    }
  }

  static void add_scaled(float* row, const float* by, float factor, int64_t count) {
    for (int64_t c = 0; c < count; ++c) row[c] += factor * by[c];
  }
  static double square_sum(const float* row, int64_t count) {
    double sum = 0;
    for (int64_t c = 0; c < count; ++c) sum += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    return sum;
  }

  const LinearSite& site_;
  const LowRankUpdate& update_;
  const Backend& backend_;
  const int64_t rows_;
  const int64_t cols_;
  std::vector<double> sums_;  // per row; by column: per chunk and column
};

std::string digest_of(const std::map<std::string, std::vector<float>, std::less<>>& norms) {
  Sha256 sha;
  for (const auto& [name, values] : norms) sha.update_framed(name).update_framed(std::as_bytes(std::span(values)));
  return sha.finish_hex();
}

// The formats the site's matrices really have: a model may keep some of them in another than the rest.
std::string key_of(const Adapter::Source& source, const AdapterBase& base) {
  Sha256 sha;
  sha.update_framed(kKind).update_framed(base.fingerprint());
  for (const LinearSite& site : base.sites) {
    sha.update_framed(site.name).update_framed(name_of(site.weight->format()));
    sha.update_number(static_cast<uint64_t>(site.weight->group()));
  }
  const ContentHash content = source.content_hash();
  sha.update(std::as_bytes(std::span(content)));
  return sha.finish_hex();
}

}  // namespace

std::vector<float> dora_norms(const LinearSite& site, const LowRankUpdate& update, const Backend& backend) {
  const std::vector<double> sums = NormPass(site, update, backend).run();
  std::vector<float> norms(sums.size());
  std::transform(sums.begin(), sums.end(), norms.begin(), [](double sum) { return static_cast<float>(std::sqrt(sum)); });
  return norms;
}

DoraNormCache::DoraNormCache(const Adapter::Source& source, const AdapterBase& base) {
  if (base.cache_directory.empty() || !base.fingerprint) return;
  try {
    const std::string key = key_of(source, base);
    path_ = join_path(join_path(base.cache_directory, "dora"), key + ".safetensors");
    if (file_exists(path_)) read(static_cast<size_t>(base.sites.size()));
  } catch (const std::exception& error) {
    norms_.clear();
    log(LogLevel::warning, fmt::format("DoRA norms are computed again: {}", error.what()));
  }
}

void DoraNormCache::read(size_t largest) {
  const SafeTensors file = SafeTensors::open(path_);
  if (file.entries().size() > largest) fail(ErrorCode::load, "{}: has too many tensors", path_);
  for (const TensorEntry& entry : file.entries()) norms_[entry.name] = file.read_f32(entry);
  const auto digest = file.metadata().find("sha256");
  if (digest == file.metadata().end() || digest->second != digest_of(norms_)) {
    fail(ErrorCode::load, "{}: is damaged", path_);
  }
}

const std::vector<float>* DoraNormCache::find(const LinearSite& site) const {
  const auto found = norms_.find(site.name);
  if (found == norms_.end() || found->second.size() != static_cast<size_t>(site.out)) return nullptr;
  return &found->second;
}

void DoraNormCache::add(const LinearSite& site, std::vector<float> norms) {
  norms_[site.name] = std::move(norms);
  added_ = true;
}

void DoraNormCache::save() const noexcept {
  if (path_.empty() || !added_) return;
  try {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, values] : norms_) {
      TensorToWrite tensor{name, "F32", {static_cast<int64_t>(values.size())}, Bytes(values.size() * sizeof(float))};
      std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
      tensors.push_back(std::move(tensor));
    }
    create_directories(path_.substr(0, path_.rfind('/')));
    write_file_atomically(path_, make_safetensors(tensors, {{"kind", kKind}, {"sha256", digest_of(norms_)}}));
  } catch (const std::exception& error) {
    log(LogLevel::warning, fmt::format("DoRA norms were not cached: {}", error.what()));
  }
}

}  // namespace expert
