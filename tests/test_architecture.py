"""Data flows one way: no module imports one that comes after it."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import yaml
from paths import ROOT

from imgrec_lib.data import list_datasets
from imgrec_lib.extras import EXTRAS
from imgrec_lib.models import list_models

ORDER = [
    ["errors"],
    ["options", "additions", "extras"],
    ["files"],
    ["cache", "compiled", "devices", "fonts", "progress"],
    ["data"],
    ["features"],
    ["models"],
    ["evaluation", "training"],
    ["source", "request"],
    ["generation"],
    ["runs"],
    ["search"],
    ["serving", "tracking"],
    ["gallery"],
    ["results"],
    ["explorer"],
    ["figures"],
    ["report"],
    ["kernel_server"],
    ["notebooks"],
    ["matrix"],
    ["doctor"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "imgrec_lib" else [f"imgrec_lib.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        names = [name for name in names if name != "imgrec_lib.__version__"]
        rooms |= {name.split(".")[1] for name in names if name.startswith("imgrec_lib.")}
    return rooms


def test_the_tests_stand_where_the_package_has_what_they_test() -> None:
    """A folder of tests is a package of imgrec_lib (or the notebooks), and no test module imports another."""
    tests = ROOT / "tests"
    for path in tests.rglob("test_*.py"):
        folder = path.parent.relative_to(tests).as_posix()
        assert folder == "." or (ROOT / "imgrec_lib" / folder).is_dir() or folder == "notebooks", path
        assert not re.search(r"^(from|import) test_", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_no_module_imports_downstream() -> None:
    package = ROOT / "imgrec_lib"
    seen = set()
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        seen.add(room)
        for other in imported_rooms(path) - {room}:
            assert RANK[other] < RANK[room], f"{path.relative_to(ROOT)} imports {other}, which comes after {room}"
    assert seen == RANK.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {}
    for path in (ROOT / "imgrec_lib").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    imported: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                paths = (f"{node.module}.{alias.name}" for alias in node.names)
                found |= {each if each in modules else node.module for each in paths}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        imported[name] = found & modules.keys() - {"imgrec_lib"}  # that one is imported for its version alone
    assert imported["imgrec_lib.gallery.live"] == {"imgrec_lib.gallery.gallery"}
    TopologicalSorter(imported).prepare()  # raises CycleError, which names the modules


def test_no_engine_knows_a_model_by_name() -> None:
    """Outside `models/` no text names a model of the registry, but for docstrings, and no module imports one's."""
    names = sorted(list_models().keys() - list_datasets().keys(), key=len, reverse=True)
    named = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")
    assert named.search("--model bpr-mf") and not named.search("imgrec-100")
    own = {card.build.__module__ for card in list_models().values()}
    for path in (ROOT / "imgrec_lib").rglob("*.py"):
        if "models" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                assert not named.search(node.value), f"{path.relative_to(ROOT)}:{node.lineno} names a model"
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in own, f"{path.relative_to(ROOT)}:{node.lineno} imports a model"


def test_every_module_has_a_docstring() -> None:
    for path in (ROOT / "imgrec_lib").rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_environment_yml_installs_what_pyproject_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["channels"] == ["conda-forge"]
    assert f"python{project['requires-python']}" in conda and "pip" in conda
    (editable,) = [entry for entry in pip if entry.startswith("-e .")]
    extras = editable.removeprefix("-e .[").removesuffix("]").split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    assert "-c constraints.txt" in pip


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [
        text for name in ("notebooks", "report", "dask", "fuzz", "test") for text in extras[name]
    ]
    for requirement in map(Requirement, wanted):
        own = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert own or requirement.name == "imgrec", requirement
        for specifier in [specifier for pin in own for specifier in pin.specifier]:
            assert specifier.operator == "==" and requirement.specifier.contains(specifier.version), requirement


def test_the_extras_of_pyproject_bring_the_modules_that_are_asked_for() -> None:
    from importlib.metadata import packages_distributions

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = {
        **packages_distributions(),
        "mlflow": ["mlflow-skinny"],
        "umap": ["umap-learn"],
        "wandb": ["wandb"],
        "sentence_transformers": ["sentence-transformers"],
    }
    for extra, modules in EXTRAS.items():
        requirements = [Requirement(text) for text in extras[extra]]
        brought = {canonicalize_name(each.name) for each in requirements} - {"imgrec"}
        for other in [other for each in requirements if each.name == "imgrec" for other in each.extras]:
            brought |= {canonicalize_name(Requirement(text).name) for text in extras[other]}
        assert {canonicalize_name(distributions[module][0]) for module in modules} == brought, extra
