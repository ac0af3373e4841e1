#include "adapters/adapter.h"

#include "adapters/lora.h"
#include "core/error.h"
#include "io/json.h"

namespace expert {

std::shared_ptr<const Adapter> Adapter::load(const Source& source, const SiteTable& sites, Backend& backend,
                                             WeightFormat format) {
  const JsonFields fields(*source.config, source.origin + ": adapter_config.json");
  const std::string type = fields.string("peft_type");
  if (type != "LORA") {
    throw Error(ErrorCode::load, fmt::format("{}: {} experts are not supported yet", source.origin, type),
                "Supported kinds: LoRA and rsLoRA (peft_type LORA).");
  }
  LoweredLora lowered = load_lora(source, sites, backend, format);
  const std::shared_ptr<Adapter> adapter(new Adapter());
  adapter->hash_ = source.hash;
  adapter->kind_ = std::move(lowered.kind);
  adapter->base_model_ = fields.string_or("base_model_name_or_path", "");
  adapter->deltas_ = std::move(lowered.deltas);
  for (const SiteDelta& delta : adapter->deltas_) adapter->size_bytes_ += delta.a->size_bytes() + delta.b->size_bytes();
  return adapter;
}

}  // namespace expert
