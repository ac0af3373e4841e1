// The linear layers of a base model that an expert can bend.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace expert {

// Named as in the checkpoint, without ".weight": "model.layers.3.self_attn.q_proj".
struct LinearSite {
  std::string name;
  int64_t out = 0;
  int64_t in = 0;
};

// Filled once by the model; the index of a site is its address everywhere else.
class SiteTable {
 public:
  int add(LinearSite site) {
    const int index = static_cast<int>(sites_.size());
    by_name_.emplace(site.name, index);
    sites_.push_back(std::move(site));
    return index;
  }
  std::optional<int> find(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    if (found == by_name_.end()) return std::nullopt;
    return found->second;
  }
  const LinearSite& operator[](int index) const { return sites_[static_cast<size_t>(index)]; }
  int size() const noexcept { return static_cast<int>(sites_.size()); }
  auto begin() const { return sites_.begin(); }
  auto end() const { return sites_.end(); }

 private:
  std::vector<LinearSite> sites_;
  std::unordered_map<std::string, int> by_name_;
};

}  // namespace expert
