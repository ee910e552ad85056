"""The container image's root file system: made from a built tree, then run as Kubernetes runs it: read-only, not as root."""
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import running_server

ROOT = running_server.ROOT
BUILD, MAKE_TINY_MODEL, CUDA = sys.argv[1:4]
CONTAINERFILE = (ROOT / "deploy/image/Containerfile").read_text()


def instruction(name):
    """Its value in the image's last stage."""
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE.rpartition("\nFROM ")[2], re.MULTILINE)[-1]


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = pathlib.Path(work.name)
        # The user of the image looks for its files from outside, as volumes' owners let it.
        cls.work.chmod(0o755)
        cls.image, cls.model, cls.cache = cls.work / "image", cls.work / "model", cls.work / "cache"
        subprocess.run([ROOT / "deploy/image/make-root", "--build", BUILD, "--cuda", CUDA, cls.image], check=True)
        subprocess.run([MAKE_TINY_MODEL, cls.model, "--fixtures", ROOT / "tests/fixtures"], check=True, stdout=subprocess.DEVNULL)
        cls.cache.mkdir()
        os.chown(cls.cache, 65532, 65532)
        running_server.generate_stubs(cls.work / "stubs")

    def command(self, *command):
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", ROOT / "tests/integration/run_in_root.sh", self.image,
                self.model, self.cache, *command]

    def test_serves_read_only_without_privileges_and_answers_its_probe(self):
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc
        from quiver.v1 import embed_pb2, embed_pb2_grpc

        arguments = ["--model", "/model", "--host", "127.0.0.1", "--cache-dir", "/cache", "--grpc-port", "0", "--http-port", "0",
                     "--device", "cpu", "--port-file", "/cache/ports"]
        self.assertEqual(instruction("ENTRYPOINT"), '["quiver-server"]')
        with open(self.work / "log", "w") as log:
            server = subprocess.Popen(self.command("quiver-server", *arguments), stderr=log)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        ports = self.cache / "ports"
        end = time.monotonic() + running_server.START_SECONDS
        while not (ports.exists() and ports.read_text().endswith("\n")):
            self.assertIsNone(server.poll(), "the server ended at its start")
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        lines = dict(line.split("=", 1) for line in ports.read_text().splitlines() if "=" in line)
        with grpc.insecure_channel(lines["grpc"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while health.Check(health_pb2.HealthCheckRequest()).status != health_pb2.HealthCheckResponse.SERVING:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            request = embed_pb2.EmbedRequest()
            request.inputs.add().text = "a text"
            reply = embed_pb2_grpc.EmbedServiceStub(channel).Embed(request)
            self.assertGreater(reply.results[0].embedding.dimensions, 0)

        process = self.server_process()
        status = (process / "status").read_text()
        self.assertRegex(status, r"\nUid:\t65532\t65532\t65532\t65532\n")
        self.assertRegex(status, r"\nGid:\t65532\t65532\t65532\t65532\n")
        self.assertRegex(status, r"\nCapEff:\t0+\n")
        self.assertRegex(status, r"\nNoNewPrivs:\t1\n")
        mounts = {fields[4]: fields[5].split(",") for fields in
                  map(str.split, (process / "mountinfo").read_text().splitlines())}
        self.assertIn("ro", mounts["/"])
        self.assertIn("ro", mounts["/model"])
        os.kill(int(process.name), signal.SIGTERM)
        self.assertEqual(server.wait(timeout=60), 0, (self.work / "log").read_text())

    def server_process(self):
        """The /proc folder of the server that runs in the image."""
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "root") == str(self.image):
                    return process
            except OSError:
                pass
        self.fail("no process has the image as its root")

    def test_every_program_finds_its_libraries_inside(self):
        for name in "quiver", "quiver-server":
            run = subprocess.run(self.command("/lib64/ld-linux-x86-64.so.2", "--list", f"/opt/quiver/bin/{name}"), check=True,
                                 capture_output=True, text=True)
            self.assertNotIn("not found", run.stdout)
            self.assertIn("libgrpc.so", run.stdout)

    def test_the_tools_run_inside(self):
        run = subprocess.run(self.command("quiver", "embed", "--model", "/model", "--output-format", "jsonl", "a text"), check=True,
                             capture_output=True, text=True)
        self.assertIn("embedding", run.stdout)

    def test_nothing_inside_gives_privileges_or_is_writable(self):
        for path in [self.image, *self.image.rglob("*")]:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                self.assertTrue(path.resolve().is_relative_to(self.image), path)
                continue
            self.assertFalse(mode & (stat.S_ISUID | stat.S_ISGID), path)
            if path != self.image / "tmp":
                self.assertFalse(mode & stat.S_IWOTH, path)
        self.assertFalse(list(self.image.rglob("sh")) + list(self.image.rglob("bash")))

    def test_licences_and_versions_of_its_packages_are_inside(self):
        libraries = [p.name for p in (self.image / "opt/quiver/lib").iterdir()]
        self.assertIn("libgrpc.so.29", libraries)
        versions = {p.name: p.read_text() for p in (self.image / "var/lib/dpkg/status.d").iterdir()}
        for package in "libc6", "libgrpc29", "libssl3", "libstdc++6", "ca-certificates":
            self.assertIn(f"Package: {package}\n", versions[package])
            self.assertIn("\nVersion: ", versions[package])
            self.assertGreater((self.image / "usr/share/doc" / package / "copyright").stat().st_size, 100)

    def test_the_containerfile_says_what_the_deployment_relies_on(self):
        import yaml
        deployment = yaml.safe_load((ROOT / "deploy/k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
        self.assertEqual(instruction("USER"), f'{deployment["securityContext"]["runAsUser"]}:'
                                              f'{deployment["securityContext"]["runAsGroup"]}')
        ports = {str(p["containerPort"]) for p in deployment["containers"][0]["ports"]}
        self.assertEqual(set(instruction("EXPOSE").split()), ports)
        paths = {m["mountPath"].lstrip("/") for m in deployment["containers"][0]["volumeMounts"]}
        for path in paths:
            self.assertTrue((self.image / path).is_dir(), path)


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        print("skipped: mounting needs root")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
