"""What works without the extras, and what is said where one is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imgrec_lib.errors import InputError
from imgrec_lib.extras import EXTRAS, require

BLOCKED = sorted({module for modules in EXTRAS.values() for module in modules} - {"jinja2", "markupsafe"})
"""jinja2 and markupsafe come with PyTorch."""

BLOCK = f"""
import sys
for name in {[*BLOCKED, "timm", "IPython", "traitlets", "nbclient", "jupyter_client", "seaborn"]}:
    sys.modules[name] = None
"""

CORE = """
from pathlib import Path
import imgrec_lib.cli, imgrec_lib.matrix
from imgrec_lib import ValidationAUC, build_model, evaluate, fit, load_dataset, train_run

dataset = load_dataset("wardrobe", n_users=60, n_items=50, image_size=32, progress=False)
for model, parameters in [("poprank", {}), ("bpr-mf", {"epochs": 2, "factors": 4})]:
    built = build_model(model, dataset.training_data(), **parameters)
    fit(built, dataset.training_data(), ValidationAUC(dataset), progress=False)
    evaluation = evaluate(built, dataset)
    run = train_run(dataset, model, Path(model), parameters=parameters, progress=False)
    assert run.metrics == evaluation.metrics, model
    print(model, evaluation.metrics["exact"]["auc"])
"""

COMMANDS = """
from imgrec_lib.cli import main

def call(*arguments):
    sys.argv = ["imgrec", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("status", ended.code, file=sys.stderr)

call("report", ".", "--out", "reports")
call("train", "--model", "poprank", "--out", "run")
call("train", "--model", "poprank", "--out", "run", "--no-notebook", "-o", "n_users=60", "-o", "n_items=50", "--quiet")
call("serve", "run")
"""


def blocked(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_training_and_evaluation_need_no_extra(tmp_path: Path) -> None:
    done = blocked(CORE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["poprank", "bpr-mf"]


@pytest.mark.slow
def test_commands_say_which_extra_they_need_and_the_others_work(tmp_path: Path) -> None:
    done = blocked(COMMANDS, tmp_path)
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith(("imgrec:", "status"))] == [
        "imgrec: latex2mathml, matplotlib, nbconvert, nbformat are not installed: install what is missing with "
        "pip install 'imgrec[report]'.",
        "status 2",
        "imgrec: latex2mathml, matplotlib, nbconvert, nbformat, anywidget, ipykernel, ipywidgets, jupyterlab, "
        "papermill, pydeck, tornado are not installed: install what is missing with pip install 'imgrec[notebooks]'.",
        "status 2",
        "status 0",
        "imgrec: fastapi, fastapi_offline, uvicorn, python_multipart are not installed: install what is missing with "
        "pip install 'imgrec[serve]'.",
        "status 2",
    ], done.stderr
    assert "exact" in done.stdout and (tmp_path / "run" / "run.json").exists() and "Traceback" not in done.stderr


def test_one_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require("report")
    monkeypatch.setitem(sys.modules, "nbconvert", None)
    with pytest.raises(InputError, match=r"^nbconvert is not installed: .* pip install 'imgrec\[report\]'\.$"):
        require("report")
