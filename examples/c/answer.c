/* One question to the default model; the router chooses the experts.
 *
 *   answer "Find all users older than 25" "users(id,name,age)"
 */
#include "report.h"

int main(int argc, char** argv) {
  expert_request request = EXPERT_REQUEST_INIT;
  expert_engine* engine = NULL;
  expert_result* result = NULL;
  int exit_code = 0;

  request.prompt = argc > 1 ? argv[1] : "Find all users older than 25";
  request.schema = argc > 2 ? argv[2] : "users(id,name,age)";
  request.max_tokens = 64;
  if (expert_engine_open(NULL, &engine) || expert_infer(engine, &request, &result)) {
    exit_code = report();
  } else {
    puts(expert_result_output(result, NULL));
  }
  expert_result_free(result);
  expert_engine_free(engine);
  return exit_code;
}
