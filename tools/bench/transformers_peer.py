#!/usr/bin/env python3
"""Runs the rows of `quiver bench engine` through transformers, on the same card, and prints the ratio of the two.

    quiver bench engine --shape qwen3-embedding-4b --json ours.json
    transformers_peer.py ours.json [--json theirs.json]

ours.json names the model's shape, the type and the rows; weights here are random, too. PyTorch runs eagerly. Rows of equal lengths run
as one batch; documents of mixed lengths are sorted by length and padded within batches of 32, as sentence-transformers does. A pass
is timed from ids in host memory to normalized vectors in host memory. Needs torch, transformers.
"""
import argparse
import datetime
import json
import math
import statistics
import sys
import time

# The folder of this file, where tokenize.py hides the standard library's.
sys.path.pop(0)
import torch  # noqa: E402
import transformers  # noqa: E402

MIN_PASSES = 3


def make_model(shape, attention, dtype, device):
    common = {"hidden_size": shape["hidden_size"], "intermediate_size": shape["intermediate_size"],
              "num_hidden_layers": shape["layers"], "num_attention_heads": shape["heads"], "vocab_size": shape["vocab_size"],
              "max_position_embeddings": shape["max_positions"]}
    if shape["family"] == "bert":
        config = transformers.BertConfig(**common)
    else:
        config = transformers.Qwen3Config(**common, num_key_value_heads=shape["kv_heads"], head_dim=shape["head_dim"])
    with torch.device(device):
        model = transformers.AutoModel.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.to(device).eval()


def make_batches(row, vocab_size, batch_size):
    """Pairs of padded ids and their mask (None where nothing is padded), in host memory."""
    generator = torch.Generator().manual_seed(1)
    lengths = sorted(row.get("lengths") or [row["tokens"] // row["sequences"]] * row["sequences"])
    if "lengths" not in row:
        batch_size = len(lengths)
    batches = []
    for begin in range(0, len(lengths), batch_size):
        part = torch.tensor(lengths[begin:begin + batch_size])
        ids = torch.randint(0, vocab_size, (len(part), int(part.max())), generator=generator)
        mask = (torch.arange(ids.shape[1])[None] < part[:, None]).long()
        batches.append((ids, None if bool(mask.all()) else mask))
    return batches


@torch.inference_mode()
def run_pass(model, batches, device):
    """Seconds of a pass over all batches."""
    start = time.perf_counter()
    bert = model.config.model_type == "bert"
    for ids, mask in batches:
        ids = ids.to(device)
        mask = None if mask is None else mask.to(device)
        hidden = model(input_ids=ids, attention_mask=mask, **({} if bert else {"use_cache": False})).last_hidden_state
        if bert:
            weight = torch.ones_like(ids) if mask is None else mask
            pooled = (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        elif mask is None:
            pooled = hidden[:, -1]
        else:
            pooled = hidden[torch.arange(len(ids), device=device), mask.sum(1) - 1]
        torch.nn.functional.normalize(pooled.float(), dim=-1).cpu()
    return time.perf_counter() - start


def measure(model, row, args, vocab_size):
    result = {"row": row["row"], "sequences": row["sequences"], "tokens": row["tokens"]}
    try:
        batches = make_batches(row, vocab_size, args.batch_size)
        for _ in range(2):
            run_pass(model, batches, args.device)
        times = []
        while len(times) < MIN_PASSES or sum(times) < args.seconds:
            times.append(run_pass(model, batches, args.device))
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return {**result, "error": str(error).splitlines()[0]}
    median = statistics.median(times)
    return {**result, "batches": len(batches), "passes": len(times), "median_ms": median * 1e3, "best_ms": min(times) * 1e3,
            "tokens_per_s": row["tokens"] / median, "pass_ms": [t * 1e3 for t in times]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", help="the JSON file of `quiver bench engine`")
    parser.add_argument("--attention", default="sdpa", help="implementations between commas: sdpa, eager, ...")
    parser.add_argument("--rows", help="only these, between commas")
    parser.add_argument("--seconds", type=float, default=5, help="time that each row's passes take in all")
    parser.add_argument("--batch-size", type=int, default=32, help="documents of mixed lengths in a batch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="write everything to this file")
    args = parser.parse_args()
    with open(args.ours, encoding="utf-8") as file:
        ours = json.load(file)
    shape = ours["model"]
    rows = [row for row in ours["rows"] if not args.rows or row["row"] in args.rows.split(",")]
    cuda = args.device.startswith("cuda")
    reports = []
    for attention in args.attention.split(","):
        model = make_model(shape, attention, getattr(torch, shape["dtype"]), args.device)
        report = {"engine": f"transformers {transformers.__version__}, torch {torch.__version__}, {attention}, eager",
                  "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                  "device": {"name": torch.cuda.get_device_name() if cuda else "cpu"}, "model": shape,
                  "seconds_per_row": args.seconds, "rows": []}
        print(f"{report['engine']}; {report['device']['name']}\n{'row':12s} {'tokens':>8s} {'passes':>7s} {'median ms':>10s} "
              f"{'best ms':>10s} {'tokens/s':>9s} {'Quiver':>9s} {'ratio':>6s}")
        for row in rows:
            print(f"{row['row']} ...", file=sys.stderr)
            found = measure(model, row, args, shape["vocab_size"])
            report["rows"].append(found)
            if "error" in found:
                print(f"{found['row']:12s} {found['tokens']:8d}  {found['error']}")
                continue
            rate = row.get("tokens_per_s", math.nan)
            print(f"{found['row']:12s} {found['tokens']:8d} {found['passes']:7d} {found['median_ms']:10.3f} {found['best_ms']:10.3f} "
                  f"{found['tokens_per_s']:9.0f} {rate:9.0f} {rate / found['tokens_per_s']:6.2f}", flush=True)
        if cuda:
            report["peak_bytes"] = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
            print(f"memory that PyTorch took: {report['peak_bytes'] * 1e-9:.2f} GB")
        reports.append(report)
        del model
        if cuda:
            torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(reports, file, indent=1)


if __name__ == "__main__":
    main()
