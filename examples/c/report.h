/* What every example does when a call fails. */
#ifndef EXAMPLE_REPORT_H
#define EXAMPLE_REPORT_H

#include <expert/expert.h>
#include <stdio.h>

static int report(void) {
  const expert_error* error = expert_last_error();
  fprintf(stderr, "error: %s\n  hint: %s\n", error->message, error->hint);
  return 1;
}

#endif
