/* What the router would do with a prompt, as JSON with a reason per expert. Nothing is generated. */
#include "report.h"

int main(int argc, char** argv) {
  expert_request request = EXPERT_REQUEST_INIT;
  expert_engine* engine = NULL;
  char* plan = NULL;
  int exit_code = 0;
  request.prompt = argc > 1 ? argv[1] : "Find all users older than 25";
  if (expert_engine_open(NULL, &engine) || expert_route(engine, &request, &plan)) {
    exit_code = report();
  } else {
    puts(plan);
  }
  expert_free(plan);
  expert_engine_free(engine);
  return exit_code;
}
