#!/bin/sh
# idle_memory.sh QUIVER_SERVER: an idle server of the default model takes less than 200 MB over its weights.
if [ -z "${QUIVER_DEFAULT_MODEL:-}" ]; then
  echo "skipped: QUIVER_DEFAULT_MODEL is not set (a folder with all-MiniLM-L6-v2)"
  exit 77
fi
exec python3 "$(dirname "$0")/../../tools/bench/idle_memory.py" "$1" "$QUIVER_DEFAULT_MODEL"
