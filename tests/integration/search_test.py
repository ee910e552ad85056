#!/usr/bin/env python3
"""`quiver index` and `quiver search` close the loop: Cranfield through a file and through pgvector gives equal nDCG@10.

Usage: search_test.py QUIVER_SERVER QUIVER. Names of folders: QUIVER_TEST_DATA, QUIVER_DEFAULT_MODEL.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

from postgresql import PostgreSql
from running_server import ROOT, Server

sys.path.insert(0, str(ROOT / "tools/eval"))
from retrieval_set import TOLERANCE, RetrievalSet  # noqa: E402

SKIPPED = 77
# What tools/eval/reference.py gives for all-MiniLM-L6-v2.
EXPECTED = 0.3955
# Of pgvector's approximate index to brute force.
INDEX_TOLERANCE = 0.002


def main():
    server_program, quiver = sys.argv[1:]
    data, model = os.environ.get("QUIVER_TEST_DATA"), os.environ.get("QUIVER_DEFAULT_MODEL")
    if not data or not model:
        print("skipped: QUIVER_TEST_DATA and QUIVER_DEFAULT_MODEL are not set")
        return SKIPPED
    cranfield = pathlib.Path(data) / "retrieval/cranfield"
    retrieval_set = RetrievalSet(cranfield)
    with tempfile.TemporaryDirectory() as folder, PostgreSql() as database, \
            Server(server_program, model, pathlib.Path(folder)) as server:
        subprocess.run([quiver, "info", "--server", server.grpc, "--wait", "60"], stdout=subprocess.DEVNULL, check=True)
        queries = pathlib.Path(folder) / "queries.jsonl"
        queries.write_text((cranfield / "queries.jsonl").read_text().replace('"_id"', '"id"'))

        def ndcg(output, *table):
            indexed = subprocess.run([quiver, "index", "--server", server.grpc, "--input", cranfield / "corpus.jsonl", "--id-field",
                                      "_id", "--text", "{text}", "--truncate", "right", "--output", output, *table])
            # Cranfield has documents without a text, which are rejects.
            assert indexed.returncode == 1, indexed.returncode
            found = subprocess.run([quiver, "search", "--server", server.grpc, "--index", output, *table, "--input", queries,
                                    "--truncate", "right", "--trec"], stdout=subprocess.PIPE, text=True, check=True)
            value = retrieval_set.ndcg_of_run(found.stdout.splitlines())
            print(f"{table or pathlib.Path(output).name}: nDCG@10 {value:.4f}", flush=True)
            return value

        exact = ndcg(f"{folder}/cranfield.fbin")
        assert abs(exact - EXPECTED) <= TOLERANCE, exact
        assert abs(ndcg(database.url, "--table", "cranfield") - exact) <= INDEX_TOLERANCE

        other = subprocess.run([quiver, "search", "--server", server.grpc, "--index", f"{folder}/cranfield.fbin", "--top", "1", "--json",
                                "flat plate"], stdout=subprocess.PIPE, text=True, check=True)
        assert other.stdout.startswith('{"index":0,"hits":[{"rank":1,"score":0.'), other.stdout
        meta = pathlib.Path(f"{folder}/cranfield.meta.json")
        text = meta.read_text()
        fingerprint = text.split('"fingerprint": "')[1].split('"')[0]
        meta.write_text(text.replace(fingerprint, "another-space"))
        refused = subprocess.run([quiver, "search", "--server", server.grpc, "--index", f"{folder}/cranfield.fbin", "flat plate"],
                                 stderr=subprocess.PIPE, text=True)
        assert refused.returncode == 1 and "another-space" in refused.stderr and fingerprint in refused.stderr, refused.stderr
        assert server.stop() == 0, "the server did not end well"
    return 0


if __name__ == "__main__":
    sys.exit(main())
