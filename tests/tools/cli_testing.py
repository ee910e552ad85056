"""What the tests of the program `quiver` share: running it, and tiny models to run it on."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


class CliTest(unittest.TestCase):
    """Runs QUIVER over a tiny BERT and a tiny Qwen3, which MAKE_TINY_MODEL writes."""

    quiver = make_tiny_model = quiver_server = None

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.folder.name)
        for family in ("bert", "qwen3"):
            target = cls.dir / family
            subprocess.run([cls.make_tiny_model, target, "--family", family, "--fixtures", FIXTURES], check=True)
            setattr(cls, family, target)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_quiver(self, *arguments, stdin=b"", expect=0):
        """Runs the program and checks its exit code."""
        stdin = stdin.encode() if isinstance(stdin, str) else stdin
        run = subprocess.run([self.quiver, *map(str, arguments)], input=stdin, capture_output=True, timeout=120, check=False)
        self.assertEqual(run.returncode, expect, run.stderr.decode(errors="replace"))
        return run

    def lines(self, *arguments, stdin=b"", expect=0):
        """The objects on standard output."""
        run = self.run_quiver(*arguments, stdin=stdin, expect=expect)
        return [json.loads(line) for line in run.stdout.splitlines()]

    def file(self, name, content):
        path = self.dir / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def main(**programs):
    """Runs the tests of the calling script; `programs` are CliTest's fields."""
    for name, path in programs.items():
        setattr(CliTest, name, path)
    unittest.main(argv=sys.argv[:1], verbosity=1)
