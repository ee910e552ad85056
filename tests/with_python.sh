#!/bin/sh
# with_python.sh SCRIPT ARGUMENTS: runs a test in Python with the packages of requirements.txt, or skips it.
if [ -z "${QUIVER_PYTHON:-}" ]; then
  echo "skipped: QUIVER_PYTHON is not set (a Python with the packages of tests/requirements.txt)"
  exit 77
fi
exec "$QUIVER_PYTHON" "$@"
