// Text to tokens and back, and what is asked of the model outside a request.
#include <algorithm>
#include <memory>

#include "convert.h"
#include "handles.h"

using namespace expert;
using namespace expert::capi;

namespace {

Engine& engine_of(const expert_engine* engine) { return require(engine, "engine").held.get(); }

void give(std::string_view text, char** out_text, size_t* out_length) {
  *out_text = give_text(text);
  if (out_length != nullptr) *out_length = text.size();
}

void clear(char** out_text, size_t* out_length) {
  require(out_text, "out_text") = nullptr;
  if (out_length != nullptr) *out_length = 0;
}

void require_room(float* out, size_t capacity, size_t needed) {
  require(out, "out");
  if (capacity < needed) fail(ErrorCode::invalid_request, "out has room for {} floats, {} needed", capacity, needed);
}

}  // namespace

expert_status expert_tokenize(const expert_engine* engine, const char* text, size_t length, uint32_t flags,
                              int32_t** out_ids, size_t* out_count) {
  return guard([&] {
    require(out_ids, "out_ids") = nullptr;
    if (out_count != nullptr) *out_count = 0;
    require_flags(flags, EXPERT_TOKENIZE_ADD_SPECIAL | EXPERT_TOKENIZE_PLAIN_TEXT, "expert_tokenize");
    const bool special_in_text = (flags & EXPERT_TOKENIZE_PLAIN_TEXT) == 0;
    const auto ids = engine_of(engine).tokenize(text_of(&require(text, "text"), length), special_in_text,
                                                (flags & EXPERT_TOKENIZE_ADD_SPECIAL) != 0);
    *out_ids = give_tokens(ids);
    if (out_count != nullptr) *out_count = ids.size();
  });
}

expert_status expert_detokenize(const expert_engine* engine, const int32_t* ids, size_t count, uint32_t flags,
                                char** out_text, size_t* out_length) {
  return guard([&] {
    clear(out_text, out_length);
    require_flags(flags, EXPERT_DETOKENIZE_SKIP_SPECIAL, "expert_detokenize");
    const bool skip_special = (flags & EXPERT_DETOKENIZE_SKIP_SPECIAL) != 0;
    give(engine_of(engine).detokenize(span_of(ids, count, "ids"), skip_special), out_text, out_length);
  });
}

expert_status expert_apply_chat_template(const expert_engine* engine, const char* messages, const char* tools,
                                         const char* variables, uint32_t flags, char** out_text, size_t* out_length) {
  return guard([&] {
    clear(out_text, out_length);
    require_flags(flags, EXPERT_TEMPLATE_NO_GENERATION_PROMPT, "expert_apply_chat_template");
    const bool open_turn = (flags & EXPERT_TEMPLATE_NO_GENERATION_PROMPT) == 0;
    const Json list = json_of(&require(messages, "messages"), "messages");
    const Engine& text = engine_of(engine);
    give(text.apply_chat_template(list, json_of(tools, "tools"), open_turn, json_of(variables, "variables")), out_text,
         out_length);
  });
}

expert_status expert_logits(expert_engine* engine, const int32_t* ids, size_t count, const expert_use* experts,
                            size_t expert_count, float* out, size_t capacity) {
  return guard([&] {
    Engine& model = engine_of(engine);
    const auto tokens = span_of(ids, count, "ids");
    if (count > SIZE_MAX / static_cast<size_t>(model.vocab_size())) fail(ErrorCode::invalid_request, "{} ids", count);
    require_room(out, capacity, count * static_cast<size_t>(model.vocab_size()));
    const std::vector<float> logits = model.logits(tokens, uses_of(experts, expert_count));
    require_room(out, capacity, logits.size());
    std::copy(logits.begin(), logits.end(), out);
  });
}

expert_status expert_embed(expert_engine* engine, const char* text, size_t length, const char* pooling,
                           const expert_use* experts, size_t expert_count, uint32_t flags, float* out,
                           size_t capacity) {
  return guard([&] {
    Engine& model = engine_of(engine);
    require_flags(flags, EXPERT_EMBED_NO_NORMALIZE, "expert_embed");
    require_room(out, capacity, static_cast<size_t>(model.hidden_size()));
    const bool normalize = (flags & EXPERT_EMBED_NO_NORMALIZE) == 0;
    const std::vector<float> state =
        model.embed(text_of(&require(text, "text"), length), pooling != nullptr ? pooling : "last", normalize,
                    uses_of(experts, expert_count));
    require_room(out, capacity, state.size());
    std::copy(state.begin(), state.end(), out);
  });
}

expert_status expert_route(const expert_engine* engine, const expert_request* request, char** out_json) {
  return guard([&] {
    require(out_json, "out_json") = nullptr;
    const Engine& routing = engine_of(engine);
    *out_json = give_text(dump(routing.route(request_of(request))));
  });
}
