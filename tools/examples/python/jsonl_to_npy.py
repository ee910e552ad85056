#!/usr/bin/env python3
"""Embeds a file of any length, one JSON object with a "text" a line, into a NumPy array [lines, d].

    jsonl_to_npy.py [--server HOST:PORT] TEXTS.jsonl VECTORS.npy

A line that fails gets a row of NaN and a message; the exit code is then 1. Neither file is ever held in memory.
"""
import argparse
import json
import sys

import numpy as np
from quiver_client import Client


def main():
    parser = argparse.ArgumentParser(description="Embeds the texts of a JSONL file into an array of NumPy.")
    parser.add_argument("--server", default="localhost:50051")
    parser.add_argument("texts")
    parser.add_argument("vectors")
    arguments = parser.parse_args()
    with open(arguments.texts, encoding="utf-8") as lines:
        count = sum(1 for _ in lines)
    failed = 0
    with Client(arguments.server) as client, open(arguments.texts, encoding="utf-8") as lines:
        dimensions = client.model_info().dimensions.default_value
        out = np.lib.format.open_memmap(arguments.vectors, "w+", np.float32, (count, dimensions))
        # In no order: each result says which line it belongs to.
        for result in client.stream((json.loads(line)["text"] for line in lines), truncate="right"):
            out[result.index] = np.nan if result.error else result.vector
            if result.error:
                failed += 1
                print(f"line {result.index + 1}: {result.error}", file=sys.stderr)
        out.flush()
    print(f"{count - failed} of {count} lines embedded")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
