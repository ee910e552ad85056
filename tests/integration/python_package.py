"""Installs the Python package as its users do, into a folder of its own."""
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

from running_server import ROOT


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def copy_source(work):
    """So that a build leaves nothing in the clone."""
    copy = work / "package"
    shutil.copytree(ROOT / "tools/python", copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "_pb"))
    return copy


def install(work, source=None):
    """The Python of a fresh virtual environment that has the package of `source`, the clone's unless given, and sees the
    tests' packages. Nothing is downloaded."""
    source = source or copy_source(work)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", work / "wheels", source)
    run(sys.executable, "-m", "venv", "--without-pip", work / "venv")
    python = work / "venv/bin/python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", *(work / "wheels").glob("*.whl"))
    (site_of(python) / "tests_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def site_of(python):
    return pathlib.Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def use(work):
    """Makes the installed package importable here."""
    python = install(work)
    sys.path.insert(0, str(site_of(python)))
    return python


class WithPackage(unittest.TestCase):
    """Tests with a folder, `work`, and a Python that has the package, `python`."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = pathlib.Path(folder.name)
        cls.python = install(cls.work)
