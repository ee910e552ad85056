#!/usr/bin/env python3
"""Compares token ids with those of the `tokenizers` wheel, text by text.

    compare_with_wheel.py TOKENIZE_LINES

TOKENIZE_LINES is the program of tokenize_lines.cc. The cut tokenizers of tests/fixtures run over random strings, as they are
and with other settings (added tokens of every kind, every flag, other split patterns); the real ones over all texts if
QUIVER_TEST_DATA and QUIVER_DEFAULT_MODEL name their folders.
"""
import copy
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import tokenizers

import corpora

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures/tokenizers"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")

failures = []


def ids_of(program, path, texts, *limit):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    run = subprocess.run([program, path, *map(str, limit)], input=lines, capture_output=True, text=True, check=False)
    if run.returncode:
        return run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def compare(program, name, path, texts, limit=None):
    wheel = tokenizers.Tokenizer.from_file(str(path))
    wheel.no_truncation()
    wheel.no_padding()
    if limit:
        # An empty text is no input of the model.
        texts = [text for text in texts if text]
        wheel.enable_truncation(limit)
    expected = [encoding.ids for encoding in wheel.encode_batch(texts)]
    found = ids_of(program, str(path), texts, *([limit] if limit else []))
    if isinstance(found, str):
        failures.append(f"{name}: {found}")
        return
    wrong = [i for i, ids in enumerate(expected) if ids != found[i]]
    print(f"{name}: {len(texts) - len(wrong)} of {len(texts)} equal")
    for i in wrong[:3]:
        failures.append(f"{name}: {texts[i]!a}\n  wheel {expected[i]}\n  ours  {found[i]}")
    if len(found) != len(expected):
        failures.append(f"{name}: {len(found)} lines for {len(expected)} texts")


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False,
            **flags}


ADDED = [
    token("s"), token(" a", normalized=True), token("M", normalized=True), token("ll", single_word=True),
    token("é", normalized=True, single_word=True), token("1", lstrip=True), token("!?", rstrip=True),
    token("。", lstrip=True, rstrip=True), token("23", lstrip=True, rstrip=True, single_word=True),
    token("\u3000", normalized=True, lstrip=True), token("<|im", normalized=True), token("人", normalized=True, rstrip=True),
]


def with_added(data, added):
    data = copy.deepcopy(data)
    # What the vocabulary has keeps its id, the rest is numbered on.
    next_id = 1 + max([*data["model"]["vocab"].values(), *(t["id"] for t in data["added_tokens"])])
    for item in added:
        number = data["model"]["vocab"].get(item["content"])
        if number is None:
            number, next_id = next_id, next_id + 1
        data["added_tokens"].append({**item, "id": number})
    return data


def variants():
    """(name, tokenizer.json) of settings that the real tokenizers do not have."""
    qwen, bert = (json.loads((FIXTURES / name / "tokenizer.json").read_text()) for name in ("qwen-small", "bert-small"))
    for base, data in (("qwen", qwen), ("bert", bert)):
        # The wheel itself fails where one token's stripping reaches into another that begins with white space.
        yield f"{base} with added tokens", with_added(data, [item for item in ADDED if not item["content"][0].isspace()])
        for i, item in enumerate(ADDED):
            yield f"{base} with added token {i}", with_added(data, [item])
        data = copy.deepcopy(data)
        data["normalizer"] = None
        yield f"{base} without normalizer", data
    for flags in range(1, 24):
        data = copy.deepcopy(bert)
        data["normalizer"] = {"type": "BertNormalizer", "clean_text": bool(flags & 1), "handle_chinese_chars": bool(flags & 2),
                              "lowercase": bool(flags & 4), "strip_accents": [None, True, False][flags >> 3]}
        yield f"bert normalizer {flags}", data
    for name, change in {
        "8 characters a word": {"max_input_chars_per_word": 8},
        "other prefix": {"continuing_subword_prefix": "a"},
        "other unknown": {"unk_token": "[MASK]"},
    }.items():
        data = copy.deepcopy(bert)
        data["model"].update(change)
        yield f"bert {name}", data
    data = copy.deepcopy(bert)
    data["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    yield "bert processing", data
    for name, pattern in (("gpt2", GPT2), ("llama3", LLAMA3), ("qwen2", QWEN2)):
        for behavior, invert in (("Isolated", False), ("Removed", True)):
            for space in (False, True):
                data = copy.deepcopy(qwen)
                data["pre_tokenizer"]["pretokenizers"] = [
                    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert},
                    {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": False}]
                yield f"{name} {behavior} {'spaced' if space else ''}", data
    for space in (False, True):
        for use_regex in (False, True):
            data = copy.deepcopy(qwen)
            data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": use_regex}
            data["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 5], "cls": ["<s>", 6], "trim_offsets": True,
                                      "add_prefix_space": False}
            yield f"byte level, space {space}, regex {use_regex}", data
    data = copy.deepcopy(qwen)
    data["model"]["ignore_merges"] = True
    data["model"]["merges"] = data["model"]["merges"][::2]
    yield "ignored merges", data
    data = copy.deepcopy(qwen)
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    yield "merges as strings", data
    data = copy.deepcopy(qwen)
    data["model"]["merges"].reverse()
    yield "merges in another order", data
    data = copy.deepcopy(qwen)
    data["model"]["merges"] = data["model"]["merges"][100:] + data["model"]["merges"][:300]
    yield "merges twice", data
    data = copy.deepcopy(qwen)
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    data["post_processor"] = {"type": "Sequence", "processors": [data["post_processor"]["processors"][1],
                                                                 data["post_processor"]["processors"][1]]}
    yield "sequences", data


def main():
    program = sys.argv[1]
    random = corpora.random_texts()
    words = [a * n + b for n in (1, 31, 32, 33, 127, 128, 129, 300) for a in ("a", "ab", "ation", "人", " ", "\n", "=") for b in ("", "x")]
    with tempfile.TemporaryDirectory() as folder:
        for name, data in variants():
            path = pathlib.Path(folder) / "tokenizer.json"
            path.write_text(json.dumps(data))
            compare(program, name, path, random[:1500] + words)
    real = [FIXTURES / "qwen-small", FIXTURES / "bert-small"]
    texts = random + words
    if "QUIVER_TEST_DATA" in os.environ:
        data = os.environ["QUIVER_TEST_DATA"]
        texts += corpora.udhr(data) + corpora.blns(data) + corpora.normalization(data)
        real += [pathlib.Path(data) / "qwen3-embedding-0.6B", pathlib.Path(data) / "qwen3-embedding-4B"]
    if "QUIVER_DEFAULT_MODEL" in os.environ:
        real.append(pathlib.Path(os.environ["QUIVER_DEFAULT_MODEL"]))
    for folder in real:
        compare(program, folder.name, folder / "tokenizer.json", texts)
        compare(program, f"{folder.name} cut to 16", folder / "tokenizer.json", random, 16)
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
