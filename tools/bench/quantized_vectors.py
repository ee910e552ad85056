#!/usr/bin/env python3
"""What quantizing does to vectors: cosine with those of the checkpoint as it is, for each way to run it.

    quiver make-checkpoint --shape qwen3-embedding-4b --output DIR
    quantized_vectors.py DIR --program build/dev/tools/bench/embed_ids

DIR is a checkpoint in BF16 or FP16; its matrices are quantized at load. Random ids, in one batch of --lengths, which is long enough to
be multiplied as large batches are, and each alone. Of random weights the figures compare ways with each other, and say nothing of
quality. Needs numpy and a CUDA device.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np

WAYS = {
    "FP8, FP8 inputs": ["--quantization", "fp8"],
    "FP8, 16-bit inputs": ["--quantization", "fp8", "--activation", "16bit"],
    "int4, 16-bit inputs": ["--quantization", "int4"],
    "int4, FP8 inputs": ["--quantization", "int4", "--activation", "fp8"],
}


def vectors_of(program, model_dir, batches, options):
    with tempfile.TemporaryDirectory() as folder:
        ids, vectors = pathlib.Path(folder, "ids"), pathlib.Path(folder, "vectors")
        ids.write_text("\n".join("".join(" ".join(map(str, s)) + "\n" for s in batch) for batch in batches))
        subprocess.run([program, model_dir, ids, vectors, *options], stdout=subprocess.DEVNULL, check=True)
        return np.fromfile(vectors, dtype=np.float32).reshape(sum(map(len, batches)), -1).astype(np.float64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir")
    parser.add_argument("--program", required=True, help="embed_ids, built")
    parser.add_argument("--lengths", default=",".join(["32", "64", "128", "256", "512", "1024"] * 3))
    arguments = parser.parse_args()
    vocabulary = json.loads(pathlib.Path(arguments.model_dir, "config.json").read_text())["vocab_size"]
    rng = np.random.default_rng(1)
    batch = [rng.integers(0, vocabulary, int(length)).tolist() for length in arguments.lengths.split(",")]
    batches = [batch] + [[sequence] for sequence in batch]
    expected = vectors_of(arguments.program, arguments.model_dir, batches, [])
    print(f"{'':22} {'one batch: mean':>16} {'lowest':>10} {'alone: mean':>12} {'lowest':>10}")
    for name, options in WAYS.items():
        got = vectors_of(arguments.program, arguments.model_dir, batches, options)
        cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
        together, alone = cosine[:len(batch)], cosine[len(batch):]
        print(f"{name:22} {together.mean():16.6f} {together.min():10.6f} {alone.mean():12.6f} {alone.min():10.6f}", flush=True)


if __name__ == "__main__":
    main()
