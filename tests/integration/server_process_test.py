#!/usr/bin/env python3
"""The process quiver-server as an operator meets it: ports, phases, signals, exit codes, flags from everywhere.

Usage: server_process_test.py QUIVER_SERVER MAKE_TINY_MODEL FIXTURES
"""
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SERVER, MAKE_TINY_MODEL, FIXTURES = sys.argv[1:4]
# For a process under a sanitizer on a busy machine.
PATIENCE = 60


class Process:
    """A running server; `ports` are those of its port file."""

    def __init__(self, directory, *args, env=None, model=None):
        self.port_file = os.path.join(directory, "ports")
        if os.path.exists(self.port_file):
            os.remove(self.port_file)
        self.log_path = os.path.join(directory, "log")
        command = [SERVER, "--port-file", self.port_file, *args]
        if model is not None:
            command += ["--model", model]
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, **(env or {})})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def log(self):
        with open(self.log_path) as log:
            return log.read()

    def wait_for(self, what, condition):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if condition():
                return
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode} before {what}:\n{self.log()}")
            time.sleep(0.01)
        raise AssertionError(f"no {what} after {PATIENCE} s:\n{self.log()}")

    def wait_serving(self):
        self.wait_for("port file", lambda: os.path.exists(self.port_file))
        with open(self.port_file) as file:
            lines = dict(line.rstrip("\n").split("=", 1) for line in file)
        self.grpc, self.http = lines["grpc"], lines["http"]
        self.wait_for("health", lambda: self.get("/health")[0] == 200)
        return self

    def get(self, path):
        connection = http.client.HTTPConnection(self.http, timeout=PATIENCE)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def exit_code(self):
        return self.process.wait(timeout=PATIENCE)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.exit_code()


class ServerProcessTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.model = os.path.join(cls.temporary.name, "tiny-model")
        subprocess.run([MAKE_TINY_MODEL, cls.model, "--fixtures", FIXTURES], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def setUp(self):
        self.directory = tempfile.mkdtemp(dir=self.temporary.name)

    def start(self, *args, **kwargs):
        kwargs.setdefault("model", self.model)
        process = Process(self.directory, "--grpc-port=0", "--http-port=0", *args, **kwargs)
        self.addCleanup(process.__exit__)
        return process

    def run_to_end(self, *args, env=None):
        return subprocess.run(
            [SERVER, *args], env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=PATIENCE
        )

    def test_serves_on_free_ports_that_the_port_file_tells(self):
        server = self.start().wait_serving()
        self.assertEqual(server.get("/health"), (200, '{"status": "healthy"}'))
        self.assertEqual(server.get("/livez")[0], 200)
        self.assertEqual(server.get("/readyz")[0], 200)
        self.assertIn("quiver_serving_phase", server.get("/metrics")[1])
        host, port = server.grpc.split(":")
        self.assertEqual(host, "127.0.0.1")
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        self.assertIn(f"grpc={server.grpc}", server.log())

    def test_sigterm_and_sigint_end_cleanly(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.start().wait_serving() as server:
                self.assertEqual(server.stop(number), 0, server.log())
                self.assertIn("INFO stopped\n", server.log())

    def test_sigterm_while_loading_ends_cleanly(self):
        server = self.start()
        server.wait_for("port file", lambda: os.path.exists(server.port_file))
        self.assertEqual(server.stop(), 0, server.log())

    def test_second_signal_ends_at_once(self):
        server = self.start().wait_serving()
        host, port = server.http.split(":")
        # A request that has begun is waited for, though not for long.
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\n")
            server.wait_for("connection", lambda: "quiver_http_connections 2" in server.get("/metrics")[1])
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("draining", lambda: "draining" in server.log())
            server.process.send_signal(signal.SIGINT)
            self.assertEqual(server.exit_code(), 128 + signal.SIGINT, server.log())

    def test_slow_client_does_not_spoil_the_drain(self):
        server = self.start().wait_serving()
        host, port = server.http.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\n")
            self.assertEqual(server.stop(), 0, server.log())

    def test_client_that_goes_away_in_the_middle_does_no_harm(self):
        server = self.start().wait_serving()
        host, port = server.http.split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        self.assertEqual(server.get("/health")[0], 200)

    def test_port_in_use_is_named(self):
        first = self.start().wait_serving()
        for door, address in (("grpc", first.grpc), ("http", first.http)):
            other = {"grpc": "http", "http": "grpc"}[door]
            result = self.run_to_end(
                "--model", self.model, f"--{door}-port", address.split(":")[1], f"--{other}-port", "0"
            )
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(address, result.stderr)
            self.assertIn("Address already in use", result.stderr)

    def test_model_that_cannot_be_loaded_is_named(self):
        empty = os.path.join(self.directory, "empty")
        os.mkdir(empty)
        for model, code, says in (
            ("/nonexistent/model", 2, "cannot start"),
            (empty, 1, "cannot load the model"),
        ):
            result = self.run_to_end("--model", model, "--grpc-port=0", "--http-port=0")
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(says, result.stderr)
            self.assertIn(model, result.stderr)

    def test_wrong_flags_say_what_is_allowed(self):
        result = self.run_to_end("--model", self.model, "--truncation", "middle")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stdout, "")
        self.assertIn("--truncation must be one of none, right, left, not 'middle'", result.stderr)
        self.assertEqual(self.run_to_end().returncode, 2)
        result = self.run_to_end("--model", self.model, env={"QUIVER_DRAIN_TIMEOUT": "soon"})
        self.assertEqual(result.returncode, 2)
        self.assertIn("QUIVER_DRAIN_TIMEOUT must be a duration", result.stderr)

    def test_option_that_the_model_refuses_is_named(self):
        result = self.run_to_end("--model", self.model, "--grpc-port=0", "--http-port=0", "--dimensions=100000")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("100000", result.stderr)

    def test_help_and_version_go_to_stdout(self):
        for flag in ("--help", "--version"):
            result = self.run_to_end(flag)
            self.assertEqual(result.returncode, 0)
            self.assertIn("quiver-server", result.stdout)
            self.assertEqual(result.stderr, "")

    def test_command_line_goes_before_environment_before_file(self):
        config = os.path.join(self.directory, "quiver.toml")
        with open(config, "w") as file:
            file.write('served-name = "from-file"\nlog-format = "json"\ngrpc-port = 1\n')
        server = self.start("--config", config, env={"QUIVER_SERVED_NAME": "from-environment"}).wait_serving()
        self.assertIn('model="from-environment"', server.get("/metrics")[1])
        self.assertEqual(server.stop(), 0)
        lines = [json.loads(line) for line in server.log().splitlines()]
        serving = next(line for line in lines if line["message"] == "serving")
        self.assertEqual(serving["model"], "from-environment")
        self.assertEqual(len(serving["fingerprint"]), 32)
        self.assertNotEqual(server.grpc, "127.0.0.1:1")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
