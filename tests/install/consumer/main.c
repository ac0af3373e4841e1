#include <expert/expert.h>
#include <stdio.h>

/* The bundled model must be found where it was installed. */
int main(void) {
  expert_engine* engine = NULL;
  char* info = NULL;
  if (expert_engine_open(NULL, &engine) || expert_engine_info(engine, &info)) {
    fprintf(stderr, "%s\n", expert_last_error()->message);
    return 1;
  }
  puts(info);
  expert_free(info);
  expert_engine_free(engine);
  return 0;
}
