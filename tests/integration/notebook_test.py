"""The notebook that verifies a deployment runs from top to bottom on the default model, sees what quantization costs it, and
fails where a check does.

Usage: notebook_test.py QUIVER_SERVER
"""
import json
import os
import re
import subprocess
import sys
import unittest

import python_package
from running_server import ROOT, Server

SERVER = sys.argv[1]
MODEL = os.environ.get("QUIVER_DEFAULT_MODEL")
NOTEBOOK = ROOT / "tools/notebooks/verify.ipynb"


class Notebook(python_package.WithPackage):
    def run_notebook(self, name, *server_flags, **environment):
        """Its exit code, what it printed, and how many pictures it made."""
        work = self.work / name
        work.mkdir()
        with Server(SERVER, MODEL, work, "--device", "cpu", *server_flags) as server:
            own = {key: value for key, value in os.environ.items() if not key.startswith("QUIVER_")}
            run = subprocess.run(
                [self.python, ROOT / "tools/notebooks/run.py", "--output", work / "copy.ipynb", "--pictures", work / "pictures",
                 NOTEBOOK], capture_output=True, text=True, timeout=400, check=False,
                env={**own, "QUIVER_GRPC_ADDRESS": server.grpc, "QUIVER_SECONDS": "0.05",
                     "QUIVER_HTTP_URL": f"http://{server.await_address('http')}", **environment})
        self.assertTrue((work / "copy.ipynb").exists(), run.stderr)
        return run.returncode, run.stdout + run.stderr, len(list((work / "pictures").glob("*.png")))

    def test_it_passes_on_the_default_model_and_tells_a_quantized_one(self):
        reference = str(self.work / "reference.npz")
        code, text, pictures = self.run_notebook("plain", QUIVER_REFERENCE_OUT=reference)
        self.assertEqual((code, pictures), (0, 2), text)
        self.assertIn("14 of 14 checks passed", text)
        self.assertIn("skipped: QUIVER_REFERENCE names neither", text)

        code, text, pictures = self.run_notebook("quantized", "--quantization", "fp8", QUIVER_REFERENCE=reference,
                                                 QUIVER_MIN_COSINE="1.5")
        self.assertEqual((code, pictures), (1, 3), text)
        self.assertIn("the reference is of another vector space", text)
        self.assertIn("14 of 15 checks passed", text)
        mean, = re.findall(r"FAILED  the mean cosine to the reference is at least 1.5: (\S+),", text)
        self.assertGreater(float(mean), 0.99)
        self.assertLess(float(mean), 1)

    def test_it_is_stored_without_outputs(self):
        for cell in json.loads(NOTEBOOK.read_text())["cells"]:
            self.assertFalse(cell.get("outputs") or cell.get("execution_count"), "run it by tools/notebook, which writes a copy")


if __name__ == "__main__":
    if MODEL is None:
        print("skipped: QUIVER_DEFAULT_MODEL is not set (the folder of all-MiniLM-L6-v2)")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[2:], verbosity=2)
