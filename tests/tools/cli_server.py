#!/usr/bin/env python3
"""Drives the program `quiver` against a running server.

    cli_server.py QUIVER MAKE_TINY_MODEL QUIVER_SERVER
"""
import json
import pathlib
import re
import subprocess
import sys
import time
import xml.dom.minidom

import cli_testing

FIRST_EMBEDDING = pathlib.Path(__file__).parents[2] / "tools/first-embedding"


class Server(cli_testing.CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ports = cls.dir / "ports"
        cls.process = subprocess.Popen([cls.quiver_server, "--model", cls.qwen3, "--grpc-port", "0", "--http-port", "0",
                                        "--port-file", ports], stderr=subprocess.DEVNULL)
        while not ports.exists() or not ports.read_text().endswith("\n"):
            if cls.process.poll() is not None:
                raise RuntimeError(f"the server ended with {cls.process.returncode}")
            time.sleep(0.02)
        cls.address = dict(line.split("=") for line in ports.read_text().split())["grpc"]
        # The ports are bound before the model is loaded.
        subprocess.run([cls.quiver, "info", "--server", cls.address, "--wait", "60"], stdout=subprocess.DEVNULL, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        cls.process.wait(timeout=60)
        super().tearDownClass()

    def both(self, command, *arguments, **more):
        """What the server and the engine in the process give; equal to the bit on the CPU."""
        remote = self.run_quiver(command, "--server", self.address, *arguments, **more)
        local = self.run_quiver(command, "--model", self.qwen3, *arguments, **more)
        self.assertEqual(remote.stdout, local.stdout)
        self.assertEqual(remote.stderr, local.stderr)
        return remote

    def test_vectors_are_those_of_the_engine_in_the_process(self):
        self.both("embed", "one", "two", "three")
        self.both("embed", "one", "--no-normalize", "--dimensions", "32")
        for output_type in ("float16", "bfloat16", "int8", "binary"):
            self.both("embed", "one", "--output-type", output_type)
        self.both("embed", "one", "--instruction", "find")
        lines = "".join(json.dumps({"id": f"n{i}", "text": f"text {i} " + "word " * (i % 50)}) + "\n" for i in range(2000))
        self.assertEqual(len(self.both("embed", "--input", "-", stdin=lines).stdout.splitlines()), 2000)
        for name in ("remote.npy", "local.npy"):
            where = ["--server", self.address] if name.startswith("remote") else ["--model", self.qwen3]
            self.run_quiver("embed", *where, "--input", "-", "--output", self.dir / name, stdin="one\ntwo\n")
        self.assertEqual((self.dir / "remote.npy").read_bytes(), (self.dir / "local.npy").read_bytes())

    def test_failing_lines_fail_alike(self):
        stdin = b'{"id": 1, "text": ""}\n{"id": 2, "text": "two"}\nbroken\n{"text": "\xff"}\n' + json.dumps({"text": "word " * 9000}).encode()
        run = self.both("embed", "--input", "-", stdin=stdin, expect=1)
        self.assertEqual([b"embedding" in line for line in run.stdout.splitlines()], [False, True, False, False, False])
        self.both("tokenize", "--input", "-", stdin=stdin, expect=1)

    def test_ids_are_those_of_the_engine_in_the_process(self):
        self.both("tokenize", "--input", "-", stdin="".join(f"text {i}\n" for i in range(1000)))
        self.both("tokenize", "one", "--instruction", "find")

    def test_a_refused_option_is_exit_code_2(self):
        for arguments, message in ((["--dimensions", "65"], "--dimensions: must be"), (["--prompt", "x"], "--prompt: ")):
            run = self.both("embed", "one", *arguments, expect=2)
            self.assertIn(message, run.stderr.decode())

    def test_info_is_what_the_directory_says_and_more(self):
        remote = json.loads(self.run_quiver("info", "--server", self.address, "--json").stdout)
        local = json.loads(self.run_quiver("info", "--model", self.qwen3, "--json").stdout)
        for key in ("model", "architecture", "parameters", "pooling", "weight_type", "dimensions", "prompts", "fingerprint"):
            self.assertEqual(remote[key], local[key], key)
        self.assertIn("cpu", remote["device"])
        self.assertIn(remote["fingerprint"], self.run_quiver("info", "--server", self.address).stdout.decode())

    def test_bench_serve_counts_what_the_server_did(self):
        report, chart = self.dir / "report.json", self.dir / "chart.svg"
        run = self.run_quiver("bench", "serve", "--server", self.address, "--workload", "name=q,rate=100,even,tokens=8-16,items=2",
                              "--workload", "name=bulk,stream,outstanding=4,tokens=5", "--sweep", "50,100", "--seconds", "0.5",
                              "--warm-up", "0.1", "--json", report, "--svg", chart)
        self.assertEqual(sum(line.startswith(b"q ") for line in run.stdout.splitlines()), 2)
        runs = json.loads(report.read_text())["runs"]
        self.assertEqual([run["workloads"][0]["rate"] for run in runs], [50, 100])
        query, bulk = runs[1]["workloads"]
        # Half a second of one every 10 ms.
        self.assertIn(query["requests"], (49, 50, 51))
        self.assertEqual(query["latency_ms"]["count"], query["requests"])
        self.assertLessEqual(query["latency_ms"]["p50"], query["latency_ms"]["p99"])
        self.assertEqual(query["failed_items"], {})
        self.assertGreater(bulk["items_per_s"], 0)
        self.assertAlmostEqual(bulk["tokens_per_s"], 5 * bulk["items_per_s"])
        self.assertEqual(xml.dom.minidom.parse(str(chart)).documentElement.tagName, "svg")

    def test_a_wrong_workload_is_exit_code_2(self):
        for arguments, message in ((["--workload", "rate=0"], "--workload 'rate=0': rate: must be"),
                                   (["--workload", "outstanding=1", "--sweep", "1,2"], "--sweep: ")):
            run = self.run_quiver("bench", "serve", "--server", self.address, *arguments, expect=2)
            self.assertIn(message, run.stderr.decode())

    def test_a_deadline_ends_the_run(self):
        with subprocess.Popen([self.quiver, "embed", "--server", self.address, "--deadline", "0.5", "--input", "-"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            # The input stays open; only the deadline can end this.
            self.assertEqual(run.wait(timeout=60), 1)
            self.assertIn(b"eadline", run.stderr.read())

    def test_search_ranks_an_index_and_refuses_one_of_another_space(self):
        texts = ["one", "two", "three"]
        vectors = self.dir / "index.npy"
        self.run_quiver("embed", "--server", self.address, "--output", vectors, *texts)
        self.file("index.rows.jsonl", "".join(json.dumps({"id": f"d{i}", "chunk": 0, "text": t}) + "\n" for i, t in enumerate(texts)))
        info = self.run_quiver("info", "--server", self.address, "--json").stdout.decode()
        fingerprint = re.search(r'"fingerprint": *"([^"]+)"', info)[1]
        meta = {"fingerprint": fingerprint, "dimensions": 64, "rows": 3}
        self.file("index.meta.json", json.dumps(meta))
        search = ["search", "--index", vectors, "--server", self.address]
        found = self.lines(*search, "--json", "two", "three")
        self.assertEqual([[hit["id"] for hit in line["hits"]][0] for line in found], ["d1", "d2"])
        self.assertAlmostEqual(found[0]["hits"][0]["score"], 1, places=5)
        run = self.run_quiver(*search, "--trec", "--top", "1", "--input", "-", stdin='{"id": "q", "text": "one"}\n')
        self.assertRegex(run.stdout.decode(), r"\Aq Q0 d0 1 [01]\.\d+ quiver\n\Z")
        self.assertIn("line 1", self.run_quiver(*search, "--input", "-", stdin="\ntwo\n", expect=1).stderr.decode())
        self.file("index.meta.json", json.dumps({**meta, "fingerprint": "another"}))
        message = self.run_quiver(*search, "two", expect=1).stderr.decode()
        self.assertIn("another", message)
        self.assertIn(fingerprint, message)
        self.file("index.meta.json", json.dumps({**meta, "rows": 4}))
        self.assertIn("says 4 rows", self.run_quiver(*search, "two", expect=1).stderr.decode())

    def test_first_embedding_shows_similar_sentences(self):
        run = subprocess.run([sys.executable, FIRST_EMBEDDING, self.quiver, self.address], capture_output=True, text=True, check=True)
        self.assertIn("64 dimensions, norm 1.0000", run.stdout)


if __name__ == "__main__":
    cli_testing.main(quiver=sys.argv[1], make_tiny_model=sys.argv[2], quiver_server=sys.argv[3])
