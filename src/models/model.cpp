#include "models/model.h"

#include "core/error.h"
#include "io/file.h"
#include "io/json.h"
#include "models/decoder.h"

namespace expert {

std::shared_ptr<const Model> Model::load(const std::filesystem::path& directory, Backend& backend,
                                         const ModelOptions& options) {
  const std::string root = directory.string();
  if (!directory_exists(root)) fail(ErrorCode::load, "{}: not a directory of a base model", root);
  const std::string generation = join_path(root, "generation_config.json");
  const ModelConfig config =
      ModelConfig::parse(read_json_file(join_path(root, "config.json")),
                         entry_exists(generation) ? read_json_file(generation) : Json(), root, options.rope_scaling);
  config.context_for(options.context_size);  // before any weight is read
  return std::make_shared<Decoder>(config, TensorSet::open(root), root, backend, options);
}

const char* weights_name(WeightFormat layers, WeightFormat head) {
  return layers == WeightFormat::int4 && head == WeightFormat::int4 ? "int4-all" : name_of(layers);
}

}  // namespace expert
