"""A server process, and the contract's Python stubs as a client's author would generate them."""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

START_SECONDS = 120
ROOT = pathlib.Path(__file__).parents[2]


def generate_stubs(out):
    """Makes quiver.v1 importable from the folder `out`."""
    from grpc_tools import protoc
    out.mkdir()
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", "-I", f"{ROOT}/proto", "-I", str(include), f"--python_out={out}",
                        f"--grpc_python_out={out}", *(f"{ROOT}/proto/{name}" for name in (
                            "quiver/v1/embed.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"))])
    assert code == 0, "protoc failed"
    sys.path.insert(0, str(out))


class Server:
    """Serves `model` on free ports; `grpc` is HOST:PORT. Its port file stands in `work`. Ends with the block."""

    def __init__(self, program, model, work, *flags):
        self.port_file = work / "ports"
        self.process = subprocess.Popen([program, "--model", str(model), "--grpc-port", "0",
                                         "--http-port", "0", "--port-file", str(self.port_file), *flags])
        self.grpc = self.await_address("grpc")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def await_address(self, name):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, "the server ended at its start"
            text = self.port_file.read_text() if self.port_file.exists() else ""
            lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
            if text.endswith("\n") and name in lines:
                return lines[name]
            time.sleep(0.05)
        raise TimeoutError("the server did not write its port file")

    def stop(self):
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RestartableServer:
    """Serves `model` as "m" on the CPU, on ports that stay its own from one start() to the next; `grpc` and `http` are HOST:PORT.
    Its log stands in `work`."""

    def __init__(self, program, name, model, work, *flags, env=None, limit_fds=None):
        self.name = name
        self.grpc, self.http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        limits = ["prlimit", f"--nofile={limit_fds}"] if limit_fds else []
        self.command = [*limits, program, "--model", str(model), "--served-name", "m", "--grpc-port", self.grpc.split(":")[1],
                        "--http-port", self.http.split(":")[1], "--device", "cpu", "--threads", "1", *flags]
        self.env = {**os.environ, **(env or {})}
        self.log = work / f"{name}.log"
        self.process = None

    def start(self):
        """Returns when it serves."""
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stderr=log, stdout=log)
        end = time.monotonic() + START_SECONDS
        while not self.serves():
            assert time.monotonic() < end, f"{self.name} does not serve"
            time.sleep(0.02)
        return self

    def serves(self):
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()}"
        try:
            return self.get("/readyz").startswith('{"status": "healthy"')
        except OSError:
            return False

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as reply:
            return reply.read().decode()

    def stop(self):
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            # One that was stopped does not end either.
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
