#!/bin/sh
# Installs what is missing, builds, and answers one question with the bundled model.
exec python3 "$(dirname "$0")/tools/bootstrap.py" quickstart "$@"
