// Keys of the library's JSON as JavaScript spells them.
#pragma once

#include <string>
#include <string_view>

namespace expert_node {

// Compact JSON with its keys in camelCase, all the way down: as camelKeys() in lib/results.js does it, but on the thread
// that has time for it.
std::string camel_keys(std::string_view json);

}  // namespace expert_node
