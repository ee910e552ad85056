"""Makes the stubs of the contract while the package is built; everything else stands in pyproject.toml."""
import importlib.metadata
import pathlib
import re
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import ExecError

# A link to the repository's contract; a copy in a source distribution.
PROTO = pathlib.Path(__file__).parent / "proto"


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        source = pathlib.Path(__file__).parent / "src"
        root = source if self.editable_mode else pathlib.Path(self.build_lib)
        make_stubs(root / "quiver_client" / "_pb")


def make_stubs(out):
    """Writes the modules of quiver.v1 into the package `out`. google.rpc's are those of googleapis-common-protos, as a
    process must not register that file twice."""
    from grpc_tools import protoc
    out.mkdir(parents=True, exist_ok=True)
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}",
                        f"--grpc_python_out={out}", str(PROTO / "quiver/v1/embed.proto")])
    if code != 0:
        raise ExecError(f"protoc failed with exit code {code}")
    # The file keeps its name in the contract, so that stubs of one's own may be loaded beside these; its modules move.
    for made in (out / "quiver/v1").iterdir():
        text = re.sub(r"^from quiver\.v1 import", "from . import", made.read_text(), flags=re.MULTILINE)
        (out / made.name).write_text(text)
        made.unlink()
    (out / "quiver/v1").rmdir()
    (out / "quiver").rmdir()
    (out / "__init__.py").write_text("")


# What grpcio-tools generates runs with what grpcio-tools itself asks for, and with nothing older.
generated_code_needs = [need for need in importlib.metadata.requires("grpcio-tools") or ()
                        if re.match(r"(grpcio|protobuf)\b", need)]

# Beside the source it would be left behind, and a module that is no more would come back from it.
scratch = tempfile.TemporaryDirectory()

setup(cmdclass={"build_py": BuildWithStubs}, options={"build": {"build_base": scratch.name}},
      install_requires=["googleapis-common-protos>=1.70", "numpy>=1.24", *generated_code_needs])
