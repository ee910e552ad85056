#!/usr/bin/env python3
"""Memory of the card that a server accounts for, by purpose, beside what the driver counts.

    device_memory.py build/run/server/quiver-server MODEL_DIR [SERVER OPTIONS]

The driver's figure is what the card's use grew by, so nobody else may use the card meanwhile. Exit code 1 if the sum is off by
more than 3 %.
"""
import http.client
import pathlib
import re
import subprocess
import sys
import tempfile

from idle_memory import await_ready

TOLERANCE = 0.03


def driver_bytes():
    out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"], check=True,
                         capture_output=True, text=True).stdout
    return int(out) * 2**20


def scrape(ports):
    host = re.search(r"^http=(.*)\n", ports.read_text(), re.M)[1]
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    server, model, *options = sys.argv[1:]
    before = driver_bytes()
    with tempfile.TemporaryDirectory() as folder:
        ports = pathlib.Path(folder, "ports")
        process = subprocess.Popen([server, "--model", model, "--grpc-port", "0", "--http-port", "0", "--port-file", ports,
                                    *options])
        try:
            await_ready(process, ports)
            taken = driver_bytes() - before
            metrics = scrape(ports)
        finally:
            process.terminate()
            process.wait()
    uses = [(purpose, float(value)) for purpose, value in
            re.findall(r'^quiver_device_memory_bytes\{.*purpose="([^"]+)".*\} (\S+)$', metrics, re.M)]
    for purpose, value in uses:
        print(f"{purpose:12} {value / 2**20:10.1f} MiB")
    total = sum(value for _, value in uses)
    print(f"{'sum':12} {total / 2**20:10.1f} MiB\n{'driver':12} {taken / 2**20:10.1f} MiB\nsum / driver {total / taken:10.4f}")
    return 0 if uses and abs(total / taken - 1) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
