"""`quiver index` against a real server: killed and resumed, with bad documents, cut into chunks, from every kind of input.

Usage: index_test.py QUIVER_SERVER QUIVER [KILLS]. Names of folders: QUIVER_DEFAULT_MODEL.
"""
import gzip
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import numpy as np
from running_server import RestartableServer

SERVER, QUIVER = sys.argv[1:3]
KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
MODEL = os.environ.get("QUIVER_DEFAULT_MODEL")
DOCUMENTS = 1000
WORDS = ("the of wing flow pressure plate heat boundary layer supersonic model theory small number body cone shock wave "
         "edge velocity temperature surface".split())


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 60))) + "."


class IndexTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = pathlib.Path(work.name)
        rng = random.Random(1)
        # Every hundredth has no text.
        cls.documents = [{"_id": f"d{i}", "title": f"number {i}", "text": "" if i % 100 == 50 else text(rng)}
                         for i in range(DOCUMENTS)]
        cls.input = cls.work / "documents.jsonl"
        cls.input.write_text("".join(json.dumps(d) + "\n" for d in cls.documents))
        cls.server = RestartableServer(SERVER, "server", MODEL, cls.work).start()
        cls.addClassCleanup(cls.server.kill)
        cls.whole = cls.work / "whole.f16bin"
        run = cls.index(cls.whole)
        assert run.returncode == 1, run.stderr
        assert f"rejected: see {cls.work / 'whole.rejects.jsonl'}" in run.stderr, run.stderr
        cls.summary = json.loads(run.stdout)

    @classmethod
    def command(cls, output, *flags, source=None):
        return [QUIVER, "index", "--server", cls.server.grpc, "--input", str(source or cls.input), "--id-field", "_id", "--text",
                "{text}", "--output", str(output), "--json", *map(str, flags)]

    @classmethod
    def index(cls, output, *flags, source=None, **options):
        return subprocess.run(cls.command(output, *flags, source=source), capture_output=True, text=True, timeout=600, **options)

    @staticmethod
    def rows(output):
        return [json.loads(line) for line in output.with_suffix(".rows.jsonl").read_text().splitlines()]

    @staticmethod
    def vectors(output):
        data = output.read_bytes()
        count, dimensions = np.frombuffer(data, np.uint32, 2)
        return np.frombuffer(data, np.float16, offset=8).reshape(count, dimensions)

    def expect_whole(self, output):
        """The index is that of the run that was left alone, byte for byte."""
        for suffix in ".f16bin", ".rows.jsonl", ".rejects.jsonl":
            self.assertEqual(output.with_suffix(suffix).read_bytes(), self.whole.with_suffix(suffix).read_bytes(), suffix)
        self.assertFalse(output.with_suffix(".journal").exists())

    def test_one_bad_document_in_a_hundred_leaves_the_others(self):
        good = [d for d in self.documents if d["text"]]
        rows = self.rows(self.whole)
        self.assertEqual([r["id"] for r in rows], [d["_id"] for d in good])
        self.assertEqual([r["text"] for r in rows], [d["text"] for d in good])
        vectors = self.vectors(self.whole).astype(np.float32)
        self.assertEqual(len(vectors), len(good))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
        rejects = [json.loads(line) for line in self.whole.with_suffix(".rejects.jsonl").read_text().splitlines()]
        self.assertEqual([r["id"] for r in rejects], [d["_id"] for d in self.documents if not d["text"]])
        for reject in rejects:
            self.assertEqual((reject["field"], reject["code"]), ("text", "INVALID_ARGUMENT"), reject)
        self.assertEqual((self.summary["rows"], self.summary["rejects"]), (len(good), len(rejects)))

    def test_vectors_are_those_that_embed_gives(self):
        texts = [d["text"] for d in self.documents[:20]]
        run = subprocess.run([QUIVER, "embed", "--server", self.server.grpc, "--output-format", "jsonl", *texts], check=True,
                             capture_output=True, text=True)
        want = np.array([json.loads(line)["embedding"] for line in run.stdout.splitlines()], np.float32)
        np.testing.assert_array_equal(self.vectors(self.whole)[:20], want.astype(np.float16))

    def test_killed_anywhere_a_run_goes_on_and_ends_as_if_it_had_not_been(self):
        rng = random.Random(int.from_bytes(os.urandom(4), "little"))
        output = self.work / "killed.f16bin"
        kills = 0
        while True:
            process = subprocess.Popen(self.command(output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if kills < KILLS:
                time.sleep(rng.uniform(0, 2))
                who = kills % 3
                if who != 0:
                    self.server.kill()
                if who != 1:
                    process.kill()
                kills += 1
                if who != 0:
                    self.server.start()
            _, errors = process.communicate(timeout=600)
            if process.returncode != 1:
                self.assertEqual(process.returncode, -signal.SIGKILL, errors)
                continue
            self.expect_whole(output)
            if kills == KILLS:
                break
            # It was done before it had been killed often enough.
            for part in self.work.glob("killed.*"):
                part.unlink()
        again = self.index(output)
        self.assertIn("is complete already", again.stderr)
        self.expect_whole(output)

    def test_a_full_disk_stops_a_run_and_room_lets_it_go_on(self):
        output = self.work / "full.f16bin"
        limited = ["prlimit", "--fsize=200000", *self.command(output)]
        run = subprocess.run(limited, capture_output=True, text=True, timeout=600)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(str(self.work / "full"), run.stderr)
        self.assertEqual(self.index(output).returncode, 1)
        self.expect_whole(output)

    def test_another_run_does_not_go_on_with_this_ones_output(self):
        output = self.work / "other.f16bin"
        process = subprocess.Popen(self.command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = output.with_suffix(".journal")
        while not (journal.exists() and journal.stat().st_size > 0):
            self.assertIsNone(process.poll())
        process.kill()
        process.wait()
        run = self.index(output, "--truncate", "left")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("truncate", run.stderr)
        self.assertEqual(self.index(output, "--truncate", "left", "--overwrite").returncode, 1)

    def test_an_output_never_replaces_its_input(self):
        source = self.work / "precious.rows.jsonl"
        source.write_text('{"_id": "1", "text": "a"}\n')
        for output in source, self.work / "precious.fbin":
            run = self.index(output, "--overwrite", source=source)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn("would replace --input", run.stderr)
        self.assertEqual(source.read_text(), '{"_id": "1", "text": "a"}\n')

    def test_an_input_that_was_written_since_is_another(self):
        source = self.work / "changing.jsonl"
        source.write_text('{"_id": "1", "text": "a"}\n')
        output = self.work / "changing-index.fbin"
        self.assertEqual(self.index(output, source=source).returncode, 0)
        source.write_text('{"_id": "1", "text": "b"}\n')
        run = self.index(output, source=source)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("is of a run that was not this one: input was", run.stderr)

    def test_a_damaged_journal_is_told_and_loses_nothing(self):
        output = self.work / "damaged.f16bin"
        process = subprocess.Popen(self.command(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (output.exists() and output.stat().st_size > 10_000):
            self.assertIsNone(process.poll())
        process.kill()
        process.wait()
        journal, before = output.with_suffix(".journal"), output.read_bytes()
        journal.write_bytes(b"x" + journal.read_bytes()[1:])
        run = self.index(output)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("is damaged", run.stderr)
        self.assertEqual(output.read_bytes(), before)
        self.assertEqual(self.index(output, "--overwrite").returncode, 1)
        self.expect_whole(output)

    def test_every_input_gives_the_same_index(self):
        plain = self.input.read_bytes()
        (self.work / "d.jsonl.gz").write_bytes(gzip.compress(plain))
        zst = self.work / "d.jsonl.zst"
        sources = [(self.work / "d.jsonl.gz", {})]
        if subprocess.run(["sh", "-c", "command -v zstd"], stdout=subprocess.DEVNULL).returncode == 0:
            subprocess.run(["zstd", "-q", self.input, "-o", zst], check=True)
            sources.append((zst, {}))
        for n, (source, _) in enumerate(sources):
            output = self.work / f"source{n}.f16bin"
            self.assertEqual(self.index(output, source=source).returncode, 1)
            self.assertEqual(output.read_bytes(), self.whole.read_bytes(), source)
        piped = self.work / "piped.f16bin"
        run = subprocess.run(self.command(piped, "--input-format", "jsonl", source="-"), input=self.input.read_text(), text=True,
                             capture_output=True, timeout=600)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertEqual(piped.read_bytes(), self.whole.read_bytes())

    def test_shards_have_each_document_once(self):
        ids = []
        for shard in range(3):
            output = self.work / f"shard{shard}.f16bin"
            flags = "--shard", f"{shard}/3", "--allow-rejects"
            # As a scheduler does it that did not see the end of the first.
            for said in "rejected", "is complete already":
                run = self.index(output, *flags)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertIn(said, run.stderr)
            ids += [r["id"] for r in self.rows(output)]
        self.assertEqual(sorted(ids), sorted(d["_id"] for d in self.documents if d["text"]))

    def test_long_documents_are_cut_where_sentences_end(self):
        source = self.work / "long.jsonl"
        rng = random.Random(2)
        long = " ".join(text(rng).capitalize() for _ in range(40)) + "\n\n" + "第一句话。第二句话很长，" * 30 + "第三句。"
        source.write_text(json.dumps({"_id": "long", "text": long}) + "\n")
        output = self.work / "long.f16bin"
        run = self.index(output, "--chunk-tokens", 64, "--chunk-overlap", 16, "--tokenizer", MODEL, source=source)
        self.assertEqual(run.returncode, 0, run.stderr)
        rows = self.rows(output)
        self.assertGreater(len(rows), 5)
        data = long.encode()
        self.assertEqual([r["chunk"] for r in rows], list(range(len(rows))))
        for row in rows:
            self.assertEqual(data[row["begin"]:row["end"]].decode(), row["text"])
        for before, after in zip(rows, rows[1:]):
            self.assertLess(before["begin"], after["begin"])
            # Nothing but blanks between.
            self.assertEqual(data[before["end"]:max(after["begin"], before["end"])].strip(), b"")
        self.assertEqual((rows[0]["begin"], rows[-1]["end"]), (0, len(data)))

    def test_no_chunk_lies_within_the_one_before_however_large_the_overlap(self):
        source = self.work / "overlap.jsonl"
        rng = random.Random(3)
        whole = "\n\n".join(" ".join(text(rng).capitalize() for _ in range(3)) for _ in range(6))
        source.write_text(json.dumps({"_id": "overlap", "text": whole}) + "\n")
        for tokens, overlap in (8, 4), (32, 24):
            output = self.work / f"overlap{tokens}.f16bin"
            run = self.index(output, "--chunk-tokens", tokens, "--chunk-overlap", overlap, "--tokenizer", MODEL, source=source)
            self.assertEqual(run.returncode, 0, run.stderr)
            rows = self.rows(output)
            for before, after in zip(rows, rows[1:]):
                self.assertLess(before["begin"], after["begin"])
                self.assertLess(before["end"], after["end"])

    def test_wrong_flags_name_themselves(self):
        for flags, said in ((["--shard", "3/3"], "--shard"), (["--chunk-tokens", "10"], "--tokenizer"),
                            (["--text", "{text"], "--text"), (["--table", "t"], "--table"), (["--output-type", "int8"], "--output-type")):
            run = self.index(self.work / "x.f16bin", *flags)
            self.assertEqual(run.returncode, 2, (flags, run.stderr))
            self.assertIn(said, run.stderr)
        run = self.index(self.work / "x.parquet")
        self.assertEqual(run.returncode, 2)
        self.assertIn(".fbin", run.stderr)


if __name__ == "__main__":
    if not MODEL:
        print("skipped: QUIVER_DEFAULT_MODEL is not set")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
