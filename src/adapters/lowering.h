// What every kind shares on its way from tensors to SiteDeltas.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "adapters/adapter.h"
#include "adapters/expert_tensors.h"
#include "io/json.h"

namespace expert {

struct Lowered {
  std::string kind;
  std::vector<SiteDelta> deltas;  // ascending by site
  Tensor soft_prompt = {};
  std::vector<float> soft_prompt_values = {};
};

// Deltas by site; several parts of one expert may meet at one site (LoRA and a changed bias).
class SiteDeltas {
 public:
  SiteDelta& at(int site) {
    SiteDelta& delta = by_site_[site];
    delta.site = site;
    return delta;
  }
  bool has(int site) const { return by_site_.contains(site); }
  bool empty() const { return by_site_.empty(); }
  std::vector<SiteDelta> take();

 private:
  std::map<int, SiteDelta> by_site_;
};

// A key of adapter_config.json that is neither among `read` nor without effect on a forward pass, and not off (null,
// false, empty): an option that would be ignored. Throws load, naming key and file.
void refuse_unknown_keys(const JsonFields& config, std::span<const std::string_view> read,
                         std::span<const std::string_view> without_effect);
// What PEFT writes for an option that is off.
bool is_off(const Json& value);

// Row-major values into the backend's layout.
MatrixPtr pack_values(Backend& backend, WeightFormat format, const std::vector<float>& values, int64_t rows,
                      int64_t cols);
// The same as a factor of a linear layer's low-rank term.
MatrixPtr pack_factor(Backend& backend, FactorSource::Role role, WeightFormat format, const std::vector<float>& values,
                      int64_t rows, int64_t cols);
std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t cols);

}  // namespace expert
