/* expert.h is C99: this file is compiled with -std=c99 -pedantic-errors, and every macro is used once. */
#include <expert/expert.h>
#include <string.h>

static int expect(int condition) { return condition ? 0 : 1; }

int main(void) {
  const expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  const expert_request request = EXPERT_REQUEST_INIT;
  const expert_usage usage = EXPERT_USAGE_INIT;
  const expert_timings timings = EXPERT_TIMINGS_INIT;
  const expert_use use = {NULL, "sql", 0.5f};
  int failed = 0;

  failed += expect(options.struct_size == sizeof(expert_engine_options));
  failed += expect(options.prefix_cache_bytes == EXPERT_UNSET_BYTES && options.expert_cache_bytes == 0);
  failed += expect(options.max_queue == 256 && options.max_batch == 16 && options.flags == 0);
  failed += expect(request.struct_size == sizeof(expert_request));
  failed += expect(request.prompt_length == EXPERT_NUL_TERMINATED && request.schema_length == EXPERT_NUL_TERMINATED &&
                   request.body_length == EXPERT_NUL_TERMINATED);
  failed +=
      expect(isnan(request.temperature) && isnan(request.top_p) && isnan(request.min_p) &&
             isnan(request.repetition_penalty) && isnan(request.presence_penalty) && isnan(request.frequency_penalty));
  failed += expect(request.top_k == EXPERT_UNSET_INT && request.max_tokens == EXPERT_UNSET_INT);
  failed += expect(request.seed == EXPERT_UNSET_SEED && request.logprobs == 0 && request.deadline_ms == 0.0);
  failed += expect(request.caller == NULL && request.cache_salt == NULL);
  failed += expect(usage.struct_size == sizeof usage && timings.struct_size == sizeof timings);
  failed += expect(use.weight == 0.5f);
  failed += expect(strcmp(expert_version(), EXPERT_VERSION_STRING) == 0);
  failed += expect(strcmp(expert_status_name(EXPERT_ERROR_LOAD), "load") == 0);
  failed += expect(strcmp(expert_finish_reason_name(EXPERT_FINISH_LENGTH), "length") == 0);
  return failed;
}
