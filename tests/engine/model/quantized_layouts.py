"""Quantized checkpoints written in every layout from the formats' descriptions, with NumPy alone, and what they mean.

A layout takes codes, zero points and scales, gives the tensors of one Linear as its quantizer would store them, and the
matrix that they stand for: (q - z) * s, or value * s, in float32.
"""
import json
import pathlib

import numpy as np

FP8 = np.zeros(256, np.float32)
for _code in range(256):
    _exponent, _fraction = _code >> 3 & 15, _code & 7
    _value = _fraction / 8 * 2.0 ** -6 if _exponent == 0 else (1 + _fraction / 8) * 2.0 ** (_exponent - 7)
    FP8[_code] = np.nan if _code & 127 == 127 else -_value if _code & 128 else _value

# As safetensors names them. BF16 and FP8 have no type in NumPy: arrays of their bits, marked by these.
DTYPES = {np.dtype("float32"): "F32", np.dtype("float16"): "F16", np.dtype("int32"): "I32", np.dtype("int64"): "I64",
          np.dtype("uint16"): "BF16", np.dtype("uint8"): "F8_E4M3"}


def to_bf16(x):
    """Bits of the nearest BF16, ties to even."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        size = array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    out = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        out[name] = np.frombuffer(data[8 + length + begin:8 + length + end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return out


def pack(nibbles, axis):
    """Eight values of 0 to 15 along `axis` to a word, the first in the lowest bits."""
    nibbles = np.moveaxis(nibbles.astype(np.uint32), axis, -1)
    nibbles = nibbles.reshape(*nibbles.shape[:-1], -1, 8)
    words = np.bitwise_or.reduce(nibbles << (4 * np.arange(8, dtype=np.uint32)), axis=-1)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32)


class Int4:
    """Random codes [N, K], zero points and scales [N, groups]; `groups_of` has each input's group."""

    def __init__(self, rng, n, k, group, symmetric, scale_type=np.float16, shuffled=False, top_zero=15):
        group = k if group == -1 else group
        self.n, self.k, self.groups = n, k, -(-k // group)
        self.q = rng.integers(0, 16, (n, k))
        self.z = np.full((n, self.groups), 8) if symmetric else rng.integers(0, top_zero + 1, (n, self.groups))
        scales = rng.uniform(0.05, 0.4, (n, self.groups)) / np.sqrt(k)
        self.scale_bits = to_bf16(scales) if scale_type == "bf16" else scales.astype(scale_type)
        self.s = from_bf16(self.scale_bits) if scale_type == "bf16" else self.scale_bits.astype(np.float32)
        self.groups_of = np.arange(k) // group
        if shuffled:
            rng.shuffle(self.groups_of)

    def matrix(self):
        z, s = self.z[:, self.groups_of], self.s[:, self.groups_of]
        return (self.q - z).astype(np.float32) * s


def awq(linear):
    # Within a word: outputs 0, 2, 4, 6, 1, 3, 5, 7.
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def words(values):  # [rows, N]
        return pack(values.reshape(values.shape[0], -1, 8)[:, :, order].reshape(values.shape), 1)

    return {"qweight": words(linear.q.T), "qzeros": words(linear.z.T),
            "scales": np.ascontiguousarray(linear.scale_bits.T)}


def gptq(linear, version=1, g_idx=True):
    tensors = {"qweight": pack(linear.q.T, 0), "qzeros": pack(linear.z.T - (1 if version == 1 else 0), 1),
               "scales": np.ascontiguousarray(linear.scale_bits.T)}
    if g_idx:
        tensors["g_idx"] = linear.groups_of.astype(np.int32)
    return tensors


def compressed_int4(linear, symmetric, g_idx=False):
    tensors = {"weight_packed": pack(linear.q, 1), "weight_scale": linear.scale_bits,
               "weight_shape": np.array([linear.n, linear.k], np.int64)}
    if not symmetric:
        rows = -(-linear.n // 8) * 8
        padded = np.zeros((rows, linear.groups), int)
        padded[:linear.n] = linear.z
        tensors["weight_zero_point"] = pack(padded, 0)
    if g_idx:
        tensors["weight_g_idx"] = linear.groups_of.astype(np.int32)
    return tensors


class Fp8:
    """Random codes [N, K] that are numbers, and scales for blocks of (rows, columns); -1 for all."""

    def __init__(self, rng, n, k, block, scale_type="bf16"):
        self.codes = rng.integers(0, 256, (n, k)).astype(np.uint8)
        self.codes[self.codes & 127 == 127] = 0x30
        rows, columns = n if block[0] == -1 else block[0], k if block[1] == -1 else block[1]
        shape = (-(-n // rows), -(-k // columns))
        scales = rng.uniform(0.5, 1.5, shape) / 100 / np.sqrt(k)
        self.scale_bits = to_bf16(scales) if scale_type == "bf16" else scales.astype(np.float32)
        s = from_bf16(self.scale_bits) if scale_type == "bf16" else self.scale_bits
        self.s = np.repeat(np.repeat(s, rows, 0)[:n], columns, 1)[:, :k]

    def matrix(self):
        return FP8[self.codes] * self.s


def fp8(linear, scale_name="weight_scale", shape=None, input_scale=None):
    scales = linear.scale_bits if shape is None else linear.scale_bits.reshape(shape)
    tensors = {"weight": linear.codes, scale_name: scales}
    if input_scale is not None:
        tensors["input_scale"] = np.array([input_scale], np.float32)
    return tensors


def layouts(rng):
    """Names, quantization_config, and a function of (n, k) that gives a Linear's tensors and its matrix."""
    def int4_layout(store, **options):
        def make(n, k):
            linear = Int4(rng, n, k, **options)
            return store(linear), linear.matrix()
        return make

    def fp8_layout(block, scale_type="bf16", **options):
        def make(n, k):
            linear = Fp8(rng, n, k, block, scale_type)
            return fp8(linear, **options), linear.matrix()
        return make

    ignore = ["lm_head"]
    for group in (32, 64, 128, -1):
        yield f"awq-g{group}", {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                                "modules_to_not_convert": None}, int4_layout(awq, group=group, symmetric=False)
        gptq_config = {"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False}
        yield f"gptq-v1-sym-g{group}", {**gptq_config, "sym": True}, int4_layout(gptq, group=group, symmetric=True)
        # The first format can say a zero point of 16, and none of 0.
        yield (f"gptq-v1-g{group}", {**gptq_config, "sym": False, "checkpoint_format": "gptq"},
               int4_layout(lambda linear: gptq(Shifted(linear)), group=group, symmetric=False))
        yield (f"gptq-v2-g{group}", {**gptq_config, "sym": False, "checkpoint_format": "gptq_v2"},
               int4_layout(lambda linear: gptq(linear, version=2, g_idx=False), group=group, symmetric=False,
                           scale_type="bf16"))
        for symmetric in (True, False):
            weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "dynamic": False,
                       "strategy": "channel" if group == -1 else "group", "group_size": None if group == -1 else group}
            yield (f"compressed-int4-{'sym' if symmetric else 'asym'}-g{group}",
                   {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ignore,
                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None,
                                                  "output_activations": None}}},
                   int4_layout(lambda linear, symmetric=symmetric: compressed_int4(linear, symmetric), group=group,
                               symmetric=symmetric, scale_type="bf16"))
    yield ("gptq-act-order", {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True},
           int4_layout(gptq, group=32, symmetric=True, shuffled=True))
    yield ("compressed-int4-act-order",
           {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ignore,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
                "num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64,
                "actorder": "group"}}}},
           int4_layout(lambda linear: compressed_int4(linear, False, g_idx=True), group=64, symmetric=False, shuffled=True))

    native = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    yield ("fp8-block", {**native, "weight_block_size": [128, 128]},
           fp8_layout((128, 128), scale_name="weight_scale_inv"))
    yield ("fp8-block-f32", {**native, "weight_block_size": [128, 128]},
           fp8_layout((128, 128), "f32", scale_name="weight_scale_inv"))
    yield "fp8-tensor", native, fp8_layout((-1, -1), "f32", shape=(1,))
    yield "fp8-tensor-scalar", native, fp8_layout((-1, -1), "f32", shape=())
    yield ("fp8-tensor-static", {**native, "activation_scheme": "static"},
           fp8_layout((-1, -1), "f32", shape=(1,), input_scale=0.02))
    for strategy, block in (("tensor", (-1, -1)), ("channel", (1, -1)), ("block", (128, 128))):
        for dynamic in (True, False):
            if not dynamic and strategy == "block":
                continue
            weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy, "dynamic": False}
            if strategy == "block":
                weights["block_structure"] = [128, 128]
            yield (f"compressed-fp8-{strategy}-{'dynamic' if dynamic else 'static'}",
                   {"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ignore,
                    "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": {
                        "num_bits": 8, "type": "float", "dynamic": dynamic, "strategy": "token" if dynamic else "tensor"}}}},
                   fp8_layout(block, shape=(1,) if strategy == "tensor" else None,
                              input_scale=None if dynamic else 0.02))


class Shifted:
    """A Linear whose zero points are 1 to 16."""

    def __init__(self, linear):
        linear.z = linear.z + 1
        self.__dict__ = linear.__dict__


def nearest_int4(matrix, group=128):
    """What int4 codes to the nearest, in groups with zero points and BF16 scales, make of a matrix."""
    parts = []
    for begin in range(0, matrix.shape[1], group):
        part = matrix[:, begin:begin + group]
        least, largest = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        scale = from_bf16(to_bf16((largest - least) / np.float32(15)))
        scale = np.where(scale > 0, scale, np.float32(1))[:, None]
        zero = np.clip(np.rint(-least[:, None] / scale), 0, 15)
        code = np.clip(np.rint(part / scale) + zero, 0, 15)
        parts.append((code - zero) * scale)
    return np.concatenate(parts, 1).astype(np.float32)


def nearest_fp8(matrix):
    """What E4M3 codes to the nearest, with a scale for each output, make of a matrix."""
    largest = np.abs(matrix).max(1, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(448), np.float32(1)).astype(np.float32)
    values = FP8[:127]
    x = np.abs(matrix / scale)
    above = np.clip(np.searchsorted(values, x), 1, 126)
    low, high = values[above - 1], values[above]
    # Ties to the code whose last bit is 0.
    up = (x - low > high - x) | ((x - low == high - x) & (above % 2 == 0))
    return np.copysign(np.where(up, high, low), matrix).astype(np.float32) * scale
