// The tensors of one expert by what they are and where they belong, in all spellings people have saved them in.
// Every tensor must be taken by the kind that lowers it: one that was saved and would be ignored is an error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "adapters/adapter.h"
#include "adapters/site.h"

namespace expert {

enum class TensorPart : uint8_t {
  lora_a,
  lora_b,
  lora_bias,  // of lora_B
  magnitude,  // DoRA's
  embedding_a,
  embedding_b,
  ia3,
  token_rows,    // trainable_token_indices
  base_weight,   // inside an adapted module
  base_bias,     //
  saved_weight,  // the module's own: modules_to_save, or a copy
  saved_bias,    //
  training_state,  // of no use to a forward pass
};

class ExpertTensors {
 public:
  // Resolves every name. Throws load for a tensor that is no part of any kind, incompatible for one whose module the
  // base does not have. `method` names the method in errors, `apart` one tensor that the method reads by itself.
  ExpertTensors(const Adapter::Source& source, const SiteTable& sites, std::string method, std::string_view apart = {});

  // Null where absent. Taken tensors count as used.
  const TensorEntry* take(int site, TensorPart part);
  const TensorEntry* peek(int site, TensorPart part) const;
  // Throws load when something was not taken.
  void require_all_taken() const;
  // Sites that have the part and nobody took it, ascending.
  std::vector<int> untaken_sites(TensorPart part) const;
  const std::string& origin() const { return source_.origin; }

  // Throws load for another number of dimensions or a type that is not F32, F16 or BF16; a vector may be saved with
  // extra dimensions of size one.
  void require_float(const TensorEntry& entry) const;
  void require_matrix(const TensorEntry& entry) const;
  void require_vector(const TensorEntry& entry, int64_t size, std::string_view what) const;
  // The values times `factor`; throws load for one that is not finite.
  std::vector<float> read(const TensorEntry& entry, double factor = 1.0) const;

 private:
  struct Found {
    const TensorEntry* entry = nullptr;
    bool taken = false;
  };
  void add(const TensorEntry& entry);
  void require_same(const TensorEntry& entry, const TensorEntry& other) const;

  const Adapter::Source& source_;
  const SiteTable& sites_;
  std::string method_;
  std::map<std::pair<int, TensorPart>, Found> found_;
};

std::string shape_text(const TensorEntry& entry);  // "[8, 48]"

}  // namespace expert
