#!/usr/bin/env python3
"""Speed of a BERT encoder on the CPU beside onnxruntime and PyTorch, on the same cores in the same run.

    cpu_encoder.py --program build/dev/tools/bench/cpu_encoder --data DATA MODEL_DIR

DATA holds retrieval/cranfield, whose English text is cut into 512 documents of log-normal length. All start from the same token
ids, made beforehand. Quiver takes the documents as they come; the others get their best case: sorted by length and padded only to
the longest of a batch, for several sizes of batch, of which the fastest counts; onnxruntime also with its transformer fusions.
All run once a round, in turn; figures are medians. Needs numpy, onnx, onnxruntime, torch, transformers.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

# The folder of this file, where tokenize.py hides the standard library's.
sys.path.pop(0)
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from onnxruntime.transformers import optimizer  # noqa: E402


def documents(data, model_dir, count, limit, median, sigma):
    """Token ids, with special tokens, of `count` pieces of text."""
    lines = (data / "retrieval/cranfield/corpus.jsonl").read_text().splitlines()
    words = " ".join(json.loads(line)["text"] for line in lines).split()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    rng = random.Random(1)
    out = []
    for _ in range(count):
        length = min(limit, max(4, round(rng.lognormvariate(np.log(median), sigma))))
        first = rng.randrange(len(words) - limit)
        out.append(tokenizer(" ".join(words[first:first + length]), truncation=True, max_length=length)["input_ids"])
    return out


class Pooled(torch.nn.Module):
    """The model with mean pooling and normalization."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


def export(model_dir, folder):
    """Paths of the model as exported to ONNX, and of the same with fused operators."""
    model = Pooled(transformers.AutoModel.from_pretrained(model_dir, attn_implementation="eager").eval())
    example = torch.ones(2, 9, dtype=torch.long)
    plain, fused = f"{folder}/plain.onnx", f"{folder}/fused.onnx"
    axes = {"ids": {0: "batch", 1: "tokens"}, "mask": {0: "batch", 1: "tokens"}, "vectors": {0: "batch"}}
    torch.onnx.export(model, (example, example), plain, input_names=["ids", "mask"], output_names=["vectors"],
                      dynamic_axes=axes, opset_version=17, dynamo=False)
    config = model.model.config
    optimized = optimizer.optimize_model(plain, model_type="bert", num_heads=config.num_attention_heads,
                                         hidden_size=config.hidden_size)
    optimized.save_model_to_file(fused)
    return {"plain": plain, "fused": fused}


def padded_batches(docs, size):
    """(indices, ids, mask) of batches of documents of similar length."""
    order = sorted(range(len(docs)), key=lambda i: len(docs[i]))
    for first in range(0, len(order), size):
        indices = order[first:first + size]
        longest = max(len(docs[i]) for i in indices)
        ids = np.zeros((len(indices), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(indices):
            ids[row, :len(docs[i])] = docs[i]
            mask[row, :len(docs[i])] = 1
        yield indices, ids, mask


class Peer:
    """run(ids, mask) -> vectors, over all documents in batches of one size."""

    def __init__(self, name, run, docs, batch):
        self.name = f"{name}, batches of {batch}"
        self.run_batch = run
        self.batches = list(padded_batches(docs, batch))
        self.count = len(docs)

    def run(self):
        start = time.perf_counter(), time.process_time()
        results = [(indices, self.run_batch(ids, mask)) for indices, ids, mask in self.batches]
        seconds = time.perf_counter() - start[0], time.process_time() - start[1]
        vectors = np.empty((self.count, results[0][1].shape[1]), np.float32)
        for indices, rows in results:
            vectors[indices] = rows
        return seconds, vectors


class Quiver:
    name = "Quiver"

    def __init__(self, program, model_dir, docs, threads, folder):
        path = pathlib.Path(folder, "ids")
        path.write_text("".join(" ".join(map(str, ids)) + "\n" for ids in docs))
        self.out = pathlib.Path(folder, "vectors")
        self.process = subprocess.Popen([program, model_dir, path, str(threads)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.device = self.process.stdout.readline().strip()
        self.count = len(docs)

    def run(self):
        self.process.stdin.write(f"{self.out}\n")
        self.process.stdin.flush()
        seconds = tuple(map(float, self.process.stdout.readline().split()))
        return seconds, np.fromfile(self.out, np.float32).reshape(self.count, -1)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def onnx_runner(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Else its threads would go on spinning while another has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0]


def torch_runner(model_dir):
    model = Pooled(transformers.AutoModel.from_pretrained(model_dir, attn_implementation="sdpa").eval())

    def run(ids, mask):
        with torch.inference_mode():
            return model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--median", type=float, default=80, help="words of the median document (default %(default)s)")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of the length (default %(default)s)")
    parser.add_argument("--limit", type=int, default=256, help="tokens of the longest (default %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="of the peers (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("model_dir")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    docs = documents(args.data, args.model_dir, args.documents, args.limit, args.median, args.sigma)
    tokens = sum(map(len, docs))
    with tempfile.TemporaryDirectory() as folder:
        ours = Quiver(args.program, args.model_dir, docs, args.threads, folder)
        runners = {f"onnxruntime, {kind}": onnx_runner(path, args.threads)
                   for kind, path in export(args.model_dir, folder).items()}
        runners["PyTorch"] = torch_runner(args.model_dir)
        contenders = [ours] + [Peer(name, run, docs, batch) for name, run in runners.items() for batch in args.batches]
        seconds = {contender.name: [] for contender in contenders}
        worst = {}
        # The first round warms up.
        for number in range(args.rounds + 1):
            for contender in contenders:
                spent, vectors = contender.run()
                print(f"round {number}: {contender.name}: {spent[0]:.3f} s, CPU {spent[1]:.3f} s", file=sys.stderr, flush=True)
                seconds[contender.name].append(spent)
                if contender is ours:
                    reference = vectors
                worst[contender.name] = float((vectors * reference).sum(1).min())
        ours.close()

    wall, cpu = ({name: statistics.median(s[which] for s in spent[1:]) for name, spent in seconds.items()} for which in (0, 1))
    print(f"{args.documents} documents, {tokens} tokens, the longest {max(map(len, docs))}; {args.threads} threads; "
          f"medians of {args.rounds} rounds\nQuiver: {ours.device}; onnxruntime {onnxruntime.__version__}, "
          f"PyTorch {torch.__version__}; CPU seconds of all threads, spinning included\n")
    print(f"| {'':38} | seconds | CPU s | tokens/s | Quiver is faster by | CPU | lowest cosine |")
    print("| :-- | --: | --: | --: | --: | --: | --: |")
    for name in wall:
        print(f"| {name:38} | {wall[name]:.3f} | {cpu[name]:.3f} | {tokens / wall[name]:.0f} | {wall[name] / wall[ours.name]:.2f} | "
              f"{cpu[name] / cpu[ours.name]:.2f} | {worst[name]:.7f} |")
    best = min(spent for name, spent in wall.items() if name != ours.name)
    print(f"\nQuiver / the fastest of the others: {best / wall[ours.name]:.2f}")


if __name__ == "__main__":
    main()
