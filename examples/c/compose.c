/* Two experts bend one base in one request: each alone, then both. */
#include "report.h"

static int ask(expert_engine* engine, const expert_use* experts, size_t count, const char* title) {
  expert_request request = EXPERT_REQUEST_INIT;
  expert_result* result = NULL;
  size_t i;
  request.prompt = "Find all users older than 25";
  request.schema = "users(id,name,age)";
  request.experts = experts;
  request.expert_count = count;
  request.temperature = 0;
  request.max_tokens = 48;
  if (expert_infer(engine, &request, &result)) return report();
  printf("%s: %s\n", title, expert_result_output(result, NULL));
  for (i = 0; i < expert_result_expert_count(result); ++i) {
    const char* name = NULL;
    const char* version = NULL;
    float weight = 0;
    if (expert_result_expert(result, i, &name, &version, &weight) == EXPERT_OK) {
      printf("  used %s %s x %g\n", name, version, (double)weight);
    }
  }
  expert_result_free(result);
  return 0;
}

int main(void) {
  expert_engine* engine = NULL;
  expert_expert* sql = NULL;
  int exit_code;
  if (expert_engine_open(NULL, &engine) || expert_load(engine, "sql", &sql)) {
    exit_code = report();
  } else {
    const expert_use both[] = {{sql, NULL, 1.0F}, {NULL, "jsonfmt", 0.8F}}; /* a handle, and a name */
    exit_code = ask(engine, both, 1, "sql") || ask(engine, both + 1, 1, "jsonfmt") || ask(engine, both, 2, "both");
  }
  expert_expert_free(sql);
  expert_engine_free(engine);
  return exit_code;
}
