#!/usr/bin/env python3
"""Memory of an idle server over its weights: resident set minus the bytes of the model's safetensors.

    idle_memory.py build/run/server/quiver-server MODEL_DIR [SERVER OPTIONS]

Exit code 1 if that is 200 MB or more.
"""
import http.client
import pathlib
import re
import subprocess
import sys
import tempfile
import time

LIMIT = 200e6
PATIENCE = 120
# What the start leaves behind is given back by then.
SETTLED_SECONDS = 2


def await_ready(process, ports):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit("the server ended at its start")
        if ports.exists() and (found := re.search(r"^http=(.*)\n", ports.read_text(), re.M)):
            connection = http.client.HTTPConnection(found[1], timeout=PATIENCE)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    sys.exit(f"the server was not ready after {PATIENCE} s")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    server, model, *options = sys.argv[1:]
    weights = sum(path.stat().st_size for path in pathlib.Path(model).glob("*.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        ports = pathlib.Path(folder, "ports")
        process = subprocess.Popen([server, "--model", model, "--grpc-port", "0", "--http-port", "0", "--port-file", ports,
                                    *options])
        try:
            await_ready(process, ports)
            time.sleep(SETTLED_SECONDS)
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            process.wait()
    resident = 1024 * int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)[1])
    print(f"resident {resident / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB, over them {(resident - weights) / 1e6:.0f} MB")
    return 0 if resident - weights < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
