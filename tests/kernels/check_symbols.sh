#!/bin/sh
# Files built for one instruction set must lend no code to the others: they may define no weak symbol, and nothing outside
# their own namespace.   check_symbols.sh OBJECT...
status=0
for object in "$@"; do
  leaked=$(nm -C --defined-only "$object" | grep -E '^[0-9a-f]+ [A-TV-Zuvw] ' | grep -vE ' [A-Z] expert::kernels::[a-z0-9]+::[a-z_]+(\(.*\))?$')
  if [ -n "$leaked" ]; then
    echo "$object defines: $leaked" >&2
    status=1
  fi
done
exit $status
