// Known by name, not built yet: each says so and does nothing.
#include "guard.h"

using namespace expert;
using namespace expert::capi;

namespace {

expert_status not_built(const char* what, char** out_json = nullptr) {
  if (out_json != nullptr) *out_json = nullptr;
  return guard([&] {
    throw Error(ErrorCode::unsupported, fmt::format("{} is not built yet", what), "see README.md for what is");
  });
}

}  // namespace

expert_status expert_package_verify(const char* /*home*/, const char* /*name_or_path*/, char** out_json) {
  return not_built("expert_package_verify: checking signatures", out_json);
}

expert_status expert_package_update(const char* /*home*/, const char* /*name*/, uint32_t /*flags*/, char** out_json) {
  return not_built("expert_package_update: updating installed experts", out_json);
}

expert_status expert_package_create(const char* /*directory*/, const char* /*manifest*/, const char* /*output*/,
                                    char** out_json) {
  return not_built("expert_package_create: making .expert files", out_json);
}

expert_status expert_package_sign(const char* /*file*/, const char* /*key*/) {
  return not_built("expert_package_sign: signing");
}

expert_status expert_key_generate(const char* /*output*/, const char* /*name*/, char** out_json) {
  return not_built("expert_key_generate: making keys", out_json);
}

expert_status expert_trust_add(const char* /*home*/, const char* /*public_key*/, const char* /*name*/) {
  return not_built("expert_trust_add: trusting publishers");
}

expert_status expert_trust_remove(const char* /*home*/, const char* /*name*/) {
  return not_built("expert_trust_remove: trusting publishers");
}

expert_status expert_trust_list(const char* /*home*/, char** out_json) {
  return not_built("expert_trust_list: trusting publishers", out_json);
}
