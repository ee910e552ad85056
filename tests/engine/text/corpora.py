"""The texts on which token ids are compared; token_ids_test.cc reads and makes the same ones."""
import json
import pathlib

MASK = (1 << 64) - 1
NUM_RANDOM = 10000

# Where tokenizers handle something of their own: contractions, white space and newlines, digits of several scripts, marks
# that compose or change places, Hangul by parts, compatibility ideographs, the borders of UTF-8's lengths, spelled tokens.
TELLING = [
    "'", "s", "S", "\u017f", "t", "re", "RE", "ve", "m", "ll", "d", "a", "A", " ", "  ", "\t", "\n", "\r", "\r\n", "\u00a0", "\u3000",
    "\u0085", "\u2028", "\u200b", "\u200d", "\ufeff", "\x00", "\x7f", "\ufffd", "1", "23", "\u0663", "\u00b2", "\u2167", "\u00bd", ".", ",",
    "!?", "-", "_", "\u2014", "\u3002", "\uff0c", "\u00e9", "e\u0301", "e\u0323\u0302", "\u0345", "\u0334", "\u05b0", "\u0f71\u0f72",
    "\u3099", "\u304b", "\uac00", "\u1100", "\u1161", "\u11a8", "\u11a7", "\uf900", "\u4eba", "\u751f", "\u0130", "\u0131", "\u03a3",
    "\u03c2", "\u00df", "\u1e9e", "\u0149", "\u01c5", "\U0001f600", "\U0001f44d\U0001f3fd", "\U00020000", "\U0001d165", "\U0001d15e",
    "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "<|im_end|>", "<|endoftext|>", "<think>", "[MASK]", "[SEP]", "[UNK]", "##a",
]
RANGES = [(0x20, 0x7F), (0x00, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0x1200), (0x3040, 0x3100), (0x4E00, 0xA000),
          (0xAC00, 0xD7A4), (0x0, 0xD800), (0xE000, 0x110000)]


def draw(counter):
    """A number of 64 bits that looks random and depends on nothing but the counter (the finalizer of SplitMix64)."""
    z = (counter * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def random_text(i):
    """The i-th random string. Each of its units takes two draws: what kind, and which."""
    counter = i << 16
    length = draw(counter) % 48
    # A string of one kind only now and then, else of all.
    fixed = draw(counter + 1) % (3 * (len(RANGES) + 1))
    out = []
    for j in range(length):
        kind = fixed if fixed <= len(RANGES) else draw(counter + 2 + 2 * j) % (2 * len(RANGES))
        which = draw(counter + 3 + 2 * j)
        if kind < len(RANGES):
            low, high = RANGES[kind]
            out.append(chr(low + which % (high - low)))
        else:
            out.append(TELLING[which % len(TELLING)])
    return "".join(out)


def random_texts(count=NUM_RANDOM):
    return [random_text(i) for i in range(count)]


def udhr(data):
    return [json.loads(line)["text"] for line in (pathlib.Path(data) / "text/udhr.jsonl").read_text().split("\n") if line]


def blns(data):
    return json.loads((pathlib.Path(data) / "text/blns.json").read_text())


def normalization(data):
    """Every column of every line of Unicode's normalization cases."""
    texts = []
    for line in (pathlib.Path(data) / "text/NormalizationTest.txt").read_text().split("\n"):
        columns = line.split("#")[0].split(";")
        if len(columns) > 5:
            texts += ["".join(chr(int(point, 16)) for point in column.split()) for column in columns[:5]]
    return texts


CORPORA = {"random": lambda data: random_texts(), "udhr": udhr, "blns": blns, "normalization": normalization}
