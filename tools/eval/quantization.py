#!/usr/bin/env python3
"""What quantizing costs: nDCG@10 and the cosine to the vectors of the checkpoint as it is, for each format.

    quantization.py --quiver build/run/tools/quiver/quiver --model DIR [--query-prompt query] [--device cpu] DATA [DATA ...]

Quantizes at load (--quantization), and with --activation multiplies by inputs of that kind where the device is a CUDA one. Each DATA
is a retrieval set in BEIR's form. --expect int4=0.986 makes the exit code say whether the mean cosine is as high. Needs numpy.
"""
import argparse
import pathlib
import sys

import numpy as np

from retrieval import embed
from retrieval_set import RetrievalSet

FORMATS = ("auto", "fp8", "int4")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiver", required=True, help="path of the CLI")
    parser.add_argument("--model", required=True, help="Hugging Face directory of a checkpoint in floats")
    parser.add_argument("--device", help="as the CLI takes it")
    parser.add_argument("--activation", help="as the CLI takes it; the checkpoint as it is runs without")
    parser.add_argument("--query-prompt", default="", help="the queries' prompt, by name (default: none)")
    parser.add_argument("--expect", action="append", default=[], help="FORMAT=LEAST_MEAN_COSINE")
    parser.add_argument("data", nargs="+", type=pathlib.Path, help="folders of retrieval sets")
    args = parser.parse_args()
    args.server, args.dtype, args.dimensions = None, None, 0
    least = {name: float(value) for name, value in (text.split("=") for text in args.expect)}

    activation = args.activation
    as_expected = True
    print("| set | format | nDCG@10 | mean cosine | lowest |")
    print("| :-- | :-- | --: | --: | --: |")
    for data in map(RetrievalSet, args.data):
        prompt = ["--prompt", args.query_prompt] if args.query_prompt else []
        reference = None
        for args.quantization in FORMATS:
            args.activation = activation if args.quantization != "auto" else None
            documents = embed(args, data.documents, ["--truncate", "right"])
            queries = embed(args, data.queries, ["--truncate", "right", *prompt])
            vectors = np.concatenate([documents, queries]).astype(np.float64)
            if reference is None:
                reference = vectors
            cosines = (vectors * reference).sum(1)
            name = "as it is" if args.quantization == "auto" else args.quantization
            print(f"| {data.name} | {name} | {data.ndcg(documents, queries):.4f} | {cosines.mean():.5f} | {cosines.min():.5f} |",
                  flush=True)
            as_expected &= cosines.mean() >= least.get(args.quantization, 0)
    if not as_expected:
        sys.exit("a mean cosine is lower than expected")


if __name__ == "__main__":
    main()
