"""Execute notebooks from their defaults, and keep in them what nbval compares: text, tables, and small figures.

    .venv/bin/python tests/refresh_notebooks.py 02_features 04_compare      # all notebooks without a name

A cell whose output varies carries the tag `nbval-ignore-output`, and its output is not kept. Of all other cells it is,
figures as PNG files of a few colours.
"""

from __future__ import annotations

import base64
import copy
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from imgrec_lib.files import write_text
from imgrec_lib.notebooks import notebook_path, notebooks_folder

VARYING = "nbval-ignore-output"
WIDTH, COLOURS = 760, 48


def small(figure: str) -> str:
    """A PNG file in base64, narrower and with fewer colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB")
    if picture.width > WIDTH:
        height = round(picture.height * WIDTH / picture.width)
        picture = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def refresh(path: Path) -> None:
    """Execute one notebook in an empty folder, and write it with the outputs to be compared."""
    notebook = nbformat.read(path, as_version=4)
    metadata = copy.deepcopy(notebook.metadata)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        varying = VARYING in cell.metadata.get("tags", [])
        cell.outputs = [] if varying else [o for o in cell.outputs if o.get("name") != "stderr"]
        cell.execution_count = cell.execution_count if cell.outputs else None
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small(output.data["image/png"])
    notebook.metadata = metadata
    write_text(path, nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in notebooks_folder().glob("*.ipynb")):
        refresh(notebook_path(name))
        print(name, notebook_path(name).stat().st_size, "bytes")
