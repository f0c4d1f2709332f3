"""Executed notebooks as pages beside the report, so that a link from a number opens something to read.

nbconvert's own templates draw a picture's text from elsewhere, load scripts from the network and are four hundred
kilobytes each; the template here keeps the alternative texts and needs nothing.
"""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from imgrec_lib import __version__
from imgrec_lib.errors import InputError
from imgrec_lib.files import fingerprint, write_text

TEMPLATES = Path(__file__).parent / "templates"
WIDGET = "application/vnd.jupyter.widget-view+json"
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$([^$\n]+?)\$(?![\w$])", re.DOTALL)
_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def write_notebook_pages(notebooks: Mapping[str, Path], folder: Path, back: str) -> dict[str, Path]:
    """Render executed notebooks; a page that is up to date stays, one whose notebook is gone goes.

    Args:
        notebooks: the notebooks by the name of their page, without ".html".
        folder: where the pages go.
        back: the address of the report, from there.

    Returns:
        The pages, by name.

    Raises:
        InputError: a file is no notebook.
    """
    pages = {}
    for name, path in notebooks.items():
        page = folder / f"{name}.html"
        source = fingerprint(path.read_bytes(), _template(), __version__, back)
        if not page.exists() or source not in page.read_text(encoding="utf-8")[:2000]:
            write_text(page, notebook_page(path, source=source, back=back))
        pages[name] = page
    for stale in set(folder.glob("*.html")) - set(pages.values()):
        stale.unlink()
    return pages


def notebook_page(path: Path, *, source: str = "", back: str = "index.html") -> str:
    """An executed notebook as one HTML file that asks for nothing from outside and runs no script.

    Progress bars are left out: without a kernel they show nothing; so are pictures that lie elsewhere. A picture
    without an alternative text, as older figures have none, is named after the heading above it.

    Args:
        path: the notebook.
        source: kept in the page, to tell later whether it is up to date.
        back: where "Back to the report" leads.

    Raises:
        InputError: the file is no notebook.
    """
    import nbformat

    damages = (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError, UnicodeDecodeError)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, *damages) as error:
        raise InputError(f"{path} is no notebook ({type(error).__name__}): run it again.") from error
    cleaned, title = _cleaned(notebook, path.stem)
    resources = {"imgrec_source": source, "imgrec_title": title, "imgrec_back": back}
    return str(_exporter().from_notebook_node(cleaned, resources=resources)[0])


@cache
def _exporter() -> Any:
    """One for all pages, for it compiles its template; imported here, for that takes longer than the rest of imgrec."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="notebook", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_anchor_links = exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("formulas", _formulas)
    return exporter


def _formulas(text: str) -> str:
    """HTML with its TeX, between dollar signs, as MathML, which a browser draws without a script."""
    from latex2mathml.converter import convert

    def drawn(match: re.Match[str]) -> str:
        block, inline = match.groups()
        return str(convert(html.unescape(block or inline), display="block" if block else "inline"))

    return _FORMULA.sub(drawn, text)


def _template() -> str:
    return (TEMPLATES / "notebook" / "index.html.j2").read_text(encoding="utf-8")


def _cleaned(notebook: Any, name: str) -> tuple[Any, str]:
    """A copy whose outputs stand without a kernel and whose pictures have alternative texts; and the first heading."""
    notebook = copy.deepcopy(notebook)
    title = heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # A picture that lies beside the notebook in the repository is not here.
            cell.source = re.sub(r"!\[[^\]]*\]\((?!data:)[^)]*\)\n*", "", cell.source)
            for line in re.findall(r"^#+\s+(.+)$", cell.source, flags=re.MULTILINE):
                heading = line.strip()
                title = title or heading
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            data, about = output.get("data", {}), output.get("metadata", {})
            for kind in _PICTURES:
                if kind in data:
                    known = about.get(kind, {})
                    about[kind] = {"alt": f"Figure of the section “{heading or name}”", **known}
            if "text/html" in data:
                # An empty header cell, as pandas writes above its index, has nothing to say to a screen reader.
                data["text/html"] = re.sub(r"<th([^>]*)>\s*</th>", r"<td\1></td>", data["text/html"])
            if data:
                output["metadata"] = about
    return notebook, title or name


def is_executed(path: Path) -> bool:
    """Whether a notebook has run: one of its code cells has a number."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return False
    return any(cell.get("execution_count") for cell in cells)
