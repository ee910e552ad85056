"""The client library as a user has it: installed, found by CMake, linked into the examples, which run against servers.

Usage: client_package_test.py BUILD CXX QUIVER_SERVER
BUILD is a built tree; CXX its compiler. The model is QUIVER_DEFAULT_MODEL.
"""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "integration"))
from running_server import ROOT, RestartableServer

BUILD, CXX, SERVER = sys.argv[1:4]
MODEL = os.environ.get("QUIVER_DEFAULT_MODEL")
TREE = pathlib.Path(BUILD) / "client-package"


def cmake(*arguments):
    subprocess.run(["cmake", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


class ClientPackage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exit = contextlib.ExitStack()
        cls.work = pathlib.Path(cls.exit.enter_context(tempfile.TemporaryDirectory()))
        cmake("--install", BUILD, "--component", "client", "--prefix", TREE / "install")
        cmake("-S", ROOT / "tools/examples/cpp", "-B", TREE / "build", "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={CXX}",
              f"-DCMAKE_PREFIX_PATH={TREE / 'install'}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
        cmake("--build", TREE / "build")
        cls.servers = []
        for name in ("one", "two"):
            server = RestartableServer(SERVER, name, MODEL, cls.work)
            cls.exit.callback(server.kill)
            cls.servers.append(server.start())

    @classmethod
    def tearDownClass(cls):
        cls.exit.close()

    def test_nothing_but_the_public_headers_is_installed(self):
        headers = {path.name for path in (TREE / "install/include").rglob("*") if path.is_file()}
        self.assertEqual(headers, {"client.h", "client_stream.h", "client_types.h"})

    def test_similar_texts_are_similar(self):
        run = subprocess.run([TREE / "build/similar_texts", self.servers[0].grpc, "How do I reset my password?",
                              "I forgot my login credentials and cannot sign in.",
                              "The recipe calls for two cups of flour.", ""], capture_output=True, text=True, check=False)
        space, same, near, far, empty = run.stdout.splitlines()
        self.assertIn("vector space ", space)
        self.assertTrue(same.startswith("+1.000 "), same)
        self.assertGreater(float(near.split()[0]), 0.5)
        self.assertLess(float(far.split()[0]), 0.2)
        self.assertIn("text: must not be empty", empty)
        self.assertEqual(run.returncode, 1)

    def test_a_stream_loses_no_line_when_one_of_two_servers_is_killed(self):
        lines = [f"line {i} of the file" for i in range(1, 1501)]
        (self.work / "lines").write_text("\n".join(lines) + "\n")
        with subprocess.Popen([TREE / "build/stream_file", self.work / "lines", *(server.grpc for server in self.servers)],
                              stdout=subprocess.PIPE, text=True) as run:
            killer = threading.Thread(target=self.kill_at_work, args=(self.servers[1], run))
            killer.start()
            seen = [line.split("\t") for line in run.stdout]
            killer.join()
        self.assertEqual(run.returncode, 0)
        self.assertEqual(sorted(int(number) for number, _ in seen), list(range(1, 1501)))
        self.assertEqual({values.endswith(" ...\n") for _, values in seen}, {True})
        self.assertEqual(self.killed, True)

    killed = False

    def kill_at_work(self, server, run):
        """Kills `server` while it computes, unless `run` ends before."""
        while run.poll() is None and not self.killed:
            if '"passes": []' not in server.get("/debug/scheduler"):
                server.process.kill()
                self.killed = True
            time.sleep(0.01)


if __name__ == "__main__":
    if not MODEL:
        print("skipped: QUIVER_DEFAULT_MODEL is not set")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
