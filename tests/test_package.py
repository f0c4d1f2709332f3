"""The package as people install it: built, installed outside the checkout, and used from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

import imgrec_lib

SMALL = ["-o", "n_users=60", "-o", "n_items=50", "-o", "image_size=32"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that succeeds; the checkout is not on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=kept | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        # Python before 3.11.4 has no filter.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        packed.extractall(folder, **safely)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution makes."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=sdist)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The command `imgrec` of an environment with the wheel in it, called in an empty folder.

    The wheel's dependencies are those of the environment that runs the tests.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "env", with_pip=False)
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = folder / "empty"
    work.mkdir()

    templates = Path(sysconfig.get_path("data")) / "share" / "jupyter"  # nbconvert's, which are beside no module

    def call(*arguments: str | Path, command: str = "imgrec") -> str:
        return run(scripts / command, *arguments, cwd=work, JUPYTER_PATH=str(templates))

    return call


def test_wheel_and_source_distribution_hold_notebooks_matrices_and_tests(sdist: Path, wheel: Path) -> None:
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    for folder, ending in [("notebooks", "ipynb"), ("matrices", "yaml")]:
        here = {path.name for path in (ROOT / folder).glob(f"*.{ending}")}
        assert here and here == {path.name for path in (sdist / folder).glob(f"*.{ending}")}
        assert {f"imgrec_lib/shipped/{folder}/{name}" for name in here} <= in_wheel
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "imgrec_lib").rglob("*.py")}
    assert code | {"imgrec_lib/py.typed", "imgrec_lib/__init__.pyi"} <= in_wheel
    assert not {name for name in in_wheel if not name.startswith(("imgrec_lib/", "imgrec-"))}
    tests = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert all((sdist / path).is_file() for path in tests)


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_collect(sdist: Path) -> None:
    quickly = ("--assert=plain", "-p", "no:cacheprovider", "-p", "no:nbval")
    text = run(sys.executable, "-m", "pytest", "-q", "--collect-only", *quickly, cwd=sdist)
    assert "tests/test_package.py::test_the_installed_wheel_trains_and_reports" in text


@pytest.mark.slow
def test_the_installed_command_says_its_version_and_models(installed: Callable[..., str]) -> None:
    assert installed("--version") == f"imgrec {imgrec_lib.__version__}\n"
    where = installed(
        "-c", "import imgrec_lib, sys; print(imgrec_lib.__file__, *sys.path, sep='\\n')", command="python"
    )
    assert "environment" in where.splitlines()[0] and str(ROOT) not in where.splitlines()
    models = [row["name"] for row in json.loads(installed("models", "--json"))]
    assert "imgrec-ft" in models


@pytest.mark.slow
def test_the_installed_wheel_trains_and_reports(installed: Callable[..., str]) -> None:
    text = installed("train", "--model", "poprank", "--out", "runs/pop", "--quiet", *SMALL)
    assert "exact" in text and "open runs/pop/notebook.ipynb" in text
    said = installed("report", "runs", "--out", "reports", "--quiet")
    assert "PopRank has AUC 0." in said and said.endswith("open reports/index.html\n")
    assert "PopRank" in installed("-c", "print(open('reports/index.html').read())", command="python")
    assert installed("explore", "runs", "--notebook", "reports/explore.ipynb") == "open reports/explore.ipynb\n"
    assert "wardrobe imgrec-ft seed 2" in installed("run", "default", "--dry-run")


def test_importing_the_package_and_asking_for_help_imports_no_numerical_library() -> None:
    code = (
        "import sys, imgrec_lib, imgrec_lib.cli\n"
        "sys.argv = ['imgrec', '--help']\n"
        "try:\n    imgrec_lib.cli.main()\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'pandas', 'yaml', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(sys.executable, "-c", code, cwd=ROOT).splitlines()[-1] == "[]"


def test_every_public_name_is_there_and_comes_from_the_module_that_the_stub_names() -> None:
    assert set(imgrec_lib.__all__) <= set(dir(imgrec_lib))
    for name in imgrec_lib.__all__:
        assert getattr(imgrec_lib, name).__name__ == name and getattr(imgrec_lib, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        imgrec_lib.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_one_and_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert "version" in project["dynamic"] and f"\nversion: {imgrec_lib.__version__}\n" in citation
