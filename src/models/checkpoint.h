// The weights of a decoder, loaded and packed: from a checkpoint's tensors or from our own cache of them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "adapters/site.h"
#include "models/layers.h"
#include "models/model.h"
#include "models/weight_cache.h"
#include "models/weights.h"

namespace expert {

struct Checkpoint {
  SiteTable sites;
  MatrixPtr embedding;
  int embedding_site = -1;
  std::vector<DecoderLayer> layers;
  RmsNorm final_norm;
  Linear head;  // of a tied model: the same matrix as the embedding
  MatrixPtr head_screen;  // null where it has none

  WeightFormat format = WeightFormat::f32;       // of the layers
  WeightFormat head_format = WeightFormat::f32;  // of embedding and head
  size_t weight_bytes = 0;     // resident
  size_t bytes_per_token = 0;  // read per decoded token
  std::vector<std::string> warnings;

  std::optional<WeightCacheKey> cache_key;  // where the packed weights are cached; empty: nowhere
  bool from_cache = false;
  std::shared_ptr<const MappedFile> cache_file;  // where some weights lie in it
  std::vector<std::string> matrix_names;  // in loading order, each matrix once
  std::vector<MatrixPtr> matrices;
};

// All names and shapes are checked before the first weight is read. Throws as Model::load.
Checkpoint load_checkpoint(const ModelConfig& config, const TensorSet& tensors, const std::string& directory,
                           Backend& backend, const ModelOptions& options);

}  // namespace expert
