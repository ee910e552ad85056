#!/usr/bin/env python3
"""Writes engine/text/unicode_data.cc: Unicode as the `tokenizers` wheel sees it.

    generate.py [--output FILE] [--check]

The wheel mixes Unicode versions: its normalizer is older than its regular expressions, and its lower-casing and its
punctuation come from yet other tables. So every property is asked of the wheel itself, code point by code point:

    \\p{L}, \\p{N}, \\s        pre_tokenizers.Split over a regular expression
    \\w, \\s of added tokens  an AddedToken with single_word, rstrip
    BERT                     normalizers.BertNormalizer, one flag at a time; pre_tokenizers.BertPreTokenizer
    NFD, NFC                 normalizers.NFD of every code point; classes by which pairs it reorders; compositions by
                             which decompositions normalizers.NFC puts together

Then NFD and NFC are redone here from the tables found and compared with the wheel's on random strings. --check writes
nothing and fails if the file differs. Needs tokenizers==0.23.3; takes about a minute.
"""
import argparse
import functools
import pathlib
import random
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

WHEEL = "0.23.3"
OUTPUT = pathlib.Path(__file__).parents[2] / "engine/text/unicode_data.cc"
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BLOCK = 128
# Hangul syllables are composed by arithmetic (The Unicode Standard, section 3.12), never by table.
S_BASE, L_BASE, V_BASE, T_BASE = 0xAC00, 0x1100, 0x1161, 0x11A7
L_COUNT, V_COUNT, T_COUNT = 19, 21, 28
S_COUNT = L_COUNT * V_COUNT * T_COUNT

NFD = normalizers.NFD().normalize_str
NFC = normalizers.NFC().normalize_str

# Bit of each property, in the order of enum UnicodeFlag in unicode.h.
FLAGS = ["letter", "number", "space", "word", "rust_space", "bert_space", "bert_control", "bert_chinese", "bert_punctuation",
         "nonspacing_mark", "has_lower", "decomposes", "composes_second", "nfc_inert"]


def matched(pattern):
    """Code points that the regular expression matches alone."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    rest = set()
    for i in range(0, len(SCALARS), 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, SCALARS[i:i + 4096]))):
            rest.update(map(ord, piece))
    return set(SCALARS) - rest


def added_token_classes():
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("@@", single_word=True, normalized=False), AddedToken("##", rstrip=True, normalized=False)])
    mark = tokenizer.token_to_id("@@")
    word, space = set(), set()
    for i in range(0, len(SCALARS), 8192):
        part = SCALARS[i:i + 8192]
        for c, e in zip(part, tokenizer.encode_batch([chr(c) + "@@" for c in part])):
            if mark not in e.ids:
                word.add(c)
        for c, e in zip(part, tokenizer.encode_batch(["##" + chr(c) for c in part])):
            if len(e.ids) == 1:
                space.add(c)
    return word, space


def bert(**flags):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **flags}).normalize_str


def bert_classes():
    clean, chinese, strip, lower = (bert(**{k: True}) for k in
                                    ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"))
    split = pre_tokenizers.BertPreTokenizer()
    space, control, cjk, punctuation, marks, lowered = set(), set(), set(), set(), set(), {}
    for c in SCALARS:
        s = chr(c)
        cleaned = clean(s)
        pieces = len(split.pre_tokenize_str(f"a{s}b"))
        if cleaned == "":
            control.add(c)
        elif cleaned == " ":
            space.add(c)
        else:
            assert cleaned == s
        if pieces == 2:
            # Of the white space, only what clean_text would have removed need not be known to it as such.
            assert c in space or c in control, hex(c)
            space.add(c)
        else:
            assert c not in space, hex(c)
        if pieces == 3:
            punctuation.add(c)
        if chinese(s) != s:
            assert chinese(s) == f" {s} "
            cjk.add(c)
        if strip(s) == "" and NFD(s) == s:
            marks.add(c)
        if lower(s) != s:
            lowered[c] = [ord(x) for x in lower(s)]
    for c in SCALARS:
        assert strip(chr(c)) == "".join(x for x in NFD(chr(c)) if ord(x) not in marks), hex(c)
    return space, control, cjk, punctuation, marks, lowered


def reorders(a, b):
    return NFD(chr(a) + chr(b)) == chr(b) + chr(a)


def combining_classes(decompositions):
    """Rank of the canonical combining class of each code point that has one and stays as it is under NFD: 1 is the lowest
    class there is. U+0334 has the lowest class of all, U+0345 the highest."""
    nonstarters = [c for c in SCALARS if c not in decompositions and not S_BASE <= c < S_BASE + S_COUNT
                   and (reorders(c, 0x334) or reorders(0x345, c))]

    def compare(a, b):
        return 1 if reorders(a, b) else -1 if reorders(b, a) else 0

    ranks, rank, last = {}, 0, None
    for c in sorted(nonstarters, key=functools.cmp_to_key(compare)):
        if last is None or compare(last, c):
            rank += 1
        ranks[c], last = rank, c
    return ranks


def is_hangul(c):
    return S_BASE <= c < S_BASE + S_COUNT


def compositions_of(decompositions):
    pairs = {}
    for c, parts in decompositions.items():
        whole = "".join(map(chr, parts))
        if NFC(whole) != chr(c) or len(parts) < 2:
            continue
        first = NFC(whole[:-1])
        assert len(first) == 1, hex(c)
        pairs[ord(first), parts[-1]] = c
    return pairs


class Model:
    """NFD and NFC from the tables alone."""

    def __init__(self, decompositions, ranks, pairs):
        self.decompositions, self.ranks, self.pairs = decompositions, ranks, pairs

    def nfd(self, text):
        out = []
        for c in map(ord, text):
            if is_hangul(c):
                s = c - S_BASE
                out += [L_BASE + s // (V_COUNT * T_COUNT), V_BASE + s % (V_COUNT * T_COUNT) // T_COUNT]
                if s % T_COUNT:
                    out.append(T_BASE + s % T_COUNT)
            else:
                out += self.decompositions.get(c, [c])
        i = 0
        while i < len(out):
            j = i
            while j < len(out) and out[j] in self.ranks:
                j += 1
            out[i:j] = sorted(out[i:j], key=self.ranks.get)
            i = max(j, i + 1)
        return out

    def compose(self, a, b):
        if L_BASE <= a < L_BASE + L_COUNT and V_BASE <= b < V_BASE + V_COUNT:
            return S_BASE + ((a - L_BASE) * V_COUNT + b - V_BASE) * T_COUNT
        if is_hangul(a) and (a - S_BASE) % T_COUNT == 0 and T_BASE < b < T_BASE + T_COUNT:
            return a + b - T_BASE
        return self.pairs.get((a, b))

    def nfc(self, text):
        out, starter, last = [], None, 0
        for c in self.nfd(text):
            rank = self.ranks.get(c, 0)
            if starter is not None and (last < rank or last == 0 and starter == len(out) - 1):
                whole = self.compose(out[starter], c)
                if whole is not None:
                    out[starter] = whole
                    continue
            if rank == 0:
                starter = len(out)
            last = rank
            out.append(c)
        return out


def verify(model, pairs):
    rng = random.Random(1)
    telling = (list(model.ranks) + list(model.decompositions) + [c for p in pairs for c in p] +
               [S_BASE, S_BASE + 1, S_BASE + 28, L_BASE, L_BASE + 18, L_BASE + 19, V_BASE, V_BASE + 20, V_BASE + 21, T_BASE,
                T_BASE + 1, T_BASE + 27, T_BASE + 28, 0x61, 0x41])
    for n in range(300000):
        pool = SCALARS if n % 4 == 0 else telling
        text = "".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 6)))
        assert "".join(map(chr, model.nfd(text))) == NFD(text), ascii(text)
        assert "".join(map(chr, model.nfc(text))) == NFC(text), ascii(text)


def gather():
    decompositions = {c: [ord(x) for x in NFD(chr(c))] for c in SCALARS if not is_hangul(c) and NFD(chr(c)) != chr(c)}
    ranks = combining_classes(decompositions)
    pairs = compositions_of(decompositions)
    model = Model(decompositions, ranks, pairs)
    verify(model, pairs)

    sets = dict.fromkeys(FLAGS)
    sets["letter"], sets["number"], sets["space"] = matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s")
    assert matched(r"[^\S]") == sets["space"] and matched(r"[^\r\n\p{L}\p{N}]") == \
        set(SCALARS) - sets["letter"] - sets["number"] - {10, 13}
    sets["word"], sets["rust_space"] = added_token_classes()
    (sets["bert_space"], sets["bert_control"], sets["bert_chinese"], sets["bert_punctuation"], sets["nonspacing_mark"],
     lowered) = bert_classes()
    sets["has_lower"] = set(lowered)
    sets["decomposes"] = set(decompositions) | {c for c in SCALARS if is_hangul(c)}
    sets["composes_second"] = {b for _, b in pairs} | set(range(V_BASE, V_BASE + V_COUNT)) | \
        set(range(T_BASE + 1, T_BASE + T_COUNT))
    sets["nfc_inert"] = {c for c in SCALARS if NFC(chr(c)) == chr(c) and c not in ranks and c not in sets["composes_second"]}
    return sets, ranks, decompositions, pairs, lowered


def rows(name, ctype, values, per_row=24, form=str):
    lines = [f"const {ctype} {name}[{len(values)}] = {{"]
    for i in range(0, len(values), per_row):
        lines.append("    " + ", ".join(form(v) for v in values[i:i + per_row]) + ",")
    return lines + ["};"]


def mapping(name, table):
    """Code points sorted, where the mapping of each begins in a pool, and the pool."""
    keys, starts, pool = sorted(table), [0], []
    for k in keys:
        pool += table[k]
        starts.append(len(pool))
    return (rows(f"k{name}Keys", "uint32_t", keys, 12, hex) + rows(f"k{name}Starts", "uint16_t", starts) +
            rows(f"k{name}Pool", "uint32_t", pool, 12, hex) + [f"const int k{name}Count = {len(keys)};", ""])


def render(sets, ranks, decompositions, pairs, lowered):
    records, record_of = {}, []
    for c in range(0x110000):
        flags = sum(1 << i for i, name in enumerate(FLAGS) if c in sets[name])
        record_of.append(records.setdefault((flags, ranks.get(c, 0)), len(records)))
    assert len(records) <= 256
    blocks, index = {}, []
    for i in range(0, 0x110000, BLOCK):
        index.append(blocks.setdefault(tuple(record_of[i:i + BLOCK]), len(blocks)))
    keys = sorted(pairs)
    lines = [
        f"// Generated by tools/unicode/generate.py from the behaviour of tokenizers {tokenizers.__version__}; do not edit.",
        "// clang-format off",
        '#include "engine/text/unicode_data.h"',
        "",
        "namespace quiver::unicode_data {",
        "",
    ]
    lines += rows("kBlockOf", "uint16_t", index)
    lines += rows("kRecordOf", "uint8_t", [r for b in blocks for r in b], 32)
    lines += rows("kRecords", "CodePointRecord", list(records), 8, lambda r: f"{{{r[0]}, {r[1]}}}") + [""]
    lines += mapping("Decomposition", decompositions)
    lines += mapping("Lower", lowered)
    lines += rows("kCompositionKeys", "uint64_t", [a << 32 | b for a, b in keys], 8, hex)
    lines += rows("kCompositions", "uint32_t", [pairs[k] for k in keys], 12, hex)
    lines += [f"const int kCompositionCount = {len(keys)};", "", "}  // namespace quiver::unicode_data", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT)
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    args = parser.parse_args()
    if tokenizers.__version__ != WHEEL:
        sys.exit(f"needs tokenizers=={WHEEL}, found {tokenizers.__version__}")
    text = render(*gather())
    if not args.check:
        args.output.write_text(text)
    elif args.output.read_text() != text:
        sys.exit(f"{args.output} differs from what this script writes")


if __name__ == "__main__":
    main()
