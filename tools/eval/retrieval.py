#!/usr/bin/env python3
"""nDCG@10 of a running server on a retrieval set in BEIR's form (corpus.jsonl, queries.jsonl, qrels.tsv).

    retrieval.py --quiver build/run/tools/quiver/quiver --server 127.0.0.1:50051 --query-prompt query DATA [DATA ...]

Documents are embedded without a prompt and cut on the right at the model's limit; those without text are left out. Every
query is ranked against every document by cosine. --expect-ndcg makes the exit code say whether the score is as expected.
Needs numpy.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TOP = 10


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_qrels(path):
    """{query id: {document id: grade}}, grades above 0 only."""
    qrels = {}
    with open(path, encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, grade = line.rstrip("\n").split("\t")
            if int(grade) > 0:
                qrels.setdefault(query, {})[document] = int(grade)
    return qrels


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


def ndcg(ranked, grades):
    """Discounted cumulative gain at TOP over that of the ideal ranking; `grades` is {document: grade}."""
    gain = sum(grades.get(d, 0) / np.log2(rank + 2) for rank, d in enumerate(ranked[:TOP]))
    ideal = sum(g / np.log2(rank + 2) for rank, g in enumerate(sorted(grades.values(), reverse=True)[:TOP]))
    return gain / ideal


def score(args, folder):
    documents = [d for d in read_jsonl(folder / "corpus.jsonl") if d["text"].strip()]
    qrels = read_qrels(folder / "qrels.tsv")
    queries = [q for q in read_jsonl(folder / "queries.jsonl") if q["_id"] in qrels]
    prompt = ["--prompt", args.query_prompt] if args.query_prompt else []
    document_vectors = embed(args, [d["text"] for d in documents], ["--truncate", "right"])
    query_vectors = embed(args, [q["text"] for q in queries], ["--truncate", "right", *prompt])
    similarity = query_vectors @ document_vectors.T
    # A stable order: equal similarities rank in the corpus' order.
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :TOP]
    scores = [ndcg([documents[d]["_id"] for d in row], qrels[q["_id"]]) for q, row in zip(queries, best)]
    return len(documents), len(queries), float(np.mean(scores))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", required=True, help="path of the CLI")
    parser.add_argument("--server", required=True, help="HOST:PORT of its gRPC socket")
    parser.add_argument("--query-prompt", default="", help="the queries' prompt, by name (default: none)")
    parser.add_argument("--dimensions", type=int, default=0, help="length of the vectors (default: the server's)")
    parser.add_argument("--expect-ndcg", type=float, help="fail unless each score is within 0.001 of this")
    parser.add_argument("data", nargs="+", type=pathlib.Path, help="folders of retrieval sets")
    args = parser.parse_args()

    as_expected = True
    print(f"{'set':<16}{'documents':>10}{'queries':>9}{'nDCG@10':>10}")
    for folder in args.data:
        documents, queries, value = score(args, folder)
        print(f"{folder.name:<16}{documents:>10}{queries:>9}{value:>10.4f}", flush=True)
        as_expected &= args.expect_ndcg is None or abs(value - args.expect_ndcg) <= 0.001
    if not as_expected:
        sys.exit(f"expected {args.expect_ndcg}, within 0.001")


if __name__ == "__main__":
    main()
