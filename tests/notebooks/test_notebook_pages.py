"""Executed notebooks as pages: alternative texts are kept, nothing is asked for, what is up to date stays."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from imgrec_lib.errors import InputError
from imgrec_lib.figures.curves import single_panel
from imgrec_lib.notebooks import notebook_path, notebooks_folder
from imgrec_lib.report import notebook_page
from imgrec_lib.report.notebook_pages import is_executed, write_notebook_pages

NOTEBOOKS = sorted(path.stem for path in notebooks_folder().glob("*.ipynb"))
EVIL = '"><script>alert(1)</script>'


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(path: Path, *outputs: nbformat.NotebookNode, heading: str = "Training") -> Path:
    cells = [
        new_markdown_cell(f"# A title\n\n## {heading}"),
        new_code_cell("1 + 1", execution_count=1, outputs=list(outputs)),
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def shown(kind: str, data: dict[str, str], **metadata: Any) -> nbformat.NotebookNode:
    number = {"execution_count": 1} if kind == "execute_result" else {}
    return new_output(kind, data={"text/plain": "x", **data}, metadata=metadata, **number)


def test_alternative_texts_are_kept_or_taken_from_the_heading(tmp_path: Path) -> None:
    known = {"image/png": {"alt": f"AUC rises to 0.8 {EVIL}", "width": 30, "height": 20}}
    page = notebook_page(
        notebook(
            tmp_path / "n.ipynb",
            shown("execute_result", {"image/png": picture()}, **known),
            shown("display_data", {"image/jpeg": picture()}),
        )
    )
    first, second = re.findall(r"<img[^>]*>", page)
    assert "AUC rises to 0.8" in first and 'width="30"' in first and "data:image/png" in first
    assert 'alt="Figure of the section “Training”"' in second and "data:image/jpeg" in second
    assert "<script" not in page and "&lt;script" in page and "<title>A title</title>" in page


def test_a_chart_brings_its_text_into_the_page(tmp_path: Path) -> None:
    figure, axes = single_panel()
    axes.plot([1, 2])
    figure.alt = "A line from 1 to 2."
    data, metadata = figure._repr_mimebundle_()
    assert metadata["image/png"] == {"alt": "A line from 1 to 2.", "width": 900, "height": 420}
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as drawn:
        assert drawn.size == (1800, 840)
    page = notebook_page(notebook(tmp_path / "n.ipynb", shown("execute_result", data, **metadata)))
    assert 'alt="A line from 1 to 2."' in page


def test_jupyter_shows_a_chart_with_its_text() -> None:
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.pylabtools import select_figure_formats

    class Shell:
        display_formatter = DisplayFormatter()

    select_figure_formats(Shell, {"png"})  # what %matplotlib inline does
    figure, _ = single_panel()
    figure.alt = "Nothing yet."
    data, metadata = Shell.display_formatter.format(figure)
    assert data["text/plain"] == "Nothing yet." and metadata["image/png"]["alt"] == "Nothing yet."


def test_progress_bars_are_left_out_and_errors_are_shown(tmp_path: Path) -> None:
    page = notebook_page(
        notebook(
            tmp_path / "n.ipynb",
            shown(
                "display_data", {"application/vnd.jupyter.widget-view+json": "{}", "text/plain": "HBox(children=...)"}
            ),
            new_output("error", ename="E", evalue="e", traceback=["\x1b[31mValueError\x1b[0m: <no>"]),
            shown("display_data", {"text/html": "<table><tr><th> </th><th>a</th></tr></table>"}),
        )
    )
    assert "HBox" not in page and "&lt;no&gt;" in page
    assert "<td></td><th>a</th>" in re.sub(r">\s+<", "><", page)
    body = page[page.index("<body>") :]
    assert not re.search(r"\b(src|href)=\"(?!data:|index\.html)", body) and "default-src 'none'" in page


def test_formulas_are_drawn_without_a_script(tmp_path: Path) -> None:
    text = "With $f_i$ for `$HOME`, and $5:\n\n$$\\cos(f_i, f_j) < \\frac{1}{2}$$"
    nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), tmp_path / "n.ipynb")
    page = notebook_page(tmp_path / "n.ipynb")
    assert "<msub><mi>f</mi><mi>i</mi></msub>" in page and "<mfrac>" in page and "&lt;" in page
    assert "$$" not in page and "$HOME" in page and "$5" in page


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_formula_of_the_notebooks_is_drawn(name: str) -> None:
    page = notebook_page(notebook_path(name))
    assert not re.search(r"<m[a-z]+>[^<]*\\", page)  # a command that was not understood stands there as a text
    body = re.sub(r"<(code|pre)\b.*?</\1>", "", page[page.index("<body>") :], flags=re.S)
    assert "$" not in body


def test_what_lies_elsewhere_is_left_out_and_what_is_long_is_folded(tmp_path: Path) -> None:
    hidden = {"jupyter": {"source_hidden": True}}
    parameters = new_code_cell("only = []", metadata=hidden | {"tags": ["injected-parameters"]})
    imports = new_code_cell("import os", metadata=hidden | {"tags": ["hide-input"]})
    opening = new_markdown_cell("# A title\n\n![A curve](../docs/curve.png)\n\nWhat it is.")
    nbformat.write(new_notebook(cells=[opening, parameters, imports, new_code_cell("2")]), tmp_path / "n.ipynb")
    page = notebook_page(tmp_path / "n.ipynb")
    assert "curve" not in page and "What it is." in page
    given, prepared = (re.sub("<[^>]*>", "", text) for text in re.findall(r"<details>.*?</details>", page, re.S))
    assert "parameters of this run" in given and "only" in given and "2" not in given + prepared
    assert "only prepares" in prepared and "import os" in prepared


def test_pages_follow_their_notebooks(tmp_path: Path) -> None:
    one, two = notebook(tmp_path / "1.ipynb"), notebook(tmp_path / "2.ipynb")
    pages = write_notebook_pages({"one": one, "two": two}, tmp_path / "pages", "../index.html")
    stamps = {name: path.stat().st_mtime_ns for name, path in pages.items()}
    notebook(two, heading="Something else")
    pages = write_notebook_pages({"one": one, "two": two}, tmp_path / "pages", "../index.html")
    assert pages["one"].stat().st_mtime_ns == stamps["one"]
    assert "Something else" in pages["two"].read_text()
    write_notebook_pages({"two": two}, tmp_path / "pages", "../index.html")
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["two.html"]


def test_what_has_not_run_or_is_no_notebook(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    assert is_executed(notebook(path))
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), path)
    assert not is_executed(path)
    for text in ("{}", "nonsense", "[]"):
        path.write_text(text)
        assert not is_executed(path)
        with pytest.raises(InputError, match=r"n\.ipynb is no notebook"):
            notebook_page(path)
