#!/usr/bin/env python3
"""Runs a notebook from top to bottom, shows what its cells print, and keeps the copy with its outputs, also of one that fails.

    run.py [--output COPY.ipynb] [--pictures FOLDER] NOTEBOOK.ipynb

Needs nbclient, ipykernel and what the notebook imports.
"""
import argparse
import base64
import pathlib
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config


def main():
    parser = argparse.ArgumentParser(description="Runs a notebook from top to bottom.")
    parser.add_argument("--output", type=pathlib.Path, help="where to write the copy with its outputs")
    parser.add_argument("--pictures", type=pathlib.Path, help="folder to write its pictures into, as PNG")
    parser.add_argument("notebook", type=pathlib.Path)
    arguments = parser.parse_args()
    notebook = nbformat.read(arguments.notebook, as_version=4)
    error = None
    try:
        # Over sockets in the file system: nobody else on the machine can talk to the kernel.
        transport = Config({"KernelManager": {"transport": "ipc"}})
        NotebookClient(notebook, kernel_name="python3", config=transport, timeout=None, on_cell_executed=show).execute()
    except CellExecutionError as failure:
        error = failure
    if arguments.output:
        nbformat.write(notebook, arguments.output)
        print(f"wrote {arguments.output}", file=sys.stderr)
    if arguments.pictures:
        write_pictures(notebook, arguments.pictures)
    if error is not None:
        print(f"{arguments.notebook}: {error.ename}: {error.evalue}", file=sys.stderr)
    return 0 if error is None else 1


def show(cell, cell_index, execute_reply):
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            print(output.text, end="", flush=True)


def write_pictures(notebook, folder):
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [output.data["image/png"] for cell in notebook.cells for output in cell.get("outputs", ())
                if "image/png" in output.get("data", {})]
    for number, picture in enumerate(pictures, 1):
        (folder / f"{number}.png").write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    sys.exit(main())
