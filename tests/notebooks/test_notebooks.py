"""Notebooks: declared parameters, checked values, and outputs that nbval really compares."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest

from imgrec_lib.errors import InputError, tell
from imgrec_lib.notebooks import (
    TYPES,
    check_parameters,
    notebook_address,
    notebook_parameters,
    notebook_path,
    notebooks_folder,
    run_notebook,
)
from imgrec_lib.options import admits

NAMES = sorted(path.stem for path in notebooks_folder().glob("*.ipynb"))
SMALL = {"n_users": 60, "n_items": 50, "image_size": 32}
VARYING = "nbval-ignore-output"


def test_there_are_notebooks() -> None:
    assert {"01_data", "02_features", "03_train", "04_compare", "05_neighbours"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_typed_described_and_checked(name: str) -> None:
    parameters = notebook_parameters(name)
    assert parameters
    for parameter in parameters.values():
        assert parameter.type in TYPES, parameter
        assert admits(TYPES[parameter.type], type(parameter.default)), parameter
        assert len(parameter.help) > 10, parameter
    cells = nbformat.read(notebook_path(name), as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    assert "check_parameters(globals())" in code[1].source
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_an_article(name: str) -> None:
    """A question and a picture at its beginning, what to try next at its end, a figure; and preparations are folded."""
    cells = nbformat.read(notebook_path(name), as_version=4).cells
    assert "?" in cells[0].source.split("\n\n")[1] and "](../docs/" in cells[0].source and "![" in cells[0].source
    assert cells[-1].cell_type == "markdown" and "what next" in cells[-1].source.splitlines()[0]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    for cell in code:
        if "\nimport " in f"\n{cell.source}" or "check_parameters(globals())" in cell.source:
            assert cell.metadata.jupyter.source_hidden and "hide-input" in cell.metadata.tags, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_nbval_compares_something_and_nothing_else_is_committed(name: str) -> None:
    """nbval passes a notebook without outputs: it would then check no number at all."""
    notebook = nbformat.read(notebook_path(name), as_version=4)
    compared = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        outputs = [output for output in cell.outputs if output.output_type != "stream" or output.name == "stdout"]
        if VARYING in cell.metadata.get("tags", []):
            assert not cell.outputs, f"{name}: output committed that nbval ignores:\n{cell.source}"
        for output in outputs:
            data = output.get("data", {})
            assert all(len(text) < 100_000 for kind, text in data.items() if kind.startswith("image/")), name
            text = output.get("text", "") + "".join(text for kind, text in data.items() if kind.startswith("text/"))
            compared += any(character.isdigit() for character in text)
    assert compared >= 2, f"{name} has {compared} outputs with numbers to compare"
    assert notebook_path(name).stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_a_machine_is_committed(name: str) -> None:
    text = notebook_path(name).read_text(encoding="utf-8")
    assert "/tmp/" not in text and "/home/" not in text and str(Path.cwd()) not in text


def test_unknown_and_ill_typed_parameters_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'seed'"):
        run_notebook("03_train", {"sed": 1}, tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="'seed' of notebook 03_train must be int, at least 0, not '1'"):
        run_notebook("03_train", {"seed": "1"}, tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="must be int, at least 0, not True"):
        run_notebook("03_train", {"seed": True}, tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="unknown notebook '03_trian': did you mean '03_train'"):
        run_notebook("03_trian", {}, tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="is not in UTF-8"):
        run_notebook("03_train", {}, tmp_path / os.fsdecode(b"\xff") / "n.ipynb")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_refuses_what_papermill_injects_without_being_declared() -> None:
    namespace = {"__annotations__": {"seed": int, "out": "str"}, "seed": 0, "out": "x", "In": [], "_dh": []}
    assert check_parameters(namespace) == {"seed": 0, "out": "x"}
    with pytest.raises(InputError, match="did you mean 'seed'"):
        check_parameters(namespace | {"seeds": 3})
    with pytest.raises(InputError, match="'seed' of this notebook must be int"):
        check_parameters(namespace | {"seed": 1.5})


def test_a_notebook_shows_a_warning_once() -> None:
    with warnings.catch_warnings(record=True) as told:
        check_parameters({})
        for sentence in ("The first is odd.", "The first is odd.", "The second is odd."):
            tell(sentence)
    assert [str(each.message) for each in told] == ["The first is odd.", "The second is odd."]


def test_the_address_follows_code_parameters_and_inputs() -> None:
    base = notebook_address("01_data", {"dataset": "wardrobe"})
    assert base == notebook_address("01_data", {"dataset": "wardrobe"})
    others = [
        notebook_address("01_data", {"dataset": "hm"}),
        notebook_address("02_features", {"dataset": "wardrobe"}),
        notebook_address("01_data", {"dataset": "wardrobe"}, "a run"),
    ]
    assert len({base, *others}) == 4


@pytest.mark.slow
def test_a_failing_notebook_gets_a_sentence_and_leaves_no_result(tmp_path: Path) -> None:
    output = tmp_path / "n.ipynb"
    with pytest.raises(InputError, match="notebook 01_data failed: unknown dataset 'wardrob': did you mean 'wardrobe'"):
        run_notebook("01_data", {"dataset": "wardrob"}, output, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["n.failed.ipynb"]


@pytest.mark.slow
def test_an_executed_notebook_carries_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgrec_lib.notebooks.LONGEST_SHOWN", 20)
    output = tmp_path / "n.ipynb"
    items = [f"item-{i:04}" for i in range(2, 40)]
    np.savez(tmp_path / "own.npz", ids=items, vectors=np.ones((38, 12)))
    parameters = {
        "dataset_options": {"n_users": 40, "n_items": 40, "image_size": 32},
        "feature_files": {"own": str(tmp_path / "own.npz")},
    }
    run_notebook("01_data", parameters, output, address="abc", progress=False)
    (tmp_path / "own.npz").unlink()
    assert "own: 12 dimensions, 38 of 40 items have a vector" in output.read_text()
    executed = json.loads(output.read_text())
    metadata = executed["metadata"]
    assert metadata["imgrec"] == {"address": "abc"} and metadata["papermill"]["parameters"] == parameters
    folded = [cell for cell in executed["cells"] if cell["metadata"].get("jupyter", {}).get("source_hidden")]
    assert ["injected-parameters"] in [cell["metadata"]["tags"] for cell in folded]
    assert [path.name for path in tmp_path.iterdir()] == ["n.ipynb"]


def short_notebook(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Make "short", with that one cell behind its parameters, the only notebook that there is."""
    notebook = nbformat.read(notebook_path("01_data"), as_version=4)
    parameters = next(cell for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = [parameters, nbformat.v4.new_code_cell(code)]
    nbformat.write(notebook, folder / "short.ipynb")
    monkeypatch.setattr("imgrec_lib.notebooks.notebooks_folder", lambda: folder)


@pytest.mark.slow
def test_the_kernel_is_this_python_and_nothing_of_the_users_jupyter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels called python3 that belong to no Python at all, a profile that breaks, a long TMPDIR, no home."""
    broken = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    for folder in ("jupyter/kernels/python3", "home/.local/share/jupyter/kernels/python3"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "kernel.json").write_text(json.dumps(broken))
    startup = tmp_path / "home" / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    short_notebook(monkeypatch, tmp_path, "import sys\nprint(sys.executable)")
    (tmp_path / "file").touch()
    for home, temporary in [("home", "short"), ("file/home", "long" * 40)]:
        (tmp_path / temporary).mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / home))
        monkeypatch.setenv("TMPDIR", str(tmp_path / temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        output = tmp_path / "{a} %s $HOME ü 日本" / temporary / "n.ipynb"
        run_notebook("short", {}, output, progress=False)
        assert [path.name for path in output.parent.iterdir()] == ["n.ipynb"]
        assert nbformat.read(output, as_version=4).cells[-1].outputs[0].text.strip() == sys.executable
        assert list((tmp_path / temporary).iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, sentence",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed: if memory was short"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV, and wrote at last"),
        (
            "os.write(2, b'no such library\\n\\n'); os._exit(7)",
            "ended with status 7, and wrote at last: no such library",
        ),
    ],
)
def test_a_process_that_ends_says_how_and_blames_memory_only_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    short_notebook(monkeypatch, tmp_path, f"import os, signal\n{code}")
    with pytest.raises(InputError, match=sentence) as caught:
        run_notebook("short", {}, tmp_path / "out" / "n.ipynb", progress=False)
    assert ("memory" in str(caught.value)) == ("SIGKILL" in code)


@pytest.mark.slow
def test_a_kernel_that_is_killed_gets_a_sentence(tmp_path: Path) -> None:
    parameters = {"model": "bpr-mf", "search": {}, "dataset_options": SMALL}
    parameters |= {"parameters": {"epochs": 10**6, "patience": 0}}
    out = tmp_path / "run"
    killer = threading.Thread(target=kill_kernel_when, args=(out / "training.safetensors",))
    killer.start()
    with pytest.raises(InputError, match="notebook 03_train failed: its process was killed"):
        run_notebook("03_train", parameters | {"out": str(out)}, tmp_path / "n.ipynb", progress=False)
    killer.join()


def kill_kernel_when(path: Path) -> None:
    """Wait until a file is there; then kill the kernels of this process."""
    while not path.exists():
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if "ipykernel_launcher" in " ".join(process.cmdline()):
            process.kill()
