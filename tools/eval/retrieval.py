#!/usr/bin/env python3
"""nDCG@10 of a running server, or of a model without one, on a retrieval set in BEIR's form (corpus.jsonl, queries.jsonl, qrels.tsv).

    retrieval.py --quiver build/run/tools/quiver/quiver --server 127.0.0.1:50051 --query-prompt query DATA [DATA ...]
    retrieval.py --quiver build/run/tools/quiver/quiver --model DIR --device cuda --query-prompt query DATA [DATA ...]

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
    """Unit vectors [n, dim] of `texts`."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "vectors.npy"
        command = [args.quiver, "embed", "--input", "-", "--input-format", "jsonl", "--output", str(output), *options]
        command += ["--server", args.server, "--wait", "60"] if args.server else ["--model", args.model]
        for option in ("device", "dtype", "quantization", "activation"):
            if getattr(args, option):
                command += [f"--{option}", getattr(args, option)]
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
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="HOST:PORT of a server's gRPC socket")
    where.add_argument("--model", help="Hugging Face directory, run by the CLI itself")
    parser.add_argument("--device", help="with --model: where, as the CLI takes it")
    parser.add_argument("--dtype", help="with --model: type of the weights on a CUDA device")
    parser.add_argument("--quantization", help="with --model: as the CLI takes it")
    parser.add_argument("--activation", help="with --model: as the CLI takes it")
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
