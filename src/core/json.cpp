#include "core/json.h"

template class nlohmann::detail::serializer<expert::Json>;
template expert::Json::basic_json(const expert::Json&);
