#!/usr/bin/env python3
"""Cosine of Quiver's vectors with those of transformers in F32, by length and by what shares the batch.

    quiver make-checkpoint --shape qwen3-embedding-4b --output DIR
    check_against_transformers.py DIR --program build/dev/tools/bench/embed_ids

DIR is a checkpoint (make-checkpoint's, or a real one). Random ids. Each length runs alone, as a batch of equal lengths, and in batches
of mixed lengths; on a CUDA device all of it also through the portable kernels. transformers runs every sequence alone. Exits with 1
if a cosine is below --threshold. Needs numpy, torch, transformers.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

# The folder of this file, where tokenize.py hides the standard library's.
sys.path.pop(0)
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

LENGTHS = "1,2,63,64,65,127,128,129,511,4095,32768"


def make_batches(lengths, vocab_size, batch_tokens, equal):
    """(case, sequences) of each batch."""
    rng = np.random.default_rng(1)
    sequence = lambda length: rng.integers(0, vocab_size, length).tolist()
    batches = [("alone", [sequence(length)]) for length in lengths]
    for length in lengths:
        count = min(equal, batch_tokens // length)
        if count > 1:
            batches.append(("equal", [sequence(length) for _ in range(count)]))
    # One of each, as many as fit, the order turned so that each length has other neighbours.
    for turn in range(3):
        mixed = []
        for length in np.roll(lengths, turn * 4).tolist():
            if sum(map(len, mixed)) + length <= batch_tokens:
                mixed.append(sequence(length))
        batches.append(("mixed", mixed))
    return batches


def our_vectors(program, model_dir, batches, options):
    with tempfile.TemporaryDirectory() as folder:
        ids, vectors = pathlib.Path(folder, "ids"), pathlib.Path(folder, "vectors")
        ids.write_text("\n".join("".join(" ".join(map(str, s)) + "\n" for s in sequences) for _, sequences in batches))
        run = subprocess.run([program, model_dir, ids, vectors, *options], stdout=subprocess.PIPE, text=True, check=True)
        count = sum(len(sequences) for _, sequences in batches)
        return run.stdout.strip(), np.fromfile(vectors, dtype=np.float32).reshape(count, -1)


def attend(module, query, key, value, attention_mask, scaling=None, **_):
    """Attention with a key and value of its own for each head: in F32, PyTorch has no kernel for shared ones that does without the
    whole matrix of scores, which for 32K tokens is 128 GiB. No mask: sequences run one by one."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling,
                                                           is_causal=module.is_causal and query.shape[2] > 1)
    return out.transpose(1, 2).contiguous(), None


@torch.inference_mode()
def their_vectors(model_dir, batches, device):
    transformers.AttentionInterface.register("unshared", attend)
    model = transformers.AutoModel.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="unshared").to(device).eval()
    bert = model.config.model_type == "bert"
    out = []
    sequences = [s for _, batch in batches for s in batch]
    for i, sequence in enumerate(sequences):
        ids = torch.tensor([sequence], device=device)
        hidden = model(input_ids=ids, **({} if bert else {"use_cache": False})).last_hidden_state[0]
        pooled = hidden.mean(0) if bert else hidden[-1]
        out.append(torch.nn.functional.normalize(pooled, dim=0).cpu().numpy())
        print(f"\rtransformers: {i + 1} of {len(sequences)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return np.stack(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir")
    parser.add_argument("--program", required=True, help="embed_ids, built")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of both")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lengths", default=LENGTHS)
    parser.add_argument("--equal", type=int, default=4, help="sequences of a batch of equal lengths")
    parser.add_argument("--batch-tokens", type=int, default=32768 + 4096)
    parser.add_argument("--threshold", type=float, default=0.9995)
    args = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = False
    config = transformers.AutoConfig.from_pretrained(args.model_dir)
    lengths = [n for n in map(int, args.lengths.split(",")) if n <= config.max_position_embeddings]
    batches = make_batches(lengths, config.vocab_size, args.batch_tokens, args.equal)
    options = ["--device", args.device, "--dtype", args.dtype]
    runs = [our_vectors(args.program, args.model_dir, batches, options)]
    if args.device != "cpu":
        runs.append(our_vectors(args.program, args.model_dir, batches, options + ["--force-portable"]))
    theirs = their_vectors(args.model_dir, batches, args.device)

    print(f"{os.path.basename(os.path.abspath(args.model_dir))}, {config.num_hidden_layers} layers; transformers "
          f"{transformers.__version__}, torch {torch.__version__}, F32")
    keys = [(case, len(s)) for case, sequences in batches for s in sequences]
    worst = 1.0
    for device, ours in runs:
        cosines = np.einsum("ij,ij->i", ours.astype(np.float64), theirs.astype(np.float64))
        cosines /= np.linalg.norm(ours.astype(np.float64), axis=1) * np.linalg.norm(theirs.astype(np.float64), axis=1)
        worst = min(worst, float(cosines.min()))
        print(f"\n{device}\n{'case':8s} {'length':>7s} {'count':>6s} {'mean':>10s} {'min':>10s}")
        for key in sorted(set(keys)):
            found = cosines[[i for i, k in enumerate(keys) if k == key]]
            print(f"{key[0]:8s} {key[1]:7d} {len(found):6d} {found.mean():10.7f} {found.min():10.7f}")
        print(f"{'all':8s} {'':7s} {len(cosines):6d} {cosines.mean():10.7f} {cosines.min():10.7f}")
    # A comparison that is not below is not a pass: a NaN must fail.
    if not worst >= args.threshold:
        sys.exit(f"the least cosine is {worst:.7f}, below {args.threshold}")


if __name__ == "__main__":
    main()
