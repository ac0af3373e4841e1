#include "core/json.h"

template class nlohmann::detail::serializer<expert::Json>;
template nlohmann::basic_json<nlohmann::ordered_map>::basic_json(const expert::Json&);
