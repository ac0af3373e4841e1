#include "adapters/ia3.h"

#include <algorithm>
#include <array>

#include "adapters/base_changes.h"
#include "adapters/expert_tensors.h"
#include "adapters/target_modules.h"
#include "core/error.h"

namespace expert {
namespace {

constexpr std::array<std::string_view, 4> kIa3Read = {"target_modules", "exclude_modules", "feedforward_modules",
                                                      "modules_to_save"};
// fan_in_fan_out: PEFT itself sets it to false for linear layers.
constexpr std::array<std::string_view, 2> kIa3WithoutEffect = {"init_ia3_weights", "fan_in_fan_out"};

class Ia3Loader {
 public:
  Ia3Loader(const Adapter::Source& source, const AdapterBase& base)
      : source_(source),
        base_(base),
        fields_(*source.config, source.origin + ": adapter_config.json"),
        tensors_(source, base.sites, "IA3"),
        changes_(base, tensors_, deltas_) {
    refuse_unknown_keys(fields_, kIa3Read, kIa3WithoutEffect);
    modules_ = TargetModules::parse(fields_);
    feedforward_ = ModuleNames::read(fields_, "feedforward_modules");
    // Absent is PEFT's default, which is the same for every architecture here; an empty list is none.
    if (fields_.find("feedforward_modules") == nullptr) feedforward_.names = {"down_proj"};
  }

  Lowered load() {
    if (const std::vector<std::string> absent = modules_.absent(base_.sites); !absent.empty()) {
      fail(ErrorCode::incompatible, "{}: the base model has no module {}", source_.origin, fmt::join(absent, ", "));
    }
    std::vector<std::pair<int, const TensorEntry*>> vectors;
    for (int site = 0; site < base_.sites.size(); ++site) {
      if (modules_.contain(base_.sites[site].name)) vectors.emplace_back(site, take_vector(site));
    }
    changes_.replace_modules(modules_, false);
    changes_.compare_copies();
    tensors_.require_all_taken();
    for (const auto& [site, entry] : vectors) {
      SiteDelta& delta = deltas_.at(site);
      (is_feedforward(base_.sites[site].name) ? delta.input_scale : delta.result_scale) = tensors_.read(*entry);
    }
    if (deltas_.empty()) fail(ErrorCode::incompatible, "{}: it bends no module of the base model", source_.origin);
    Lowered lowered;
    lowered.kind = "ia3";
    lowered.deltas = deltas_.take();
    return lowered;
  }

 private:
  const TensorEntry* take_vector(int site) {
    const LinearSite& where = base_.sites[site];
    if (where.kind == SiteKind::embedding) {
      fail(ErrorCode::load, "{}: IA3 on an embedding ({}) is not supported", source_.origin, where.name);
    }
    const TensorEntry* entry = tensors_.take(site, TensorPart::ia3);
    if (!entry) fail(ErrorCode::load, "{}: ia3_l of targeted module {} is missing", source_.origin, where.name);
    const bool input = is_feedforward(where.name);
    tensors_.require_vector(*entry, input ? where.in : where.out, input ? "inputs" : "outputs");
    check_direction(*entry, where, input);
    return entry;
  }

  // PEFT saves [1, in] for feed-forward modules and [out, 1] for others: where both sizes are the same, only that tells
  // a vector trained for one from one trained for the other.
  void check_direction(const TensorEntry& entry, const LinearSite& where, bool input) const {
    if (entry.shape.size() != 2 || entry.shape[input ? 0 : 1] == 1) return;
    throw Error(ErrorCode::load,
                fmt::format("{}: tensor {} {} scales the {} of {}, but feedforward_modules says its {}", source_.origin,
                            entry.name, shape_text(entry), input ? "outputs" : "inputs", where.name,
                            input ? "inputs" : "outputs"),
                "feedforward_modules must be what the expert was trained with");
  }

  // PEFT's rule: the pattern matches whole, or the path ends in a name, dot or no dot.
  bool is_feedforward(std::string_view module) const {
    if (feedforward_.is_pattern()) return feedforward_.contain(module);
    return std::any_of(feedforward_.names.begin(), feedforward_.names.end(),
                       [&](const std::string& name) { return module.ends_with(name); });
  }

  const Adapter::Source& source_;
  const AdapterBase& base_;
  JsonFields fields_;
  ExpertTensors tensors_;
  SiteDeltas deltas_;
  BaseChanges changes_;
  TargetModules modules_;
  ModuleNames feedforward_;
};

}  // namespace

Lowered load_ia3(const Adapter::Source& source, const AdapterBase& base) { return Ia3Loader(source, base).load(); }

}  // namespace expert
