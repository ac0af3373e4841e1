// Small questions about the library, an engine, an expert or a result.
#include "convert.h"
#include "engine/base_model.h"
#include "handles.h"
#include "packages/store.h"

using namespace expert;
using namespace expert::capi;

namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "clang " __clang_version__;
#elif defined(__GNUC__)
constexpr const char* kCompiler = "gcc " __VERSION__;
#else
constexpr const char* kCompiler = "unknown";
#endif

Json bundled_model() {
  for (const auto& folder : model_folders()) {
    std::error_code error;
    if (std::filesystem::exists(folder / "base" / "config.json", error)) return (folder / "base").string();
  }
  return nullptr;
}

// "sql" means "expert-sql" too, as in a request.
bool goes_by(const LoadedExpert& expert, std::string_view name) {
  return expert.name() == name || expert.name() == fmt::format("expert-{}", name);
}

}  // namespace

void expert_clear_error(void) { report(ErrorCode::ok, ""); }

expert_status expert_library_info(char** out_json) {
  return guard([&] {
    require(out_json, "out_json") = nullptr;
    *out_json = give_text(dump({{"version", EXPERT_VERSION_STRING},
                                {"compiler", kCompiler},
#ifdef NDEBUG
                                {"build_type", "release"},
#else
                                {"build_type", "debug"},
#endif
                                {"bundled_model", bundled_model()}}));
  });
}

expert_status expert_home(char** out_path) {
  return guard([&] {
    require(out_path, "out_path") = nullptr;
    *out_path = give_text(default_home());
  });
}

int expert_engine_closed(const expert_engine* engine) {
  if (engine == nullptr || engine->held.inherited()) return 1;
  try {
    static_cast<void>(engine->held.get().experts());
    return 0;
  } catch (...) {
    return 1;
  }
}

expert_status expert_engine_context_size(const expert_engine* engine, int32_t* out) {
  return guard([&] {
    require(out, "out") = 0;
    *out = require(engine, "engine").held.get().info().at("context_size").get<int32_t>();
  });
}

expert_status expert_engine_find(const expert_engine* engine, const char* name, expert_expert** out) {
  return guard([&] {
    require(out, "out") = nullptr;
    const std::string_view wanted = text_of(&require(name, "name"));
    const auto loaded = require(engine, "engine").held.get().experts();
    for (auto expert = loaded.rbegin(); expert != loaded.rend(); ++expert) {
      if (!goes_by(**expert, wanted)) continue;
      *out = new expert_expert(*expert);
      return;
    }
    throw Error(ErrorCode::invalid_request, fmt::format("no expert \"{}\" is loaded", wanted), "load it first");
  });
}

int expert_expert_unloaded(const expert_expert* expert) {
  return expert == nullptr || expert->held.peek().unloaded() ? 1 : 0;
}

size_t expert_result_logprob_count(const expert_result* result) {
  return result != nullptr ? result->result->logprobs.size() : 0;
}

expert_status expert_result_logprob(const expert_result* result, size_t position, size_t rank, int32_t* out_token,
                                    float* out_logprob) {
  return guard([&] {
    const auto& positions = require(result, "result").result->logprobs;
    if (position >= positions.size() || rank > positions[position].top.size()) {
      fail(ErrorCode::invalid_request, "no log-probability of rank {} at position {} of {}", rank, position,
           positions.size());
    }
    const TokenLogprobs& at = positions[position];
    const auto [token, logprob] = rank == 0 ? std::pair(at.token, at.logprob) : at.top[rank - 1];
    if (out_token != nullptr) *out_token = token;
    if (out_logprob != nullptr) *out_logprob = logprob;
  });
}
