// DoRA's norms (arXiv 2402.09353): ||W + s B A|| of every output, over the base's weights as the model multiplies with
// them. They cost a pass over the base and are kept on disk by content: base fingerprint, weight format, expert.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "adapters/adapter.h"

namespace expert {

// The update of one site, as F32: left [rows, rank] times right [rank, cols] is what is added to the site's matrix as it
// is stored, [rows, cols]: W of a linear layer, the table of an embedding.
struct LowRankUpdate {
  std::vector<float> left;
  std::vector<float> right;
  int64_t rank = 0;
};

// One norm per output: per row of a linear layer's W, per column of an embedding's table.
std::vector<float> dora_norms(const LinearSite& site, const LowRankUpdate& update, const Backend& backend);

class DoraNormCache {
 public:
  // Reads what is there. A file that is missing, cut or altered is none at all.
  DoraNormCache(const Adapter::Source& source, const AdapterBase& base);
  // Null where the cache does not know the site.
  const std::vector<float>* find(const LinearSite& site) const;
  void add(const LinearSite& site, std::vector<float> norms);
  // Writes the file when something was added; the log says when that fails.
  void save() const noexcept;

 private:
  void read(size_t largest);

  std::string path_;  // empty: nothing is cached
  std::map<std::string, std::vector<float>, std::less<>> norms_;
  bool added_ = false;
};

}  // namespace expert
