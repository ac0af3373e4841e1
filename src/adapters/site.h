// The layers of a base model that an expert can bend.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/matrix.h"

namespace expert {

enum class SiteKind : uint8_t { linear, head, embedding };

// Named as in the checkpoint, without ".weight": "model.layers.3.self_attn.q_proj". An embedding is a linear layer whose
// input is one-hot: `in` is the vocabulary.
struct LinearSite {
  std::string name;
  int64_t out = 0;
  int64_t in = 0;
  SiteKind kind = SiteKind::linear;
  bool has_bias = false;
  MatrixPtr weight = nullptr;  // as the model multiplies with it; of an embedding [in, out], the table
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
  void set_weight(int index, MatrixPtr weight) { sites_[static_cast<size_t>(index)].weight = std::move(weight); }
  // Head and embedding are one matrix.
  void set_tied_head(bool tied) { tied_head_ = tied; }
  bool tied_head() const noexcept { return tied_head_; }

  std::optional<int> find(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    if (found == by_name_.end()) return std::nullopt;
    return found->second;
  }
  std::optional<int> find(SiteKind kind) const {
    for (int i = 0; i < size(); ++i) {
      if ((*this)[i].kind == kind) return i;
    }
    return std::nullopt;
  }
  const LinearSite& operator[](int index) const { return sites_[static_cast<size_t>(index)]; }
  int size() const noexcept { return static_cast<int>(sites_.size()); }
  auto begin() const { return sites_.begin(); }
  auto end() const { return sites_.end(); }

 private:
  std::vector<LinearSite> sites_;
  std::unordered_map<std::string, int> by_name_;
  bool tied_head_ = false;
};

}  // namespace expert
