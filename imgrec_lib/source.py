"""Which code made a result: fingerprints of the library's own source."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from imgrec_lib.files import fingerprint
from imgrec_lib.models import list_models, model_card

RECORDS = {"imgrec_lib.runs", "imgrec_lib.runs.record", "imgrec_lib.runs.load"}
"""What writes down and opens the results of runs, and makes none."""


def run_fingerprint(model: str) -> str:
    """The fingerprint of all the source that a run's numbers come from.

    Args:
        model: the model's name.
    """
    return source_fingerprint(["imgrec_lib.runs.train", model_card(model).build.__module__], without=RECORDS)


def source_fingerprint(modules: Iterable[str], without: Iterable[str] = ()) -> str:
    """16 hexadecimal digits of the source of modules of the library, and of all of it that they import.

    Comments, docstrings and layout do not count. Of the models only those count that are named, or that a named one
    builds on: who edits one model keeps the results of the others.

    Args:
        modules: names such as "imgrec_lib.runs.train".
        without: names of modules that do not count although others import them.
    """
    models = {card.build.__module__ for card in list_models().values()}
    left_out, seen = set(without), set[str]()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen | left_out:
            continue
        seen.add(name)
        found = _source(name)[1]
        waiting.extend(found if name != "imgrec_lib.models" else found - models)
    return fingerprint([[name, _source(name)[0]] for name in sorted(seen)])


@cache
def _source(name: str) -> tuple[str, frozenset[str]]:
    """The code of a module of the library without comments and docstrings, and the modules of it that it imports."""
    path = _module_path(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    parents = {".".join(each.split(".")[:2]) for each in imported}
    own = {each for each in imported | parents if each.startswith("imgrec_lib.") and _module_path(each).is_file()}
    return ast.unparse(tree), frozenset(own)


def _module_path(name: str) -> Path:
    path = Path(__file__).resolve().parent.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
