#!/bin/sh
# with_python.sh [--clusters] SCRIPT ARGUMENTS: runs a test in Python with the packages of requirements.txt (requirements-clusters.txt),
# or skips it.
if [ "$1" = --clusters ]; then
  shift
  if [ -z "${QUIVER_CLUSTERS_PYTHON:-}" ]; then
    echo "skipped: QUIVER_CLUSTERS_PYTHON is not set (a Python with the packages of tests/requirements-clusters.txt)"
    exit 77
  fi
  exec "$QUIVER_CLUSTERS_PYTHON" "$@"
fi
if [ -z "${QUIVER_PYTHON:-}" ]; then
  echo "skipped: QUIVER_PYTHON is not set (a Python with the packages of tests/requirements.txt)"
  exit 77
fi
exec "$QUIVER_PYTHON" "$@"
