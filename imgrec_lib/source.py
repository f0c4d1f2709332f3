"""Which code made a result: fingerprints of source, of this library and of packages that add models to it."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from imgrec_lib.files import fingerprint
from imgrec_lib.models import model_card

MAKES_NO_NUMBER = frozenset(
    f"imgrec_lib.{name}"
    for name in (
        "additions",
        "data",  # which readers there are: the data's own fingerprint counts instead
        "devices",
        "errors",
        "files",
        "models.registry",  # which models there are
        "options",
        "progress",
        "request",  # what is asked for, which the run's identity holds
        "runs.load",  # how a finished run is opened
        "runs.record",  # how it is read
        "runs.sketch",  # how its features are known again
        "source",
    )
)
"""Modules that a run imports and that change no number of it."""


def run_fingerprint(model: str) -> str:
    """The fingerprint of all the source that a run's numbers come from.

    That is the model's own module, training, evaluation, and what these import. A model that reads visual features has
    the extraction of them counted too. Other models, and the registry that lists them, do not count.

    Args:
        model: the model's name.
    """
    card = model_card(model)
    roots = ["imgrec_lib.runs.train", card.build.__module__]
    if "features" in card.uses:
        roots.append("imgrec_lib.features.several")
    return source_fingerprint(roots)


def source_fingerprint(modules: Iterable[str]) -> str:
    """16 hexadecimal digits of the source of modules, and of all that they import of their own packages.

    Comments, docstrings and layout do not count, nor do the modules of `MAKES_NO_NUMBER`. Of a package that only
    passes names on, the modules count from which the imported names come.

    Args:
        modules: names such as "imgrec_lib.runs.train".
    """
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_source(name)[1] - MAKES_NO_NUMBER)
    return fingerprint([[name, _source(name)[0]] for name in sorted(seen)])


@cache
def _source(name: str) -> tuple[str, frozenset[str]]:
    """The code of a module without comments and docstrings, and the modules of known packages that it imports."""
    tree = ast.parse(_text(name))
    imported: set[str] = set()
    for node in _executed(tree):
        for module, alias in _imports(name, node):
            imported |= _origins(module, alias)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree), frozenset(imported)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module but those that only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _executed(child)


def _imports(name: str, node: ast.AST) -> Iterable[tuple[str, str | None]]:
    """Each import of a statement, as a module and the name taken from it (None: the module itself).

    Args:
        name: the module that the statement is in; relative imports count from it.
        node: any statement.
    """
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = name if _is_package(name) else name.rpartition(".")[0]
        module = node.module or ""
        if node.level:
            module = importlib.util.resolve_name("." * node.level + module, package)
        yield from ((module, alias.name) for alias in node.names)


@cache
def _origins(module: str, alias: str | None) -> frozenset[str]:
    """The modules of the library, or of a package that adds to it, which an import reads; none for other packages."""
    top = module.partition(".")[0]
    if top != "imgrec_lib" and top not in _additions():
        return frozenset()
    if alias is None or not _is_package(module):
        return frozenset({module})
    if _path(f"{module}.{alias}") is not None:
        return frozenset({f"{module}.{alias}"})
    passed_on = [
        (source, name.name)
        for node in ast.parse(_text(module)).body
        if isinstance(node, ast.ImportFrom)
        for source, name in [(next(iter(_imports(module, node)))[0], each) for each in node.names]
        if (name.asname or name.name) == alias
    ]
    return frozenset({module}) if not passed_on else frozenset().union(*(_origins(*each) for each in passed_on))


def _additions() -> set[str]:
    """The packages, other than this one, that models come from."""
    from imgrec_lib.models import list_models

    return {card.build.__module__.partition(".")[0] for card in list_models().values()} - {"imgrec_lib"}


def _text(name: str) -> str:
    path = _path(name)
    if path is not None:
        return path.read_text(encoding="utf-8")
    # A model that was written in a notebook: its classes are all there is of its source.
    classes = [each for each in vars(sys.modules[name]).values() if inspect.isclass(each) and each.__module__ == name]
    return "\n".join(_class_source(each) for each in classes)


def _class_source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"class {kind.__name__}: ..."


def _is_package(name: str) -> bool:
    path = _path(name)
    return path is not None and path.stem == "__init__"


@cache
def _path(name: str) -> Path | None:
    """The source file of a module; None where there is no such module, or it has no source."""
    if name.partition(".")[0] == "imgrec_lib":
        path = Path(__file__).resolve().parent.joinpath(*name.split(".")[1:])
        # The stub of the package itself says where the names come from that it passes on.
        stub, package = path / "__init__.pyi", path / "__init__.py"
        path = (stub if stub.is_file() else package) if path.is_dir() else path.with_suffix(".py")
        return path if path.is_file() else None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    origin = None if found is None or found.origin is None else Path(found.origin)
    return origin if origin is not None and origin.suffix == ".py" else None
