#!/usr/bin/env python3
"""Speed of tokenizing beside the `tokenizers` wheel, one thread each, in MB of UTF-8 a second.

    tokenize.py --program build/dev/tools/bench/tokenize_bench --data DATA TOKENIZER_JSON...

DATA holds text/udhr.jsonl, retrieval/cranfield and retrieval/cmrc2018. The two take turns, text by text and round by round; the
figures are medians of the rounds, the wheel's that of the faster of encode_batch and encode_batch_fast. Needs tokenizers.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402

UDHR = {"English": "eng", "Chinese": "cmn_hans", "German": "deu_1996", "French": "fra", "Spanish": "spa", "Russian": "rus",
        "Arabic": "arb", "Hindi": "hin", "Thai": "tha", "Vietnamese": "vie", "Japanese": "jpn", "Korean": "kor"}


def corpora(data):
    documents = lambda path: [d.get("title", "") + " " + d["text"] for d in map(json.loads, path.read_text().splitlines())]
    out = {"Cranfield (English)": documents(data / "retrieval/cranfield/corpus.jsonl"),
           "CMRC 2018 (Chinese)": documents(data / "retrieval/cmrc2018/corpus.jsonl")}
    by_code = {d["code"]: d["text"] for d in map(json.loads, (data / "text/udhr.jsonl").read_text().splitlines())}
    for name, code in UDHR.items():
        # A paragraph a text, many times over, so that a round takes long enough to be measured.
        out[f"UDHR {name}"] = [p for p in by_code[code].split("\n") if p] * 50
    return out


class Ours:
    def __init__(self, program, path):
        self.process = subprocess.Popen([program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load_seconds = float(self.process.stdout.readline())

    def run(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        seconds, ids = self.process.stdout.readline().split()
        return float(seconds), int(ids)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(call, texts):
    start = time.perf_counter()
    encodings = call(texts, add_special_tokens=False)
    return time.perf_counter() - start, encodings


def bench(program, path, texts_of, folder, rounds):
    ours = Ours(program, path)
    start = time.perf_counter()
    wheel = tokenizers.Tokenizer.from_file(path)
    wheel_load = time.perf_counter() - start
    wheel.no_truncation()
    wheel.no_padding()
    print(f"\n{path}\nloading: {ours.load_seconds:.3f} s, tokenizers {wheel_load:.3f} s\n")
    print(f"| {'text':22} | tokenizers MB/s | Quiver MB/s | ratio |\n| :-- | --: | --: | --: |")
    for name, texts in texts_of.items():
        file = pathlib.Path(folder) / "texts"
        file = file.with_name(name.replace(" ", "_"))
        file.write_text("".join(json.dumps(t) + "\n" for t in texts))
        size = sum(len(t.encode()) for t in texts) / 1e6
        seconds = {"ours": [], "full": [], "fast": []}
        for _ in range(rounds + 1):
            spent, count = ours.run(file)
            seconds["ours"].append(spent)
            for kind, call in (("full", wheel.encode_batch), ("fast", wheel.encode_batch_fast)):
                spent, encodings = timed(call, texts)
                seconds[kind].append(spent)
            assert count == sum(len(e) for e in encodings), f"{name}: the ids differ in number"
        medians = {kind: statistics.median(s[1:]) for kind, s in seconds.items()}
        theirs = min(medians["full"], medians["fast"])
        print(f"| {name:22} | {size / theirs:.2f} | {size / medians['ours']:.1f} | {theirs / medians['ours']:.1f} |", flush=True)
    ours.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only texts whose name holds this")
    parser.add_argument("tokenizers", nargs="+")
    args = parser.parse_args()
    texts = {name: t for name, t in corpora(args.data).items() if args.only in name}
    print(f"tokenizers {tokenizers.__version__}; {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for path in args.tokenizers:
            bench(args.program, path, texts, folder, args.rounds)


if __name__ == "__main__":
    main()
