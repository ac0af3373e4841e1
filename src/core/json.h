// JSON inside the library: key order is kept, because users read what we print. Never in a public header.
#pragma once

#include <nlohmann/json.hpp>

namespace expert {

using Json = nlohmann::ordered_json;

}  // namespace expert

// Compiled once, in core/json.cpp, instead of in every file that prints or copies JSON. (The whole of basic_json would
// be: it takes longer than all that it saves.)
extern template class nlohmann::detail::serializer<expert::Json>;
extern template nlohmann::basic_json<nlohmann::ordered_map>::basic_json(const expert::Json&);
