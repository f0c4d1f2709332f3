"""A model for use: trained on everything, as long as its run took to its best validation, and never reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call
from toy import planted_dataset

from imgrec_lib import InputError, build_model, fit, open_trained, train_run
from imgrec_lib.request import Request
from imgrec_lib.runs import find_runs, open_run, refit
from imgrec_lib.runs.refit import chosen_lengths

SMALL = {"n_users": 60, "n_items": 50, "image_size": 32}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bpr"
    parameters = {"epochs": 6, "factors": 4, "patience": 2, "learning_rate": 0.05}
    request = Request("bpr-mf", parameters=parameters, dataset="wardrobe", dataset_options=SMALL)
    train_run(request.load(progress=False)[0], request, folder, progress=False)
    return folder


def test_nothing_is_held_out_of_an_undivided_dataset() -> None:
    dataset, _ = planted_dataset()
    whole = dataset.undivided()
    for user in range(dataset.n_users):
        all_of_them = {*dataset.train.of(user), *dataset.validation.of(user), *dataset.test.of(user)}
        assert set(whole.train.of(user).tolist()) == {int(item) for item in all_of_them}
    assert len(whole.validation) == len(whole.test) == 0
    assert len(whole.train) == len(dataset.train) + 2 * dataset.n_users
    assert whole.train.times is not None and dataset.test.times is not None
    # The latest purchase of each user is the test item, whose time came along.
    ends = np.maximum.reduceat(whole.train.times, whole.train.indptr[:-1])
    assert (ends == dataset.test.times).all()
    assert whole.fingerprint != dataset.fingerprint


def test_a_refitted_run_is_the_training_of_that_length_on_everything(run_folder: Path, tmp_path: Path) -> None:
    run = open_run(run_folder)
    best = run.record.validation.epoch
    assert chosen_lengths(run) == {"phase1_epochs": best, "phase1_patience": 0, "phase1_restore": "last"}
    refitted = refit(run, tmp_path / "used", progress=False)
    dataset, _ = run.request.load(progress=False)
    data = dataset.undivided().training_data()
    parameters = run.request.parameters | {"epochs": best, "patience": 0, "restore": "last"}
    model = build_model("bpr-mf", data, seed=0, **parameters)
    fit(model, data, None, seed=0, progress=False)
    trained = open_trained(refitted, progress=False)
    for name, value in model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], value), name
    assert len(trained.dataset.test) == 0 and len(trained.recommend(["user-0001"], 3)) == 3


def test_nobody_reports_a_refitted_run(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(monkeypatch, capsys, "refit", str(run_folder), "--out", str(tmp_path / "used"))
    assert status == 0, err
    assert "BPR-MF on" in out
    record = open_run(tmp_path / "used").record
    assert record.stage == "refit" and record.metrics == {} and record.oracle is None
    assert not (tmp_path / "used" / "per_user.parquet").exists()
    with pytest.raises(InputError, match="holds no finished run"):
        find_runs(tmp_path)
    to_lists = ("compare-lists", "lists.csv", "--out", str(tmp_path / "lists"), "--run")
    for command in (("evaluate",), to_lists):
        status, _, err = call(monkeypatch, capsys, *command, str(tmp_path / "used"))
        assert status == 2 and "held-out item" in err and "was trained on all interactions" in err
    with pytest.raises(InputError, match="is no trial but of stage 'refit'"):
        refit(open_run(tmp_path / "used"), tmp_path / "again", progress=False)
