/* One question to the default model; the router chooses the experts.
 *
 *   generate "Find all users older than 25" "users(id,name,age)"
 */
#include <expert/expert.h>
#include <stdio.h>

int main(int argc, char** argv) {
  expert_engine_options options = EXPERT_ENGINE_OPTIONS_INIT;
  expert_request request = EXPERT_REQUEST_INIT;
  expert_engine* engine = NULL;
  expert_result* result = NULL;
  int exit_code = 0;
  size_t i;

  request.prompt = argc > 1 ? argv[1] : "Find all users older than 25";
  request.schema = argc > 2 ? argv[2] : "users(id,name,age)";
  request.max_tokens = 64;
  request.temperature = 0;

  if (expert_engine_open(&options, &engine) || expert_infer(engine, &request, &result)) {
    const expert_error* error = expert_last_error();
    fprintf(stderr, "error: %s\n  hint: %s\n", error->message, error->hint);
    exit_code = 1;
  } else {
    puts(expert_result_output(result, NULL));
    for (i = 0; i < expert_result_expert_count(result); ++i) {
      const char* name = NULL;
      float weight = 0;
      if (expert_result_expert(result, i, &name, NULL, &weight) == EXPERT_OK) {
        fprintf(stderr, "%s x %g\n", name, (double)weight);
      }
    }
  }
  expert_result_free(result);
  expert_engine_free(engine);
  return exit_code;
}
