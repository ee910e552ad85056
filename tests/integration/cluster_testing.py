"""What the tests of the adapters share: documents, the index that `quiver index` makes of them, and a server that is killed and
comes back.

Usage of the tests: SCRIPT QUIVER_SERVER QUIVER [TEMPLATE]. Names of folders: QUIVER_DEFAULT_MODEL, QUIVER_TEST_DATA (Cranfield; without
it, made up documents). TEMPLATE says what of Cranfield's documents is embedded: their titles, unless it is '{text}'.
"""
import hashlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

import numpy as np
from pyarrow import parquet

import python_package
from running_server import ROOT, RestartableServer

SERVER, QUIVER = sys.argv[1:3]
FIELD = sys.argv[3].strip("{}") if len(sys.argv) > 3 else "title"
MODEL, DATA = os.environ.get("QUIVER_DEFAULT_MODEL"), os.environ.get("QUIVER_TEST_DATA")
SKIPPED = 77
KEY = "the-key-of-the-test"
FOLDER = tempfile.TemporaryDirectory()
WORK = pathlib.Path(FOLDER.name)


def prepare(package):
    """Makes the client's package importable, here and in workers that are started from here. Ends the script where `package` is not
    installed, or the model is not there."""
    for reason, there in (("QUIVER_DEFAULT_MODEL is not set", MODEL),
                          (f"{package} is not installed", importlib.util.find_spec(package))):
        if not there:
            print(f"skipped: {reason}")
            sys.exit(SKIPPED)
    python = python_package.use(WORK)
    os.environ["PYTHONPATH"] = f"{python_package.site_of(python)}:{pathlib.Path(__file__).parent}"


def read_documents():
    """{id: text}. Some have no text."""
    if DATA:
        with open(f"{DATA}/retrieval/cranfield/corpus.jsonl", encoding="utf-8") as lines:
            return {document["_id"]: document[FIELD] for document in map(json.loads, lines)}
    return {f"d{i}": "" if i % 500 == 250 else f"flow number {i} over a flat plate" for i in range(1400)}


class ClusterTest(unittest.TestCase):
    """Has `documents`, `server`, the `expected` vectors by id, and a folder `work` that cluster and test share."""

    @classmethod
    def setUpClass(cls):
        cls.work = WORK
        cls.documents = read_documents()
        # Clients take it from their environment, workers from that of the test.
        os.environ["QUIVER_API_KEY"] = KEY
        keys = WORK / "keys"
        keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} test\n")
        cls.server = RestartableServer(SERVER, "server", MODEL, WORK, "--api-keys", str(keys)).start()
        cls.addClassCleanup(cls.server.kill)
        cls.expected = cls.index()

    @classmethod
    def index(cls):
        source, output = cls.work / "documents.jsonl", cls.work / "index.fbin"
        source.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in cls.documents.items()))
        run = subprocess.run([QUIVER, "index", "--server", cls.server.grpc, "--input", source, "--id-field", "id", "--truncate",
                              "right", "--output", output], capture_output=True, text=True, check=False)
        # Documents without a text are rejects.
        assert run.returncode <= 1 and output.exists(), run.stderr
        ids = [json.loads(row)["id"] for row in output.with_suffix(".rows.jsonl").read_text().splitlines()]
        data = output.read_bytes()
        rows, dimensions = np.frombuffer(data, np.uint32, 2)
        cls.space = json.loads(output.with_suffix(".meta.json").read_text())["fingerprint"]
        return dict(zip(ids, np.frombuffer(data, np.float32, offset=8).reshape(rows, dimensions), strict=True))

    def expect_index(self, rows):
        """`rows` of (id, vector or None, error) have every document once, and the vectors of `quiver index` to the last bit."""
        # Without the difference of long lists, which takes minutes to make.
        self.assertTrue(sorted(row[0] for row in rows) == sorted(self.documents), rows[:3])
        for name, vector, error in rows:
            if name in self.expected:
                self.assertFalse(error, name)
                np.testing.assert_array_equal(np.asarray(vector, np.float32), self.expected[name], name)
            else:
                self.assertEqual(error, "INVALID_ARGUMENT: text: must not be empty", name)

    def expect_example(self, name, **environment):
        """The example embeds the documents of a file into Parquet."""
        vectors = self.work / name
        subprocess.run([sys.executable, ROOT / "tools/examples/python" / name, "--server", self.server.grpc,
                        self.work / "documents.jsonl", vectors], check=True, timeout=240,
                       env={**os.environ, **environment})
        table = parquet.read_table(vectors, columns=["id", "embedding", "error"]).to_pandas()
        self.expect_index(list(table.itertuples(index=False, name=None)))

    def restart_server(self):
        """Starts the server again when a worker has killed it (cluster_failures.py). The thread that does so ends then."""
        process = self.server.process
        (self.work / "server.pid").write_text(str(process.pid))

        def restart():
            process.wait()
            if (self.work / "server-killed").exists():
                self.server.start()

        thread = threading.Thread(target=restart, daemon=True)
        thread.start()
        return thread
