#!/usr/bin/env python3
"""nDCG@10 of a running server on a retrieval set in BEIR's form (corpus.jsonl, queries.jsonl, qrels.tsv).

    retrieval.py --quiver build/run/tools/quiver/quiver --server 127.0.0.1:50051 --query-prompt query DATA [DATA ...]

Documents are embedded without a prompt and cut on the right at the model's limit; those without text are left out. Every
query is ranked against every document by cosine. --expect-ndcg makes the exit code say whether the score is as expected;
reference.py gives the score to expect. Needs numpy.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from retrieval_set import TOLERANCE, RetrievalSet, print_head, print_score


def embed(args, texts, options):
    """Unit vectors [n, dim] of `texts`, through the server."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "vectors.npy"
        command = [args.quiver, "embed", "--server", args.server, "--wait", "60", "--input", "-",
                   "--input-format", "jsonl", "--output", str(output), *options]
        if args.dimensions:
            command += ["--dimensions", str(args.dimensions)]
        lines = "".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts))
        subprocess.run(command, input=lines.encode(), check=True)
        vectors = np.load(output)
    if vectors.shape[0] != len(texts):
        sys.exit(f"{len(texts)} texts gave {vectors.shape[0]} vectors")
    return vectors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", required=True, help="path of the CLI")
    parser.add_argument("--server", required=True, help="HOST:PORT of its gRPC socket")
    parser.add_argument("--query-prompt", default="", help="the queries' prompt, by name (default: none)")
    parser.add_argument("--dimensions", type=int, default=0, help="length of the vectors (default: the server's)")
    parser.add_argument("--expect-ndcg", type=float, help=f"fail unless each score is within {TOLERANCE} of this")
    parser.add_argument("data", nargs="+", type=pathlib.Path, help="folders of retrieval sets")
    args = parser.parse_args()

    as_expected = True
    print_head()
    for data in map(RetrievalSet, args.data):
        prompt = ["--prompt", args.query_prompt] if args.query_prompt else []
        value = data.ndcg(embed(args, data.documents, ["--truncate", "right"]),
                          embed(args, data.queries, ["--truncate", "right", *prompt]))
        print_score(data, value)
        as_expected &= args.expect_ndcg is None or abs(value - args.expect_ndcg) <= TOLERANCE
    if not as_expected:
        sys.exit(f"expected {args.expect_ndcg}, within {TOLERANCE}")


if __name__ == "__main__":
    main()
