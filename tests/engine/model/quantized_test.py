"""Every quantized layout is read element for element as its description says, and run to the same bits as its floats.

Usage: quantized_test.py DUMP_LINEARS QUIVER MAKE_TINY_MODEL FIXTURES
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import quantized_layouts as layouts

DUMP, QUIVER, MAKE_TINY_MODEL, FIXTURES = sys.argv[1:5]
HIDDEN, INNER, LAYERS = 128, 256, 2
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
          "self_attn.v_proj": (HIDDEN // 2, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN),
          "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
TEXTS = ["a cat", "How do I reset my password?", "x " * 50]


class QuantizedTest(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(5)
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.work = pathlib.Path(self.folder.name)
        tiny = self.work / "tiny"
        subprocess.run([MAKE_TINY_MODEL, str(tiny), "--fixtures", FIXTURES], check=True)
        (tiny / "model.safetensors").unlink()
        pooling = json.loads((tiny / "1_Pooling/config.json").read_text())
        (tiny / "1_Pooling/config.json").write_text(json.dumps({**pooling, "word_embedding_dimension": HIDDEN}))
        self.tiny = tiny
        self.config = json.loads((tiny / "config.json").read_text())
        self.config.update(hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=2,
                           num_key_value_heads=1, head_dim=64)

    def write(self, name, tensors, quantization=None):
        """A model's folder."""
        path = self.work / name
        shutil.copytree(self.tiny, path)
        config = dict(self.config)
        if quantization is not None:
            config["quantization_config"] = quantization
        (path / "config.json").write_text(json.dumps(config))
        layouts.write_safetensors(path / "model.safetensors", tensors)
        return path

    def others(self, prefix=""):
        """Tensors that are no Linear's."""
        rng = np.random.default_rng(6)
        vocabulary = self.config["vocab_size"]
        tensors = {f"{prefix}embed_tokens.weight": rng.standard_normal((vocabulary, HIDDEN)).astype(np.float32),
                   f"{prefix}norm.weight": np.ones(HIDDEN, np.float32)}
        for layer in range(LAYERS):
            for name, size in (("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN), ("self_attn.q_norm", 64),
                               ("self_attn.k_norm", 64)):
                tensors[f"{prefix}layers.{layer}.{name}.weight"] = np.ones(size, np.float32)
        return tensors

    def quantized(self, make, prefix=""):
        """Tensors of all Linears, and their matrices by module."""
        tensors, matrices = {}, {}
        for layer in range(LAYERS):
            for module, (n, k) in SHAPES.items():
                name = f"layers.{layer}.{module}"
                parts, matrices[name] = make(n, k)
                tensors.update({f"{prefix}{name}.{part}": array for part, array in parts.items()})
        return tensors, matrices

    def dump(self, path):
        out = self.work / "dump.safetensors"
        result = subprocess.run([DUMP, str(path), str(out)], capture_output=True, text=True)
        return result, out

    def run_embed(self, path, device, *options):
        return subprocess.run([QUIVER, "embed", "--model", str(path), "--device", device, *options, "--output",
                               str(self.work / "vectors.npy"), *TEXTS], capture_output=True, text=True)

    def embed(self, path, *options):
        result = self.run_embed(path, "cpu", *options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return np.load(self.work / "vectors.npy")

    def float_twin(self, name, matrices, prefix=""):
        tensors = self.others(prefix)
        tensors.update({f"{prefix}{module}.weight": matrix for module, matrix in matrices.items()})
        return self.write(name, tensors)

    def test_every_layout_is_read_and_run_as_described(self):
        count = 0
        for name, quantization, make in layouts.layouts(self.rng):
            with self.subTest(name):
                prefix = "model." if count % 2 else ""
                tensors, matrices = self.quantized(make, prefix)
                path = self.write(name, {**self.others(prefix), **tensors}, quantization)
                result, out = self.dump(path)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertTrue(result.stdout.startswith(quantization["quant_method"] + ": "), result.stdout)
                dumped = layouts.read_safetensors(out)
                for module, matrix in matrices.items():
                    self.assertEqual(dumped[f"{module}.weight"].tobytes(), matrix.tobytes(), module)
                vectors = self.embed(path)
                self.assertTrue(np.isfinite(vectors).all())
                np.testing.assert_array_equal(vectors, self.embed(self.float_twin(f"{name}-float", matrices, prefix)))
                count += 1
        self.assertGreaterEqual(count, 34)

    def test_a_cuda_device_gives_the_vectors_of_the_cpu(self):
        for name, quantization, make in layouts.layouts(self.rng):
            tensors, _ = self.quantized(make)
            path = self.write(name, {**self.others(), **tensors}, quantization)
            result = self.run_embed(path, "cuda")
            if result.returncode != 0 and "CUDA" in result.stderr and "device" in result.stderr:
                self.skipTest(result.stderr.strip())
            with self.subTest(name):
                self.assertEqual(result.returncode, 0, result.stderr)
                vectors = np.load(self.work / "vectors.npy")
                cosines = (vectors * self.embed(path)).sum(axis=1)
                # Activations are in FP8, too, beside weights that have a scale for each output: here those of blocks, too.
                mean, least = (0.998, 0.98) if "fp8" in name else (0.9995, 0.999)
                self.assertGreaterEqual(cosines.mean(), mean, cosines)
                self.assertGreaterEqual(cosines.min(), least, cosines)

    def test_modules_may_stay_floats_or_be_stored_otherwise(self):
        """q in int4, k in FP8, v and the MLP in BF16 within the matrices that the engine makes one of."""
        def make(n, k):
            linear = layouts.Int4(self.rng, n, k, 32, False, "bf16")
            return layouts.compressed_int4(linear, False), linear.matrix()

        tensors, matrices = self.quantized(make)
        for layer in range(LAYERS):
            name = f"layers.{layer}.self_attn.k_proj"
            for part in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"):
                del tensors[f"{name}.{part}"]
            linear = layouts.Fp8(self.rng, *SHAPES["self_attn.k_proj"], (1, -1))
            tensors.update({f"{name}.{part}": array for part, array in layouts.fp8(linear).items()})
            matrices[name] = linear.matrix()
            for module in ("self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"):
                name = f"layers.{layer}.{module}"
                for part in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"):
                    del tensors[f"{name}.{part}"]
                tensors[f"{name}.weight"] = layouts.to_bf16(matrices[name])
                matrices[name] = layouts.from_bf16(tensors[f"{name}.weight"])
        int4 = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32}
        fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
        path = self.write("mixed", {**self.others(), **tensors}, {
            "quant_method": "compressed-tensors", "format": "mixed-precision",
            "ignore": ["re:.*gate_proj$", "model.layers.0.mlp.down_proj", "layers.1.mlp.down_proj"],
            "config_groups": {
                "group_0": {"targets": ["re:.*self_attn\\.k_proj"], "format": "float-quantized", "weights": fp8},
                "group_1": {"targets": ["Linear"], "format": "pack-quantized", "weights": int4}}})
        result, out = self.dump(path)
        self.assertEqual(result.returncode, 0, result.stderr)
        dumped = layouts.read_safetensors(out)
        for module, matrix in matrices.items():
            self.assertEqual(dumped[f"{module}.weight"].tobytes(), matrix.tobytes(), module)
        np.testing.assert_array_equal(self.embed(path), self.embed(self.float_twin("mixed-float", matrices)))

    def test_floats_are_quantized_at_load_to_the_nearest(self):
        """The engine's vectors are those of the same quantization made here."""
        rng = np.random.default_rng(7)
        floats = {f"layers.{layer}.{module}.weight": (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)
                  for layer in range(LAYERS) for module, (n, k) in SHAPES.items()}
        floats["layers.0.mlp.up_proj.weight"][5] = 0
        path = self.write("floats", {**self.others(), **floats})
        for choice, quantize in (("int4", layouts.nearest_int4), ("fp8", layouts.nearest_fp8)):
            with self.subTest(choice):
                twin = self.float_twin(f"{choice}-twin", {name.removesuffix(".weight"): quantize(matrix)
                                                          for name, matrix in floats.items()})
                np.testing.assert_array_equal(self.embed(path, "--quantization", choice), self.embed(twin))
                self.assertFalse((self.embed(path) == self.embed(twin)).all())

    def test_a_checkpoint_that_is_not_what_was_insisted_on_is_refused(self):
        def make(n, k):
            linear = layouts.Int4(self.rng, n, k, 32, True)
            return layouts.gptq(linear), linear.matrix()

        tensors, matrices = self.quantized(make)
        int4 = self.write("int4", {**self.others(), **tensors}, {"quant_method": "gptq", "bits": 4, "group_size": 32})
        floats = self.float_twin("floats", matrices)
        for path, choice in ((int4, "gptq"), (int4, "int4"), (int4, "auto"), (floats, "none"), (floats, "fp8")):
            self.embed(path, "--quantization", choice)
        for path, choice, words in (
                (int4, "awq", "--quantization awq needs a checkpoint that is quantized so, config.json says gptq: int4"),
                (int4, "none", "needs a checkpoint that is not quantized"),
                (int4, "fp8", "needs weights in that format or in floats"),
                (floats, "gptq", "config.json says none"),
                (floats, "int8", "--quantization must be auto, none, awq, gptq, compressed-tensors, int4 or fp8, is 'int8'")):
            result = subprocess.run([QUIVER, "embed", "--model", str(path), "--device", "cpu", "--quantization", choice, "a"],
                                    capture_output=True, text=True)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(words, result.stderr)

    def test_what_is_wrong_is_named(self):
        gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}
        down = "layers.1.mlp.down_proj"

        def make(n, k):
            linear = layouts.Int4(self.rng, n, k, 32, True, shuffled=True)
            return layouts.gptq(linear), linear.matrix()

        good, _ = self.quantized(make)

        def with_part(part, array):
            return {**good, f"{down}.{part}": array}

        def without(part):
            return {name: array for name, array in good.items() if name != f"{down}.{part}"}

        bad_scales = good[f"{down}.scales"].copy()
        bad_scales[3, 7] = np.nan
        crowded = good[f"{down}.g_idx"].copy()
        crowded[:] = 2
        outside = good[f"{down}.g_idx"].copy()
        outside[9] = 8
        cases = [
            (without("qweight"), gptq, ["NOT_FOUND", f"{down}.qweight", "[32, 128]"]),
            (without("g_idx"), gptq, ["NOT_FOUND", f"{down}.g_idx"]),
            (with_part("qweight", good[f"{down}.qweight"][:-1]), gptq, [f"{down}.qweight", "[32, 128]", "[31, 128]"]),
            (with_part("scales", good[f"{down}.scales"][:, :64]), gptq, [f"{down}.scales", "[8, 128]", "[8, 64]"]),
            (with_part("scales", bad_scales), gptq, ["DATA_LOSS", f"{down}.scales", "finite", "element 391"]),
            (with_part("qzeros", good[f"{down}.qzeros"].astype(np.int64)), gptq, [f"{down}.qzeros", "I32", "I64"]),
            (with_part("g_idx", outside), gptq, ["DATA_LOSS", f"{down}.g_idx", "from 0 to 7", "element 9 is 8"]),
            (with_part("g_idx", crowded), gptq, ["DATA_LOSS", f"{down}.g_idx", "32 inputs into each group"]),
            (good, {**gptq, "group_size": 64}, ["layers.0.self_attn.q_proj.qzeros", "[2, 16]", "[4, 16]"]),
            (good, {"quant_method": "awq", "bits": 4, "group_size": 32}, ["q_proj.qweight", "[128, 16]", "[16, 128]"]),
            (good, None, ["NOT_FOUND", "q_proj.weight"]),
            (good, {**gptq, "bits": 8}, ["UNIMPLEMENTED", "bits must be 4, is 8"]),
            (good, {**gptq, "group_size": 16}, ["UNIMPLEMENTED", "group_size must be 32, 64, 128, or -1", "is 16"]),
            (good, {**gptq, "checkpoint_format": "marlin"}, ["UNIMPLEMENTED", "checkpoint_format", "marlin"]),
            (good, {**gptq, "dynamic": {"-:.*down.*": {}}}, ["UNIMPLEMENTED", "dynamic must be absent"]),
            (good, {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}, ["version must be gemm", "gemv"]),
            (good, {"quant_method": "bitsandbytes"}, ["quant_method must be awq, gptq, fp8 or compressed-tensors",
                                                      "bitsandbytes"]),
            (good, {"quant_method": "fp8", "weight_block_size": [64, 64]}, ["weight_block_size must be [128,128]", "[64,64]"]),
            (good, {"quant_method": "fp8", "fmt": "e5m2"}, ["fmt must be e4m3", "e5m2"]),
            (good, {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}}},
             ["config_groups.group_0.weights", "8, int and int-quantized"]),
            (good, {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": {"num_bits": 4, "type": "float"}}}},
             ["4, float and nvfp4-pack-quantized"]),
            (good, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {
                "targets": ["re:("], "weights": {"num_bits": 4, "type": "int", "strategy": "channel"}}}}, ["targets", "regular expression"]),
            (good, {"quant_method": "compressed-tensors", "config_groups": {}}, ["config_groups must be"]),
        ]
        for i, (tensors, quantization, words) in enumerate(cases):
            with self.subTest(words):
                result, _ = self.dump(self.write(f"bad{i}", {**self.others(), **tensors}, quantization))
                self.assertEqual(result.returncode, 1, result.stdout)
                for word in words:
                    self.assertIn(word, result.stderr)

    def test_fp8_codes_that_are_no_numbers_are_found(self):
        def make(n, k):
            linear = layouts.Fp8(self.rng, n, k, (1, -1))
            return layouts.fp8(linear), linear.matrix()

        tensors, _ = self.quantized(make)
        tensors["layers.1.mlp.up_proj.weight"][3, 5] = 0xff
        path = self.write("nan", {**self.others(), **tensors}, {
            "quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}})
        result, _ = self.dump(path)
        self.assertEqual(result.returncode, 1)
        self.assertIn('DATA_LOSS', result.stderr)
        self.assertIn('tensor "layers.1.mlp.up_proj.weight" must have no NaN, element 389 is one', result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
