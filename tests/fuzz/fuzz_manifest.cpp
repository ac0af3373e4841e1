// Any bytes as a manifest: refused with a typed error, or a name and version that are safe as folders.
#include <cstdint>

#include "core/error.h"
#include "io/archive.h"
#include "packages/manifest.h"
#include "packages/semver.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expert;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Manifest manifest = parse_manifest(text);
    check_entry_name(manifest.name + "/" + manifest.version + "/x", "fuzz");
    if (!is_canonical_name(manifest.name) || !Version::valid(manifest.version) || manifest.base_models.empty())
      __builtin_trap();
    if (manifest.routing.priority < 0 || manifest.routing.priority > 1) __builtin_trap();
    (void)manifest.dialect();
    (void)to_parameters(merge_decoding({{manifest.name, 1.0, &manifest.decoding}}));
    (void)base_name_matches(manifest.base_models[0].name, "Qwen3-0.6B");
  } catch (const Error&) {
  }
  return 0;
}
