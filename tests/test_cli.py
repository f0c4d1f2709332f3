"""The console script: lists, sentences for bad input, and the main path from training to evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call
from narrow import not_none

from imgrec_lib import list_datasets, list_models, open_run
from imgrec_lib.cli import app

COMMANDS = [
    "models",
    "pictures",
    "serve",
    "backbones",
    "datasets",
    "train",
    "evaluate",
    "report",
    "run",
    "search",
    "watch",
    "recommend",
    "refit",
    "compare-lists",
    "similar",
    "score",
    "embed",
    "export",
    "explore",
    "cache",
    "doctor",
]


def test_every_command_has_help_with_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(command.name or not_none(command.callback).__name__ for command in app.registered_commands) == sorted(
        COMMANDS
    )
    for command in COMMANDS:
        status, out, _ = call(monkeypatch, capsys, command, "--help")
        assert status == 0 and "Example: imgrec" in out, command
    _, out, _ = call(monkeypatch, capsys, "--help")
    assert "..." not in out.partition("Commands:")[2], "a sentence is too long for the list"


def test_backbones_say_what_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(monkeypatch, capsys, "backbones")
    assert out.startswith("efficientnet-lite0\n") and "open_clip/<model>/<weights>\n" in out and "Apache-2.0" in out
    status, out, _ = call(monkeypatch, capsys, "backbones", "timm/test_vit", "--json")
    (card,) = json.loads(out)
    assert status == 0 and (card["size"], card["features"], card["licence"]) == (160, 64, "apache-2.0")
    assert card["blocks"] == [f"blocks.{i}" for i in range(6)] and not card["text"]


def test_lists_in_json_and_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(monkeypatch, capsys, "models", "--json")
    rows = json.loads(out)
    assert status == 0 and [row["name"] for row in rows] == list(list_models())
    for row in rows:
        assert (
            row["fidelity"] in ("faithful", "reconstruction", "own") and "default" in row["profiles"] and row["source"]
        )
    _, out, _ = call(monkeypatch, capsys, "models")
    assert "imgrec-ft" in out and "needs     features" in out
    _, out, _ = call(monkeypatch, capsys, "datasets", "--json")
    assert [row["name"] for row in json.loads(out)] == list(list_datasets())


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["train", "--model", "imgrec-fd", "--out", "x"], "did you mean 'imgrec-ft'"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factor=3"], "did you mean 'factors'"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factors"], "write name=value"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factors=many"], "must be int"),
        (["train", "--model", "bpr-mf", "--out", "x", "--profile", "papr"], "did you mean 'paper'"),
        (["evaluate", "nowhere"], "no finished run"),
        (["report", "nowhere", "--out", "x"], "no finished run"),
        (["run", "nowhere.yaml"], "no matrix file"),
        (["run", "nowhere.yaml", "--retry", "all"], "--retry takes 'failed'"),
        (["watch", "nowhere.yaml"], "no matrix file"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert err.startswith("imgrec: ") and sentence in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_from_training_to_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["-o", "n_users=60", "-o", "n_items=50", "-o", "image_size=32"]
    parameters = ["-p", "epochs=1", "-p", "factors=4"]
    out = tmp_path / "run"
    status, text, err = call(
        monkeypatch, capsys, "train", "--model", "bpr-mf", "--out", str(out), *options, *parameters
    )
    assert status == 0, err
    assert (out / "run.json").exists() and (out / "notebook.ipynb").exists() and "exact" in text
    record = open_run(out).record
    # The end is the result, and what was counted on the way is epochs, of which the notebook keeps no dead bar.
    auc = record.metrics["exact"]["auc"]
    assert text.startswith("BPR-MF") and f" on wardrobe: AUC {auc:.4f} [0." in text and "imgrec report" in text
    assert "training" in err and "cell" not in err and not list(out.glob("*.progress.json"))
    assert "epoch/s" not in (out / "notebook.ipynb").read_text()
    assert record.parameters["factors"] == 4 and record.requested["dataset_options"]["n_items"] == 50
    status, text, err = call(monkeypatch, capsys, "evaluate", str(out), "--json")
    assert status == 0, err
    assert json.loads(text) == record.metrics


def test_a_dry_run_says_what_would_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text("models: [poprank, bpr-mf]\nseeds: [0, 1]\n")
    monkeypatch.chdir(tmp_path)
    status, out, _ = call(monkeypatch, capsys, "run", str(matrix), "--dry-run", "--only", "model=bpr-mf")
    assert status == 0 and "to do" in out and "wardrobe bpr-mf seed 1" in out and "poprank" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.yaml"]
    for only, sentence in [("model", "write key=value"), ("model=bpr", "did you mean 'bpr-mf'")]:
        status, _, err = call(monkeypatch, capsys, "run", str(matrix), "--dry-run", "--only", only)
        assert status == 2 and sentence in err


def test_the_script_is_installed() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "datasets"], capture_output=True, text=True
    )
    assert result.returncode == 0 and "wardrobe" in result.stdout


def test_the_explorer_is_prepared_for_the_runs_that_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, text, err = call(monkeypatch, capsys, "explore", "my {runs}", "--notebook", "seen/e.ipynb")
    assert (status, text) == (0, "open seen/e.ipynb\n"), err
    parameters = json.loads((tmp_path / "seen" / "e.ipynb").read_text())["metadata"]["papermill"]["parameters"]
    assert parameters == {"runs": str(tmp_path / "my {runs}"), "root": {}, "address": ""}


def test_home_and_numbers_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text("datasets: {shop: {dataset: table, root: x}}\nmodels: [poprank]\n")
    home = str(tmp_path / "home")
    for arguments, seen in [
        (["evaluate", "~/run"], f"{home}/run holds no finished run"),
        (["report", "./~", "--out", "x"], " ~ holds no finished run"),
        (
            ["train", "--model", "bpr-mf", "--out", "x", "--dataset", "table", "--root=~/shop", "--no-notebook"],
            f"{home}/shop",
        ),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "learning_rate=-.5"], "not -0.5"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factors=None"], "not None"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factors=True"], "not True"),
        (["train", "--model", "bpr-mf", "--out", "x", "-p", "factors=007"], "not '007'"),
    ]:
        status, _, err = call(monkeypatch, capsys, *arguments)
        assert status == 2 and seen in err, (arguments, err)
