#!/usr/bin/env python3
"""Writes tests/golden/minilm_vectors.json: what `transformers` gives in float32 for 200 texts through all-MiniLM-L6-v2.

    make_minilm_vectors.py MODEL_DIR UDHR_JSONL

The texts are pieces of the Universal Declaration of Human Rights in five languages; the file says where each begins and how
many characters it has, not what it says. Inputs are cut to 256 tokens, one input runs at a time, vectors are the mean over
the tokens, normalized, and stored as little-endian float16 in base64. Needs torch and transformers.
"""
import base64
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

LANGUAGES = ["eng", "deu_1996", "rus", "cmn_hans", "arb"]
TEXTS_PER_LANGUAGE = 40
MAX_TOKENS = 256


def piece(number, total):
    """Where text `number` of a translation of `total` characters begins, and its length: from 1 character to 1,600."""
    count = min(total, max(1, round(1600 ** (number / (TEXTS_PER_LANGUAGE - 1)))))
    return (number * 977) % (total - count + 1), count


def main():
    model_dir, udhr = sys.argv[1:]
    with open(udhr, encoding="utf-8") as lines:
        translations = {r["code"]: r["text"] for r in map(json.loads, lines) if r["code"] in LANGUAGES}
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    model = transformers.AutoModel.from_pretrained(model_dir, torch_dtype=torch.float32).eval()
    texts = []
    for language in LANGUAGES:
        for number in range(TEXTS_PER_LANGUAGE):
            begin, count = piece(number, len(translations[language]))
            text = translations[language][begin:begin + count]
            whole = tokenizer(text, truncation=False, padding=False)["input_ids"]
            encoded = tokenizer(text, truncation=True, max_length=MAX_TOKENS, padding=False, return_tensors="pt")
            with torch.no_grad():
                vector = model(**encoded).last_hidden_state[0].mean(dim=0)
            vector = (vector / vector.norm()).numpy().astype("<f2")
            texts.append({"code": language, "begin": begin, "count": count, "tokens": encoded["input_ids"].shape[1],
                          "truncated": len(whole) > MAX_TOKENS,
                          "vector": base64.b64encode(vector.tobytes()).decode()})
    note = f"torch {torch.__version__}, transformers {transformers.__version__}, float32"
    out = pathlib.Path(__file__).parent / "minilm_vectors.json"
    lines = ",\n".join(json.dumps(t) for t in texts)
    out.write_text('{"made_with": "%s",\n "texts": [\n%s\n]}\n' % (note, lines))
    counts = [t["tokens"] for t in texts]
    print(f"{len(texts)} texts, {min(counts)} to {max(counts)} tokens, {sum(t['truncated'] for t in texts)} truncated")


if __name__ == "__main__":
    main()
