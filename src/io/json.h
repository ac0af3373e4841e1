// JSON files that are not trusted. Reading and typed access: core/json_reader.h, core/json_fields.h.
#pragma once

#include <string>

#include "core/json_fields.h"
#include "core/json_reader.h"
#include "io/file.h"

namespace expert {

Json read_json_file(const std::string& path, const JsonLimits& limits = {.max_bytes = kTextFileLimit},
                    ErrorCode code = ErrorCode::load);

}  // namespace expert
