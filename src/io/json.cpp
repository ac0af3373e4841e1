#include "io/json.h"

namespace expert {

Json read_json_file(const std::string& path, const JsonLimits& limits, ErrorCode code) {
  return parse_json(read_text_file(path, limits.max_bytes), path, limits, code);
}

}  // namespace expert
