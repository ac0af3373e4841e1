#include "failure.h"

#include <nlohmann/json.hpp>

#include "terminal.h"

namespace cli {

namespace {

int exit_of(expert_status status) {
  switch (status) {
    case EXPERT_OK:
      return kOk;
    case EXPERT_ERROR_INVALID_REQUEST:
    case EXPERT_ERROR_UNSUPPORTED:
      return kUsage;
    case EXPERT_ERROR_INCOMPATIBLE:
      return kIncompatible;
    case EXPERT_ERROR_SIGNATURE:
      return kSignature;
    case EXPERT_ERROR_MANIFEST:
      return kPackaging;
    case EXPERT_ERROR_CANCELLED:
      return kInterrupted;
    case EXPERT_ERROR_INTERNAL:
    case EXPERT_ERROR_LOAD:
    case EXPERT_ERROR_OUT_OF_MEMORY:
    case EXPERT_ERROR_GRAMMAR:
    case EXPERT_ERROR_INFERENCE:
    case EXPERT_ERROR_CLOSED:
    case EXPERT_ERROR_TIMEOUT:
      return kGeneral;
  }
  return kGeneral;
}

}  // namespace

Failure usage_error(const std::string& message, const std::string& hint) { return {kUsage, "usage", message, hint}; }

Failure not_supported_yet(const std::string& what) { return {kUsage, "unsupported", what + " is not supported yet"}; }

Failure last_failure() {
  const expert_error* error = expert_last_error();
  return {exit_of(error->status), expert_status_name(error->status), error->message, error->hint};
}

void check(expert_status status) {
  if (status != EXPERT_OK) throw last_failure();
}

void report(const Failure& failure, bool json) {
  std::string text = paint("error:", Color::red) + " " + failure.what() + "\n";
  if (!failure.hint.empty()) text += "  hint: " + failure.hint + "\n";
  note(text);
  if (!json) return;
  const nlohmann::ordered_json document = {
      {"error",
       {{"code", failure.code}, {"message", failure.what()}, {"hint", failure.hint}, {"exit_code", failure.exit}}}};
  print(document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace cli
