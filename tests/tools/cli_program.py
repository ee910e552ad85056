#!/usr/bin/env python3
"""Drives the program `quiver` without a server: inputs, outputs, failing lines, exit codes.

    cli_program.py QUIVER MAKE_TINY_MODEL
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

import numpy

import cli_testing


class Embed(cli_testing.CliTest):
    def embed(self, *arguments, **more):
        return self.lines("embed", "--model", self.bert, *arguments, **more)

    def test_arguments_become_lines_in_order(self):
        found = self.embed("one", "two", "three")
        self.assertEqual([line["index"] for line in found], [0, 1, 2])
        for line in found:
            self.assertEqual(set(line), {"index", "embedding", "tokens"})
            self.assertAlmostEqual(float(numpy.linalg.norm(line["embedding"])), 1, places=5)
        self.assertEqual(len({json.dumps(line["embedding"]) for line in found}), 3)

    def test_every_way_in_gives_the_same_vectors(self):
        expected = [line["embedding"] for line in self.embed("one", "two")]
        text = self.file("in.txt", "one\r\ntwo")
        jsonl = self.file("in.jsonl", '{"text": "one", "id": "a"}\n\n{"id": 2, "text": "two", "more": []}\n')
        for arguments in (["--input", text], ["--input", jsonl], ["--input", text, "--threads", "1"]):
            self.assertEqual([line["embedding"] for line in self.embed(*arguments)], expected)
        self.assertEqual([line["embedding"] for line in self.embed("--input", "-", stdin="one\ntwo\n")], expected)
        self.assertEqual([line["id"] for line in self.embed("--input", "-", stdin=jsonl.read_bytes())], ["a", 2])

    def test_threads_are_at_most_the_cores_there_are(self):
        for command in (["embed", "text"], ["bench", "engine"]):
            run = self.run_quiver(*command, "--model", self.bert, "--threads", "1000", expect=2)
            self.assertRegex(run.stderr.decode(), r"--threads.*1000.* 1 to [0-9]+")

    def test_a_failing_line_is_told_and_the_others_go_on(self):
        stdin = b'{"id": "a", "text": "one"}\n{"id": "b", "text": ""}\nbroken\n{"id": "d", "text": "\xff"}\n{"id": "e", "text": "two"}\n'
        run = self.run_quiver("embed", "--model", self.bert, "--input", "-", stdin=stdin, expect=1)
        found = [json.loads(line) for line in run.stdout.splitlines()]
        self.assertEqual([line.get("id", line.get("index")) for line in found], ["a", "b", 2, 3, "e"])
        self.assertEqual(["error" in line for line in found], [False, True, True, True, False])
        self.assertEqual(found[1]["error"], {"code": "INVALID_ARGUMENT", "message": "text: must not be empty"})
        told = run.stderr.decode().splitlines()
        self.assertEqual(told[0], 'quiver: line 2 (id "b"): INVALID_ARGUMENT: text: must not be empty')
        self.assertIn("quiver: line 3: INVALID_ARGUMENT: line: must be JSON", told[1])
        self.assertIn("line 4: INVALID_ARGUMENT: line: invalid UTF-8 at byte", told[2])
        self.assertEqual(told[3], "quiver: 3 of 5 items failed")

    def test_npy_is_what_numpy_reads(self):
        out = self.dir / "out.npy"
        texts = [f"text {i}" for i in range(100)]
        run = self.run_quiver("embed", "--model", self.bert, "--input", "-", "--output", out, stdin="\n".join(texts))
        self.assertEqual(run.stdout, b"")
        array = numpy.load(out)
        self.assertEqual((array.dtype, array.shape), (numpy.float32, (100, 64)))
        expected = numpy.array([line["embedding"] for line in self.embed(*texts)], dtype=numpy.float32)
        numpy.testing.assert_array_equal(array, expected)
        self.assertEqual([path.name for path in self.dir.glob("out.npy*")], ["out.npy"])

    def test_npy_has_nan_where_a_line_failed(self):
        out = self.dir / "failed.npy"
        self.run_quiver("embed", "--model", self.bert, "--input", "-", "--output", out, stdin="one\n\ntwo\n", expect=1)
        self.assertEqual(numpy.isnan(numpy.load(out)).all(axis=1).tolist(), [False, True, False])

    def test_npy_of_nothing_has_no_rows(self):
        out = self.dir / "empty.npy"
        self.run_quiver("embed", "--model", self.bert, "--input", "-", "--output", out)
        self.assertEqual(numpy.load(out).shape, (0, 64))

    def test_options_change_the_vector(self):
        qwen = lambda *more: self.lines("embed", "--model", self.qwen3, "a", *more)[0]
        plain = numpy.array(qwen()["embedding"], dtype=numpy.float32)
        short = numpy.array(qwen("--dimensions", "32")["embedding"], dtype=numpy.float32)
        numpy.testing.assert_allclose(short, plain[:32] / numpy.linalg.norm(plain[:32]), rtol=1e-5)
        raw = numpy.array(qwen("--no-normalize")["embedding"], dtype=numpy.float32)
        self.assertGreater(abs(numpy.linalg.norm(raw) - 1), 1e-3)
        self.assertGreater(qwen("--instruction", "do")["tokens"], qwen()["tokens"])
        half = qwen("--output-type", "float16")["embedding"]
        numpy.testing.assert_array_equal(numpy.array(half, dtype=numpy.float32), plain.astype(numpy.float16).astype(numpy.float32))
        coded = qwen("--output-type", "int8")
        numpy.testing.assert_allclose(numpy.array(coded["embedding"]) * coded["scale"], plain, atol=coded["scale"] / 2 + 1e-7)
        self.assertEqual(qwen("--output-type", "binary")["embedding"], numpy.packbits(plain > 0).tolist())

    def test_a_long_text_is_cut_only_when_asked(self):
        long = "word " * 10000
        failed = self.embed(long, expect=1)[0]["error"]
        self.assertIn("must be at most", failed["message"])
        cut = self.embed("--truncate", "right", long)[0]
        self.assertTrue(cut["truncated"])

    def test_a_wrong_command_line_is_exit_code_2_and_says_what_is_allowed(self):
        for arguments, message in (
            ([], "texts"),
            (["--model", self.bert], "texts"),
            (["--model", self.bert, "--server", "a:1", "x"], "--model excludes --server"),
            (["x"], "--model DIR"),
            (["--model", self.bert, "--truncate", "up", "x"], "{none,right,left}"),
            (["--model", self.bert, "--dimensions", "0", "x"], "--dimensions"),
            (["--model", self.bert, "--dimensions", "65", "x"], "--dimensions: must be 64"),
            (["--model", self.bert, "--device", "gpu", "x"], "--device must be auto, cpu, cuda or cuda:N, is 'gpu'"),
            (["--model", self.bert, "--dtype", "int8", "x"], "--dtype must be bfloat16 or float16, is 'int8'"),
            (["--model", self.bert, "--memory-budget", "1.5", "x"], "--memory-budget must be bytes"),
            (["--model", self.bert, "--prompt", "no such", "x"], "--prompt: the model has no prompt"),
            (["--model", self.bert, "--output-format", "npy", "x"], "--output FILE"),
            (["--server", "nowhere", "x"], "HOST:PORT"),
            (["--model", self.bert, "--wait", "1", "x"], "--server"),
            (["--nonsense"], "--nonsense"),
        ):
            run = self.run_quiver("embed", *arguments, expect=2)
            self.assertIn(message, run.stderr.decode(), arguments)
            self.assertEqual(run.stdout, b"")

    def test_what_cannot_be_read_is_exit_code_1_and_named(self):
        run = self.run_quiver("embed", "--model", "/no/such", "x", expect=1)
        self.assertIn("/no/such", run.stderr.decode())
        run = self.run_quiver("embed", "--model", self.bert, "--input", "/no/such.txt", expect=1)
        self.assertIn("/no/such.txt", run.stderr.decode())
        run = self.run_quiver("embed", "--server", "127.0.0.1:1", "x", expect=1)
        self.assertIn("127.0.0.1:1", run.stderr.decode())

    def test_items_flow_while_the_pipe_is_open(self):
        with subprocess.Popen([self.quiver, "embed", "--model", self.bert, "--input", "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as run:
            for index in range(3):
                run.stdin.write(b"text\n")
                run.stdin.flush()
                self.assertEqual(json.loads(run.stdout.readline())["index"], index)
            run.stdin.close()
            self.assertEqual(run.wait(), 0)

    def test_a_reader_that_leaves_ends_the_run_quietly(self):
        # The input stays open: it is the closed output alone that ends the run.
        with subprocess.Popen([self.quiver, "embed", "--model", self.bert, "--input", "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            run.stdin.write(b"text\n")
            run.stdin.flush()
            run.stdout.readline()
            run.stdout.close()
            run.stdin.write(b"text\n")
            run.stdin.flush()
            self.assertEqual(run.wait(timeout=60), 1)
            self.assertEqual(run.stderr.read(), b"")

    def test_a_deadline_ends_the_run(self):
        # The input stays open; only the deadline can end this.
        with subprocess.Popen([self.quiver, "embed", "--model", self.bert, "--deadline", "0.5", "--input", "-"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            self.assertEqual(run.wait(timeout=60), 1)
            self.assertIn(b"deadline", run.stderr.read())

    @unittest.skipIf(os.environ.get("QUIVER_SANITIZE"), "sanitizers keep freed memory")
    def test_memory_does_not_grow_with_the_input(self):
        def peak(count):
            run = subprocess.Popen([self.quiver, "embed", "--model", self.bert, "--input", "-", "--output", os.devnull],
                                   stdin=subprocess.PIPE)
            for i in range(count):
                run.stdin.write(b"text %d\n" % i)
            run.stdin.close()
            _, status, usage = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(run.returncode, 0)
            return usage.ru_maxrss / 1024

        self.assertLess(peak(20000) - peak(5000), 16)


class Tokenize(cli_testing.CliTest):
    def test_a_closed_input_or_output_is_an_error_and_ends_the_run(self):
        def run(closed, *arguments):
            command = ["sh", "-c", f'exec "$@" {closed}', "sh", self.quiver, "tokenize", "--model", self.bert, *arguments]
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)

        found = run("<&-", "--input", "-")
        self.assertEqual(found.returncode, 1)
        self.assertIn(b"standard input: Bad file descriptor", found.stderr)
        found = run(">&-", "one")
        self.assertEqual(found.returncode, 1)
        self.assertIn(b"standard output: Bad file descriptor", found.stderr)
        self.assertEqual(run("<&- 2>&-", "one").returncode, 0)

    def test_ids_are_those_of_the_tokenizers_wheel(self):
        import tokenizers

        texts = ["Hello, world!", "naïve café", "  two  spaces", "日本語 text", "don't", "a" * 50]
        jsonl = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
        for model in (self.bert, self.qwen3):
            wheel = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
            wheel.no_truncation()
            wheel.no_padding()
            expected = [{"id": i, "ids": wheel.encode(text).ids} for i, text in enumerate(texts)]
            self.assertEqual(self.lines("tokenize", "--model", model, "--input", "-", stdin=jsonl), expected)

    def test_a_failing_line_is_told_and_the_others_go_on(self):
        found = self.lines("tokenize", "--model", self.bert, "--input", "-", stdin="one\n\ntwo\n", expect=1)
        self.assertEqual(["ids" in line for line in found], [True, False, True])

    def test_an_instruction_is_part_of_the_ids(self):
        whole = self.lines("tokenize", "--model", self.qwen3, "Instruct: find\nQuery:a")[0]["ids"]
        self.assertEqual(self.lines("tokenize", "--model", self.qwen3, "--instruction", "find", "a")[0]["ids"], whole)

    def test_weights_are_not_needed(self):
        folder = self.dir / "no_weights"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_bytes((self.bert / name).read_bytes())
        self.assertEqual(len(self.lines("tokenize", "--model", folder, "one")), 1)


class About(cli_testing.CliTest):
    def test_info_describes_a_model_without_running_it(self):
        info = json.loads(self.run_quiver("info", "--model", self.qwen3, "--json").stdout)
        self.assertEqual((info["architecture"], info["hidden_size"], info["pooling"]), ("qwen3", 64, "last"))
        self.assertEqual(len(info["fingerprint"]), 32)
        self.assertGreater(info["limits"]["max_input_tokens"], 0)
        table = self.run_quiver("info", "--model", self.qwen3).stdout.decode()
        self.assertIn(info["fingerprint"], table)
        quick = json.loads(self.run_quiver("info", "--model", self.qwen3, "--json", "--headers-only").stdout)
        self.assertEqual(quick["fingerprint"], "")

    def test_doctor_finds_a_good_model_good(self):
        report = json.loads(self.run_quiver("doctor", "--json", "--model", self.bert).stdout)
        self.assertIn(report["verdict"], ("ok", "warning"))
        verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
        for name in ("cpu", "memory", "nvidia driver", "cublas", "port 50051", "port 30000", "nvcc"):
            self.assertIn(name, verdicts)
        for name in ("model config", "model tokenizer", "model weights", "model memory"):
            self.assertEqual(verdicts[name], "ok")

    def test_doctor_says_what_fits_on_a_gpu_that_is_not_here(self):
        for memory in ("0.5", "much"):
            run = self.run_quiver("doctor", "--model", self.qwen3, "--memory", memory, expect=2)
            self.assertIn(f"--memory must be bytes (such as 12GiB), is '{memory}'", run.stderr.decode())
        model = os.environ.get("QUIVER_DEFAULT_MODEL")
        if not model:
            self.skipTest("QUIVER_DEFAULT_MODEL is not set")

        def checks(memory):
            run = subprocess.run([self.quiver, "doctor", "--json", "--model", model, "--memory", memory], capture_output=True,
                                 timeout=120, check=False)
            report = json.loads(run.stdout)
            return run.returncode, {check["name"]: check for check in report["checks"] if check["name"].startswith("fits")}

        code, fits = checks("16GiB")
        if "built without CUDA" in fits["fits as it is"]["detail"]:
            self.assertEqual((code, fits["fits as it is"]["verdict"]), (1, "failure"))
            return
        self.assertEqual((code, fits["fits as it is"]["verdict"]), (0, "ok"))
        self.assertRegex(fits["fits as it is"]["detail"], r"^without flags: inputs of 256 tokens, batches of \d+; .* \(weights ")
        code, fits = checks("1MiB")
        self.assertEqual((code, {check["verdict"] for check in fits.values()}), (1, {"failure"}))
        self.assertIn("too little", fits["fits int4"]["detail"])

    def test_doctor_says_what_is_wrong_with_a_model(self):
        folder = self.dir / "broken"
        folder.mkdir()
        for path in self.bert.glob("*.json"):
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "model.safetensors").write_bytes((self.bert / "model.safetensors").read_bytes()[:-1])
        run = self.run_quiver("doctor", "--model", folder, expect=1)
        self.assertIn("model.safetensors", run.stdout.decode())
        self.assertIn("failure", run.stdout.decode())
        self.assertIn("->", run.stdout.decode())

    def test_doctor_tells_of_layers_that_the_config_does_not_count(self):
        folder = self.dir / "further"
        shutil.copytree(self.bert, folder)
        config = json.loads((folder / "config.json").read_text())
        config["num_hidden_layers"] -= 1
        (folder / "config.json").write_text(json.dumps(config))
        run = self.run_quiver("doctor", "--model", folder, expect=1)
        self.assertIn(f"num_hidden_layers is {config['num_hidden_layers']}", run.stdout.decode())

    def test_help_and_version_go_to_standard_output(self):
        self.assertRegex(self.run_quiver("--version").stdout.decode(), r"^quiver \d+\.\d+\.\d+\n$")
        overview = self.run_quiver("help").stdout.decode()
        for command in ("embed", "tokenize", "info", "doctor"):
            self.assertIn(command, overview)
            self.assertIn(b"--model", self.run_quiver("help", command).stdout)
            self.assertEqual(self.run_quiver(command, "--help").stdout, self.run_quiver("help", command).stdout)
        self.assertIn("no command 'x'", self.run_quiver("help", "x", expect=2).stderr.decode())
        self.run_quiver(expect=2)
        self.assertIn("no command or flag 'nope'", self.run_quiver("nope", expect=2).stderr.decode())


if __name__ == "__main__":
    # As a shell leaves it, which Python does not.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    cli_testing.main(quiver=sys.argv[1], make_tiny_model=sys.argv[2])
