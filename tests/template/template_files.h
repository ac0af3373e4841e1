// The golden cases: what Transformers rendered, written by make_golden.py.
#pragma once

#include <chrono>
#include <fstream>
#include <string>

#include "text/chat_template.h"

namespace expert {

inline Json read_golden() {
  std::ifstream file(EXPERT_SOURCE_DIR "/tests/template/golden.json");
  return Json::parse(file);
}

inline std::string render_case(const ChatTemplate& chat_template, const Json& item) {
  ChatTemplate::Options options;
  options.tools = item["tools"];
  options.variables = item["variables"];
  options.add_generation_prompt = item["add_generation_prompt"].get<bool>();
  return chat_template.render(item["messages"], options);
}

}  // namespace expert
