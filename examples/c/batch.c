/* Three requests with three different experts run together, in one batch. */
#include "report.h"

#define COUNT 3

int main(void) {
  static const char* const prompts[COUNT] = {"Find all users", "List the files here", "Hello there"};
  static const expert_use uses[COUNT] = {{NULL, "sql", 1.0F}, {NULL, "shell", 1.0F}, {NULL, "json", 1.0F}};
  expert_request requests[COUNT];
  const expert_request* pointers[COUNT];
  expert_result* results[COUNT] = {NULL, NULL, NULL};
  expert_status statuses[COUNT];
  expert_engine* engine = NULL;
  int exit_code = 0;
  size_t i;
  for (i = 0; i < COUNT; ++i) {
    const expert_request defaults = EXPERT_REQUEST_INIT;
    requests[i] = defaults;
    requests[i].prompt = prompts[i];
    requests[i].experts = &uses[i];
    requests[i].expert_count = 1;
    requests[i].max_tokens = 16;
    pointers[i] = &requests[i];
  }
  if (expert_engine_open(NULL, &engine) || expert_infer_batch(engine, pointers, COUNT, results, statuses)) {
    exit_code = report();
  }
  for (i = 0; i < COUNT; ++i) {
    if (results[i] != NULL) printf("%s -> %s\n", prompts[i], expert_result_output(results[i], NULL));
    expert_result_free(results[i]);
  }
  expert_engine_free(engine);
  return exit_code;
}
