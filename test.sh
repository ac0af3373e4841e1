#!/bin/sh
# Installs what is missing, builds, and runs every test of the CI tier.
exec python3 "$(dirname "$0")/tools/bootstrap.py" test "$@"
