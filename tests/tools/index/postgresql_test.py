#!/usr/bin/env python3
"""Runs pg_sink_test over a PostgreSQL with pgvector.

    postgresql_test.py PG_SINK_TEST
"""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "integration"))
from postgresql import PostgreSql  # noqa: E402


def main():
    with PostgreSql() as database:
        return subprocess.run(sys.argv[1:], env={**os.environ, "QUIVER_TEST_POSTGRESQL": database.url}).returncode


if __name__ == "__main__":
    sys.exit(main())
