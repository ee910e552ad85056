#!/usr/bin/env python3
"""A running server finds as well as the reference implementation does: nDCG@10 on Cranfield, for each model that is there.

Usage: retrieval_test.py QUIVER_SERVER QUIVER. Names of folders: QUIVER_TEST_DATA, QUIVER_DEFAULT_MODEL, QUIVER_TEST_MODEL.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

from running_server import ROOT, Server

SKIPPED = 77
# What tools/eval/reference.py gives (sentence-transformers 6.2.0, torch 2.15.0, float32).
MODELS = [("QUIVER_DEFAULT_MODEL", 0.3955, []), ("QUIVER_TEST_MODEL", 0.3645, ["--query-prompt", "query"])]


def main():
    server_program, quiver = sys.argv[1:]
    data = os.environ.get("QUIVER_TEST_DATA")
    models = [(os.environ[name], *rest) for name, *rest in MODELS if os.environ.get(name)]
    if not data or not models:
        print("skipped: QUIVER_TEST_DATA and QUIVER_DEFAULT_MODEL or QUIVER_TEST_MODEL are not set")
        return SKIPPED
    for model, expected, options in models:
        with tempfile.TemporaryDirectory() as folder, Server(server_program, model, pathlib.Path(folder)) as server:
            print(pathlib.Path(model).name, flush=True)
            subprocess.run([sys.executable, ROOT / "tools/eval/retrieval.py", "--quiver", quiver, "--server", server.grpc,
                            "--expect-ndcg", str(expected), *options, f"{data}/retrieval/cranfield"], check=True)
            assert server.stop() == 0, "the server did not end well"
    return 0


if __name__ == "__main__":
    sys.exit(main())
