"""Trackers get parameters, curve and metrics of a finished run, once; none is imported that was not asked for."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from commands import call
from paths import ROOT

from imgrec_lib import InputError, Run, train_run
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.matrix import Matrix, driver, run_matrix
from imgrec_lib.tracking import track


@pytest.fixture(scope="module")
def run(small_wardrobe: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "bpr"
    return train_run(
        small_wardrobe, "bpr-mf", folder, parameters={"epochs": 2, "factors": 4, "patience": 0}, progress=False
    )


def test_tensorboard_reads_what_was_written(run: Run) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    folder = Path(track(run, "tensorboard"))
    assert folder == run.folder.parent / "tensorboard" / "bpr"
    for _ in range(2):  # a second time nothing is added
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        curve = events.Scalars("curve/validation_auc")
        assert [event.step for event in curve] == [0, 1, 2]
        assert [event.value for event in curve] == pytest.approx(run.curve["validation_auc"].tolist(), rel=1e-6)
        (final,) = events.Scalars("exact/ndcg@10")
        assert final.value == pytest.approx(run.metrics["exact"]["ndcg@10"], rel=1e-6)
        assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
        track(run, "tensorboard")


def test_mlflow_keeps_parameters_curve_and_metrics(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="no mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer clients want to be told
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    where = track(run, "mlflow")
    assert where == track(run, "mlflow")
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name("imgrec wardrobe")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["model"] == "bpr-mf"
    assert found.data.params["factors"] == "4" and found.data.params["phase1.epochs"] == "2"
    assert found.data.metrics["exact/hr_at_10"] == run.metrics["exact"]["hr@10"]
    history = client.get_metric_history(found.info.run_id, "curve/validation_auc")
    assert [each.value for each in sorted(history, key=lambda each: each.step)] == run.curve["validation_auc"].tolist()


def test_wandb_is_called_as_its_client_wants(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the client, which is not installed where the tests run and would want an account."""
    calls: list[tuple[str, Any]] = []

    class Written:
        resumed = False
        summary = types.SimpleNamespace(update=lambda values: calls.append(("summary", values)))

        def log(self, values: dict[str, float], step: int) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    client = types.ModuleType("wandb")
    client.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    client.init = lambda **options: calls.append(("init", options)) or Written()  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "wandb", client)
    track(run, "wandb")
    names = [name for name, _ in calls]
    assert names == ["init", "log", "log", "log", "summary", "finish"]
    assert calls[0][1]["config"]["factors"] == 4 and calls[0][1]["name"] == "bpr"
    assert [step for step, _ in (values for name, values in calls if name == "log")] == [0, 1, 2]
    assert calls[4][1]["exact/auc"] == run.metrics["exact"]["auc"]
    Written.resumed = True
    track(run, "wandb")
    assert [name for name, _ in calls[6:]] == ["init", "finish"]


def test_unknown_and_missing_trackers_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "--model", "poprank", "--out", str(tmp_path / "run"), "--track")
    status, _, err = call(monkeypatch, capsys, *arguments, "mlfow")
    assert status == 2 and "unknown tracker 'mlfow': did you mean 'mlflow'?" in err
    monkeypatch.setitem(sys.modules, "wandb", None)
    status, _, err = call(monkeypatch, capsys, *arguments, "wandb")
    assert status == 2 and "wandb is not installed: install what is missing with pip install 'imgrec[wandb]'" in err
    with pytest.raises(InputError, match="unknown tracker 'x'"):
        run_matrix(Matrix(track=["x"]), tmp_path / "runs", tmp_path / "reports", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_tracks_and_imports_no_tracker_that_was_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard")
    small = ("-o", "n_users=40", "-o", "n_items=50", "-o", "image_size=32", "--no-notebook", "--quiet")
    out = tmp_path / "runs" / "pop"
    arguments = ("train", "--model", "poprank", *small, "--out", str(out), "--track", "tensorboard")
    status, text, err = call(monkeypatch, capsys, *arguments)
    assert status == 0 and f"tensorboard: {tmp_path / 'runs' / 'tensorboard' / 'pop'}" in text, err
    assert list((tmp_path / "runs" / "tensorboard" / "pop").glob("events.*"))
    code = (
        "import sys, imgrec_lib.cli, imgrec_lib.matrix, imgrec_lib.serving, imgrec_lib.tracking\n"
        "print(sorted({'mlflow', 'wandb', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


def test_a_matrix_tracks_its_finished_trials(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that fails stops nothing."""
    seen: list[tuple[str, str]] = []
    said: list[str] = []

    def tracked(found: Run, name: str) -> str:
        seen.append((found.name, name))
        raise ConnectionError("no route")

    monkeypatch.setattr(driver, "track", tracked)
    trials = [types.SimpleNamespace(state=s, folder=run.folder, name=f"trial {s}") for s in ("done", "failed")]
    some = object.__new__(driver._Driver)
    some.matrix, some.say = Matrix(track=["tensorboard", "mlflow"]), said.append
    monkeypatch.setattr(driver._Driver, "plan", lambda self: types.SimpleNamespace(trials=trials))
    some.track()
    assert seen == [("bpr", "tensorboard"), ("bpr", "mlflow")]
    assert said == [
        f"not tracked by {name}: trial done: ConnectionError: no route" for name in ("tensorboard", "mlflow")
    ]
