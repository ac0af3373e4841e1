// JSON inside the library: key order is kept, because users read what we print. Never in a public header.
#pragma once

#include <nlohmann/json.hpp>

namespace expert {

using Json = nlohmann::ordered_json;

}  // namespace expert
