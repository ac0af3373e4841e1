// Engines and the experts they hold.
#include "engine/engine.h"

#include "convert.h"
#include "handles.h"

using namespace expert;
using namespace expert::capi;

namespace {

Engine& engine_of(const expert_engine* engine) { return require(engine, "engine").held.get(); }

void give_json(const Json& json, char** out_json) { *out_json = give_text(dump(json)); }

// Starts an output at NULL, so that it is NULL when the call fails.
template <typename T>
void clear(T** out, const char* what) {
  require(out, what) = nullptr;
}

}  // namespace

expert_expert::expert_expert(std::shared_ptr<const LoadedExpert> loaded)
    : held(std::move(loaded)),
      kinds(dump(Json(held.peek().kinds()))),
      manifest(dump(held.peek().manifest())),
      warnings(dump(Json(held.peek().warnings()))) {}

expert_status expert_engine_open(const expert_engine_options* options, expert_engine** out) {
  return guard([&] {
    clear(out, "out");
    *out = new expert_engine{Held<Engine>(Engine::open(engine_options_of(options)))};
  });
}

expert_status expert_engine_close(expert_engine* engine, uint32_t flags) {
  return guard([&] {
    require_flags(flags, EXPERT_CLOSE_DRAIN, "expert_engine_close");
    engine_of(engine).close((flags & EXPERT_CLOSE_DRAIN) != 0);
  });
}

void expert_engine_free(expert_engine* engine) {
  if (engine == nullptr) return;
  if (!engine->held.inherited()) static_cast<void>(guard([&] { engine->held.get().close(false); }));
  delete engine;
}

expert_status expert_engine_info(const expert_engine* engine, char** out_json) {
  return guard([&] {
    clear(out_json, "out_json");
    give_json(engine_of(engine).info(), out_json);
  });
}

expert_status expert_engine_stats(const expert_engine* engine, char** out_json) {
  return guard([&] {
    clear(out_json, "out_json");
    give_json(engine_of(engine).stats(), out_json);
  });
}

expert_status expert_engine_metrics(const expert_engine* engine, char** out_text) {
  return guard([&] {
    clear(out_text, "out_text");
    *out_text = give_text(engine_of(engine).metrics());
  });
}

expert_status expert_engine_experts(const expert_engine* engine, char** out_json) {
  return guard([&] {
    clear(out_json, "out_json");
    Json list = Json::array();
    for (const auto& loaded : engine_of(engine).experts()) {
      list.push_back({{"name", loaded->name()},
                      {"version", loaded->version()},
                      {"kinds", loaded->kinds()},
                      {"size_bytes", loaded->size_bytes()},
                      {"warnings", loaded->warnings()}});
    }
    give_json(list, out_json);
  });
}

expert_status expert_engine_vocab_size(const expert_engine* engine, int32_t* out) {
  return guard([&] {
    require(out, "out") = 0;
    *out = engine_of(engine).vocab_size();
  });
}

expert_status expert_engine_hidden_size(const expert_engine* engine, int32_t* out) {
  return guard([&] {
    require(out, "out") = 0;
    *out = engine_of(engine).hidden_size();
  });
}

expert_status expert_load(expert_engine* engine, const char* source, expert_expert** out) {
  return guard([&] {
    clear(out, "out");
    *out = new expert_expert(engine_of(engine).load_expert(&require(source, "source")));
  });
}

expert_status expert_unload(expert_engine* engine, expert_expert* expert) {
  return guard([&] { engine_of(engine).unload(require(expert, "expert").held.share()); });
}

void expert_expert_free(expert_expert* expert) { delete expert; }

const char* expert_expert_name(const expert_expert* expert) {
  return expert != nullptr ? expert->held.peek().name().c_str() : "";
}

const char* expert_expert_version(const expert_expert* expert) {
  return expert != nullptr ? expert->held.peek().version().c_str() : "";
}

const char* expert_expert_kinds(const expert_expert* expert) {
  return expert != nullptr ? expert->kinds.c_str() : "[]";
}

const char* expert_expert_manifest(const expert_expert* expert) {
  return expert != nullptr ? expert->manifest.c_str() : "null";
}

const char* expert_expert_warnings(const expert_expert* expert) {
  return expert != nullptr ? expert->warnings.c_str() : "[]";
}

uint64_t expert_expert_size_bytes(const expert_expert* expert) {
  return expert != nullptr ? expert->held.peek().size_bytes() : 0;
}
