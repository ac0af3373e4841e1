// What LoRA and IA3 adapters may change besides their own method: whole modules (modules_to_save), single token rows
// (trainable_token_indices), biases; and copies of the base that were saved along and must equal it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter.h"
#include "adapters/expert_tensors.h"
#include "adapters/lowering.h"
#include "adapters/target_modules.h"

namespace expert {

class BaseChanges {
 public:
  BaseChanges(const AdapterBase& base, ExpertTensors& tensors, SiteDeltas& deltas)
      : base_(base), tensors_(tensors), deltas_(deltas) {}

  // The modules of modules_to_save become D with e = 0. `tied`: head and embedding stay one matrix (PEFT's
  // ensure_weight_tying over a tied base).
  void replace_modules(const TargetModules& modules, bool tied);
  // A changed bias of the site, as the difference to the base's. Throws load where none was saved. `replaced`: the bias
  // of a replaced module; one that was saved inside the original module is then a copy that nobody uses.
  void change_bias(int site, bool replaced = false);
  // Rows of the embedding (or of the head) by token; an empty name is the embedding. As in PEFT, a tied head follows the
  // embedding unless it has other tokens of its own.
  void replace_tokens(const std::map<std::string, std::vector<int64_t>>& indices, bool ensure_weight_tying);
  // A low-rank update of a tied head whose rows follow the embedding's: PEFT's LoRA over replaced rows, which become one
  // pair. a [rank, in], b [out, rank], scaled. False where `site` has no such rows.
  bool put_beside_rows(int site, const std::vector<float>& a, const std::vector<float>& b, int64_t rank);
  bool follows_rows(int site) const { return following_head_ && following_head_->site == site; }
  // Weights and biases nobody else took: unused where they equal the base's, else incompatible.
  void compare_copies();

 private:
  void replace_module(int site, const TensorEntry& entry);
  // Rows by token that a tied head takes over from the embedding.
  struct HeadRows {
    int site;
    std::vector<float> rows;       // [tokens, in]
    std::vector<float> selection;  // [out, tokens]
    int64_t count;
  };

  void replace_rows(int site, const std::vector<int64_t>& tokens, const TensorEntry& entry, bool follows);
  void compare(int site, const TensorEntry& entry, bool bias);
  std::vector<float> base_bias(int site);
  const TensorSet& checkpoint();
  int site_named(const std::string& name) const;

  const AdapterBase& base_;
  ExpertTensors& tensors_;
  SiteDeltas& deltas_;
  std::optional<TensorSet> checkpoint_;
  std::optional<HeadRows> following_head_;
};

}  // namespace expert
