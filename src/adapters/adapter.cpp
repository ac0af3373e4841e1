#include "adapters/adapter.h"

#include <algorithm>
#include <array>

#include "adapters/ia3.h"
#include "adapters/lora.h"
#include "adapters/soft_prompt.h"
#include "core/error.h"
#include "io/json.h"

namespace expert {
namespace {

struct Method {
  std::string_view peft_type;
  Lowered (*load)(const Adapter::Source& source, const AdapterBase& base);
};

constexpr std::array kMethods = {
    Method{"LORA", load_lora},
    Method{"IA3", load_ia3},
    Method{"PROMPT_TUNING", load_soft_prompt},
    Method{"P_TUNING", load_soft_prompt},
};

const Method& find_method(std::string_view peft_type, const std::string& origin) {
  const auto found = std::find_if(kMethods.begin(), kMethods.end(),
                                  [&](const Method& method) { return method.peft_type == peft_type; });
  if (found != kMethods.end()) return *found;
  std::vector<std::string_view> names;
  for (const Method& method : kMethods) names.push_back(method.peft_type);
  throw Error(ErrorCode::incompatible,
              fmt::format("{}: adapter_config.json: {} experts are not supported", origin, peft_type.substr(0, 80)),
              fmt::format("Supported values of peft_type: {}.", fmt::join(names, ", ")));
}

size_t bytes_of(const SiteDelta& delta) {
  size_t bytes = 0;
  for (const MatrixPtr& matrix : {delta.a, delta.b, delta.d}) bytes += matrix ? matrix->size_bytes() : 0;
  const size_t values =
      delta.input_scale.size() + delta.output_scale.size() + delta.result_scale.size() + delta.bias.size();
  return bytes + values * sizeof(float);
}

}  // namespace

std::shared_ptr<const Adapter> Adapter::load(const Source& source, const AdapterBase& base) {
  const JsonFields fields(*source.config, source.origin + ": adapter_config.json");
  Lowered lowered = find_method(fields.string("peft_type"), source.origin).load(source, base);
  const std::shared_ptr<Adapter> adapter(new Adapter());
  adapter->hash_ = source.content_hash();
  adapter->kind_ = std::move(lowered.kind);
  adapter->base_model_ = fields.string_or("base_model_name_or_path", "");
  adapter->deltas_ = std::move(lowered.deltas);
  adapter->soft_prompt_ = std::move(lowered.soft_prompt);
  adapter->soft_prompt_values_ = std::move(lowered.soft_prompt_values);
  adapter->backend_ = &base.backend;
  for (const SiteDelta& delta : adapter->deltas_) adapter->size_bytes_ += bytes_of(delta);
  if (adapter->soft_prompt_) adapter->size_bytes_ += adapter->soft_prompt_.size_bytes();
  return adapter;
}

}  // namespace expert
