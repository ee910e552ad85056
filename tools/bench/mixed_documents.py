#!/usr/bin/env python3
"""Documents of about the lengths that `bench engine --rows mixed` has, as JSONL with `_id` and `text`.

    mixed_documents.py COUNT WORDS... [--median 180] [--most 2048] [--tokens-per-word 1.106] > docs.jsonl

Random words of the files WORDS; of this project's pages Qwen3's tokenizer makes 1.106 tokens a word. Needs numpy.
"""
import argparse
import json
import pathlib
import re
import sys

import numpy as np

# With which 200,000 have the mean of the 2048 of the bench.
DEVIATION = 0.84


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("words", nargs="+", type=pathlib.Path)
    parser.add_argument("--median", type=float, default=180, help="of tokens")
    parser.add_argument("--most", type=float, default=2048, help="tokens of a document")
    parser.add_argument("--tokens-per-word", type=float, default=1.106)
    arguments = parser.parse_args()
    found = set(re.findall(r"\b[a-z]{2,9}\b", " ".join(path.read_text().lower() for path in arguments.words)))
    words = sorted(found)
    rng = np.random.default_rng(1)
    for number in range(arguments.count):
        tokens = min(arguments.median * np.exp(rng.normal(0, DEVIATION)), arguments.most)
        picks = rng.integers(0, len(words), max(1, int(tokens / arguments.tokens_per_word)))
        sys.stdout.write(json.dumps({"_id": str(number), "text": " ".join(words[i] for i in picks)}) + "\n")


if __name__ == "__main__":
    main()
