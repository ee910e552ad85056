#!/usr/bin/env python3
"""Writes token_ids.json: digests of the ids that the `tokenizers` wheel gives.

    make_token_ids.py DATA MINILM

DATA is the folder of QUIVER_TEST_DATA, MINILM that of QUIVER_DEFAULT_MODEL. The texts are those of
tests/engine/text/corpora.py; the digest is FNV-1a over whole numbers of 64 bits: of each text the number of its ids, then the
ids, special tokens included. Needs tokenizers==0.23.3.
"""
import argparse
import json
import pathlib
import sys

import tokenizers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "engine/text"))
import corpora  # noqa: E402

WHEEL = "0.23.3"


def digest(tokenizer, texts):
    h, count = 0xCBF29CE484222325, 0
    for encoding in tokenizer.encode_batch(texts):
        for value in (len(encoding.ids), *encoding.ids):
            h = ((h ^ value) * 0x100000001B3) & corpora.MASK
        count += len(encoding.ids)
    return {"texts": len(texts), "ids": count, "digest": f"{h:016x}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("minilm", type=pathlib.Path)
    args = parser.parse_args()
    if tokenizers.__version__ != WHEEL:
        sys.exit(f"needs tokenizers=={WHEEL}, found {tokenizers.__version__}")
    fixtures = HERE.parent / "fixtures/tokenizers"
    folders = {
        "qwen-small": fixtures / "qwen-small",
        "bert-small": fixtures / "bert-small",
        "qwen3-embedding-0.6B": args.data / "qwen3-embedding-0.6B",
        "qwen3-embedding-4B": args.data / "qwen3-embedding-4B",
        "all-MiniLM-L6-v2": args.minilm,
    }
    texts = {name: read(args.data) for name, read in corpora.CORPORA.items()}
    digests = {}
    for name, folder in folders.items():
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        digests[name] = {corpus: digest(tokenizer, texts[corpus]) for corpus in texts}
    out = {"tokenizers": WHEEL, "digests": digests}
    (HERE / "token_ids.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
