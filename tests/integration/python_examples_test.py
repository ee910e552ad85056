"""The examples of the Python package do what they say.

Usage: python_examples_test.py QUIVER_SERVER MAKE_TINY_MODEL
"""
import json
import os
import subprocess
import sys
import unittest

import numpy as np

import python_package
from running_server import ROOT, RestartableServer

SERVER, MAKE_TINY_MODEL = sys.argv[1:3]


class Examples(python_package.WithPackage):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = os.environ.get("QUIVER_DEFAULT_MODEL")
        cls.trained = model is not None
        if not cls.trained:
            model = cls.work / "model"
            subprocess.run([MAKE_TINY_MODEL, model, "--fixtures", f"{ROOT}/tests/fixtures"], check=True)
        cls.server = RestartableServer(SERVER, "server", model, cls.work)
        cls.addClassCleanup(cls.server.kill)
        cls.server.start()

    def example(self, name, *arguments, expect=0):
        run = subprocess.run([self.python, ROOT / "tools/examples/python" / name, "--server", self.server.grpc, *arguments],
                             capture_output=True, text=True, check=False, timeout=240)
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        return run

    def test_similar_sentences_have_similar_vectors(self):
        lines = self.example("similarity.py", "How do I reset my password?", "I forgot my password.",
                             "The recipe calls for flour.").stdout.splitlines()
        cosines = [float(line.split()[0]) for line in lines]
        self.assertEqual(cosines[0], 1.0)
        if self.trained:
            self.assertGreater(cosines[1], cosines[2] + 0.3)

    def test_a_file_becomes_an_array_with_a_row_a_line(self):
        texts, vectors = self.work / "texts.jsonl", self.work / "vectors.npy"
        texts.write_text("".join(json.dumps({"text": f"text {i}" if i != 7 else ""}) + "\n" for i in range(300)))
        run = self.example("jsonl_to_npy.py", str(texts), str(vectors), expect=1)
        self.assertIn("299 of 300", run.stdout)
        self.assertIn("line 8: INVALID_ARGUMENT: text: must not be empty", run.stderr)
        rows = np.load(vectors)
        self.assertEqual(np.flatnonzero(np.isnan(rows).any(axis=1)).tolist(), [7])
        np.testing.assert_allclose(np.linalg.norm(np.delete(rows, 7, axis=0), axis=1), 1, atol=1e-5)

    def test_queries_are_answered_while_documents_stream(self):
        run = self.example("many_at_once.py")
        self.assertIn("20 queries answered", run.stdout)
        self.assertIn("500 documents embedded", run.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
