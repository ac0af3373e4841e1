#include "generation.h"

#include <cstdio>

#include "interrupt.h"
#include "terminal.h"

namespace cli {

namespace {

// How long a Ctrl-C may go unnoticed.
constexpr int64_t kPollMs = 50;

// The next chunk; nullptr when the stream has ended.
Chunk next_chunk(expert_stream* stream, bool& cancelled) {
  while (true) {
    if (interrupted() && !cancelled) {
      expert_cancel(stream);
      cancelled = true;
    }
    expert_chunk* chunk = nullptr;
    const expert_status status = expert_stream_next(stream, kPollMs, &chunk);
    if (status == EXPERT_ERROR_TIMEOUT) continue;
    check(status);
    return Chunk(chunk);
  }
}

}  // namespace

void StreamChoice::add_to(CLI::App& app) {
  CLI::Option* on =
      app.add_flag("--stream", stream, "print text as it comes, think blocks included (default on a terminal)");
  app.add_flag("--no-stream", no_stream, "print the finished answer")->excludes(on);
}

bool StreamChoice::decide(const Common& common) const {
  if (common.json && stream) throw usage_error("--json prints one document, so it cannot --stream");
  return stream || (!no_stream && !common.json && stdout_is_terminal());
}

Answer generate(expert_engine* engine, const expert_request* request, bool stream) {
  expert_stream* submitted = nullptr;
  check(expert_submit(engine, request, &submitted));
  const Stream running(submitted);
  Answer answer;
  char last = '\0';
  while (const Chunk chunk = next_chunk(running.get(), answer.interrupted)) {
    size_t length = 0;
    const char* text = expert_chunk_text(chunk.get(), &length);
    if (!stream || length == 0) continue;
    print({text, length});
    last = text[length - 1];
  }
  if (stream && last != '\n') print("\n");
  expert_result* result = nullptr;
  check(expert_stream_wait(running.get(), -1, &result));
  answer.result.reset(result);
  return answer;
}

void explain(const expert_result* result) {
  const Json json = Json::parse(expert_result_json(result));
  note(paint("plan:", Color::dim) + " " + pretty(json["plan"]));
  expert_usage usage = EXPERT_USAGE_INIT;
  expert_timings timings = EXPERT_TIMINGS_INIT;
  check(expert_result_usage(result, &usage));
  check(expert_result_timings(result, &timings));
  char line[256];
  std::snprintf(
      line, sizeof line, " %d prompt tokens (%d cached) in %.1f ms, %d tokens at %.1f/s, first after %.1f ms, %s\n",
      usage.prompt_tokens, usage.cached_tokens, timings.prefill_ms, usage.completion_tokens, timings.tokens_per_second,
      timings.first_token_ms, expert_finish_reason_name(expert_result_finish_reason(result)));
  note(paint("timings:", Color::dim) + line);
}

}  // namespace cli
