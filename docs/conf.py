"""The book: chapters, a page a model made from its card, the notebooks, and the public interface from its docstrings.

`make book` executes the notebooks; `IMGREC_BOOK_NOTEBOOKS=off` shows them as they are committed, which is quicker.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import imgrec_lib
from imgrec_lib.models import list_models
from imgrec_lib.models.base import ModelCard

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"

project = "imgrec"
version = release = imgrec_lib.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas are drawn without asking the network for anything
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = "imgrec"
html_show_copyright = False  # LICENSE says it
default_role = "code"
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("IMGREC_BOOK_NOTEBOOKS", "cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
autodoc_typehints = "none"  # the docstrings say types, with shapes and units
autodoc_member_order = "bysource"
suppress_warnings = ["mystnb.unknown_mime_type"]  # widgets: their still picture is shown


FIDELITY = {
    "faithful": "This implementation is faithful to that source.",
    "reconstruction": "This implementation is a reconstruction: the sources leave a gap, and the text below says "
    "what was decided.",
    "own": "The model is imgrec's own.",
}


def model_page(card: ModelCard, formula: str, rows: dict[str, list[str]]) -> str:
    """One model as Markdown: what it is, how it scores, its settings, and its row on H&M."""
    model = f"{card.build.__module__}.{card.build.__qualname__}"
    source = f"{card.source[:1].upper()}{card.source[1:]}"
    lines = [f"# {card.title}", "", f"{source}. Its name in commands is `{card.name}`. {FIDELITY[card.fidelity]}", ""]
    if card.needs:
        lines += [f"The model needs {', '.join(sorted(card.needs))}.", ""]
    lines += ["## Formula and decisions", "", *([f"$${formula}$$", ""] if formula else [])]
    lines += ["```{eval-rst}", f".. autoclass:: {model}", "   :no-index:", "```", ""]
    lines += ["## Profiles", "", "| profile | hyper-parameters | where they come from |", "|---|---|---|"]
    for name, profile in card.profiles.items():
        values = ", ".join(f"{key} {value}" for key, value in profile.parameters.items()) or "none"
        lines.append(f"| `{name}` | {values} | {profile.note.replace('|', '/')} |")
    lines += ["", "## On a week of H&M", ""]
    if rows.get(card.title):
        lines += ["| row | trials | AUC | HR@10 | NDCG@10 | cold AUC |", "|---|---:|---:|---:|---:|---:|"]
        lines += rows[card.title]
        lines += [
            "",
            "Test figures, mean ± standard deviation over the seeds. [What a picture adds](../../pictures.md) compares "
            "all models.",
        ]
    else:
        lines.append("No committed report has a row of this model.")
    return "\n".join(lines) + "\n"


def committed_rows() -> dict[str, list[str]]:
    """By a model's title: its rows in the committed reports of H&M, cut down to six columns."""
    rows: dict[str, list[str]] = {}
    wanted = ["model", "trials", "AUC", "HR@10", "NDCG@10", "cold AUC"]
    for name in ("hm-week.md", "hm-rules.md", "hm-own-model.md", "hm-end-to-end.md"):
        text = (ROOT / "reports" / name).read_text(encoding="utf-8")
        table = next(part for part in text.split("\n\n") if part.startswith("| model | trials | AUC "))
        header, _, *lines = ([cell.strip() for cell in line.strip(" |").split(" | ")] for line in table.splitlines())
        places = [header.index(column) for column in wanted]
        for line in lines:
            line[0] = line[0].replace(" †", "")
            title = re.sub(r"( \(.*\))?$", "", line[0])
            rows.setdefault(title, []).append("| " + " | ".join(line[place] for place in places) + " |")
    return rows


def referred() -> dict[str, Any]:
    """By name: what the docstrings in this book send their reader to ("see ..."), and is neither public nor a model."""
    modules = [module for name, module in sys.modules.items() if name.startswith("imgrec_lib.")]
    known = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    }
    waiting = [*(getattr(imgrec_lib, name) for name in imgrec_lib.__all__), *(c.build for c in list_models().values())]
    there = {each.__name__ for each in waiting}
    found = {}
    while waiting:
        for sentence in re.findall(r"\b[Ss]ee ([^.;:()]*)", inspect.getsource(waiting.pop())):
            for name in re.findall(r"`(\w+)", sentence):
                if name in known and name not in there:
                    there.add(name)
                    found[name] = known[name]
                    waiting.append(known[name])
    return dict(sorted(found.items()))


def auto(path: str, value: Any) -> str:
    """The directive that shows a function, or a class with what it offers."""
    if isinstance(value, type):
        return f".. autoclass:: {path}\n   :members:\n"
    return f".. autofunction:: {path}\n"


LINKS: dict[str, str] = {}
"""By a name that docstrings put in backticks: the mark that leads to what is said of it."""


def write_pages(*_: Any) -> None:
    """Make what is not written by hand: a page a model, the pages of the interface, and the notebooks."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    (GENERATED / "models").mkdir(parents=True)
    rows, cards = committed_rows(), list_models()
    formulas = yaml.safe_load((DOCS / "formulas.yaml").read_text(encoding="utf-8"))
    for name, card in cards.items():
        (GENERATED / "models" / f"{name}.md").write_text(
            model_page(card, formulas.get(name, ""), rows), encoding="utf-8"
        )
    entries = "\n".join(f"models/{name}" for name in cards)
    (GENERATED / "models.md").write_text(
        "# Models\n\nOne page a model: its formula, its source, what a reconstruction decided, its settings and row on "
        f"H&M.\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n",
        encoding="utf-8",
    )
    public = {f"imgrec_lib.{name}": getattr(imgrec_lib, name) for name in imgrec_lib.__all__}
    further = {f"{value.__module__}.{name}": value for name, value in referred().items()}
    for page, title, text, shown in (
        ("interface", "The public interface", "Everything that `import imgrec_lib` offers. What it refers to beyond "
         "that is in [a page of its own](further.md).", public),
        ("further", "What the interface refers to", "Functions and classes that the [public interface](interface.md) "
         "and the [models](models.md) name. They may change between versions.", further),
    ):  # fmt: skip
        directives = "\n".join(auto(path, value) for path, value in shown.items())
        (GENERATED / f"{page}.md").write_text(
            f"# {title}\n\n{text}\n\n```{{eval-rst}}\n{directives}```\n", encoding="utf-8"
        )
        LINKS.update((path.rpartition(".")[2], f":py:obj:`{path.rpartition('.')[2]} <{path}>`") for path in shown)
    LINKS.update((c.build.__name__, f":doc:`{c.build.__name__} </generated/models/{n}>`") for n, c in cards.items())
    (GENERATED / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, GENERATED / "notebooks")
    entries = "\n".join(f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    (GENERATED / "notebooks.md").write_text(
        "# The notebooks\n\nOne a stage. Each runs from its defaults in under two minutes; full scale is a matter of "
        f"its parameters.\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n",
        encoding="utf-8",
    )


def link_within(_app: Any, _name: str, source: list[str]) -> None:
    """A link to a file of the repository, as it works where that is read, leads to the page made of the file."""
    pages = {"docs/": "", "notebooks/": "generated/notebooks/", "imgrec_lib/__init__.pyi": "generated/interface.md"}
    for name, card in list_models().items():
        pages[f"{card.build.__module__.replace('.', '/')}.py"] = f"generated/models/{name}.md"
    for file, page in pages.items():
        source[0] = source[0].replace(f"](../{file}", f"](/{page}")


class Docstring(GoogleDocstring):
    """Ours: in what is returned napoleon would take the words before a colon for a type."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        return [("", "", self._dedent(self._consume_to_next_section()))]


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with names in backticks; Sphinx would take their formulas for marks of its own."""
    example = False
    for place, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
            parts[1::2] = [LINKS.get(part.strip("`"), part) for part in parts[1::2]]
            lines[place] = "".join(parts)
    kind = "method" if what == "property" else what  # of a property likewise
    lines[:] = Docstring(lines, Config(), app, kind, name, obj, options).lines()


def setup(app: Any) -> None:
    """See Sphinx: called once before a build."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", link_within)
    app.connect("autodoc-process-docstring", plain)
