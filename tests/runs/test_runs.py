"""The run record: complete or absent, repeatable, tied to its data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import metric_value, not_none
from paths import TESTS

from imgrec_lib import InputError, evaluate, extract_features, find_runs, load_dataset, load_model, open_run, train_run
from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.data.images import ImageStore
from imgrec_lib.evaluation import PROTOCOLS
from imgrec_lib.features import Features
from imgrec_lib.results import Results
from imgrec_lib.results.tables import cautions
from imgrec_lib.runs import DatasetRecord, Run
from imgrec_lib.runs.record import LATER_SETTINGS

FAST: dict[str, Any] = {"factors": 4, "epochs": 2, "patience": 0}


@pytest.fixture(scope="module")
def features(small_wardrobe: Dataset) -> Features:
    return extract_features(not_none(small_wardrobe.images), weights="random", size=32, progress=False)


@pytest.fixture(scope="module")
def run(small_wardrobe: Dataset, features: Features, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "ft"
    return train_run(small_wardrobe, "imgrec-ft", out, features=features, parameters=FAST, seed=3, progress=False)


def test_a_run_says_what_made_it_and_what_came_out(run: Run, small_wardrobe: Dataset, features: Features) -> None:
    record = run.record
    assert json.loads((run.folder / "run.json").read_text()) == record.to_json()
    assert record.dataset.fingerprint == small_wardrobe.fingerprint
    assert record.parameters["factors"] == 4 and record.phases[0]["epochs"] == 2
    assert record.features == features.identity and record.features["random"] == "yes"
    assert set(record.metrics) == set(PROTOCOLS) == set(not_none(record.oracle))
    assert metric_value(record.oracle, "exact", "auc") > metric_value(record.metrics, "exact", "auc")
    assert {"torch", "numpy", "imgrec", "python"} <= record.versions.keys()
    assert list(run.curve["epoch"]) == [0, 1, 2]
    assert record.validation.auc == pytest.approx(run.curve["validation_auc"].max())
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "curve.csv", "ids.parquet", "model.safetensors", "per_user.parquet", "run.json", "state.safetensors",
    ]  # fmt: skip


def test_a_run_is_chosen_by_the_metric_that_is_asked_for(small_wardrobe: Dataset, tmp_path: Path) -> None:
    options = {"factors": 4, "epochs": 6, "patience": 0, "learning_rate": 0.05}
    by_auc, as_ever, by_ndcg = (
        train_run(small_wardrobe, "bpr-mf", tmp_path / name, parameters=options | more, progress=False)
        for name, more in (("auc", {"choose_by": "auc"}), ("default", {}), ("ndcg", {"choose_by": "ndcg@5"}))
    )
    assert by_auc.record.identity == as_ever.record.identity != by_ndcg.record.identity
    assert by_auc.metrics == as_ever.metrics and list(by_auc.curve) == list(as_ever.curve)
    found, curve = by_ndcg.record.validation, by_ndcg.curve
    assert found.choose_by == "ndcg@5" and found.epoch == curve["validation_ndcg@5"].idxmax()
    assert found.metrics["ndcg@5"] == curve["validation_ndcg@5"].max()
    assert found.metrics["auc"] == found.auc == curve["validation_auc"][found.epoch]
    assert by_auc.record.validation.epoch == by_auc.curve["validation_auc"].idxmax()
    assert (found.value("ndcg@5"), found.value()) == (found.metrics["ndcg@5"], found.auc)
    assert found.value("map@7") == -np.inf
    again = evaluate(load_model(by_ndcg, small_wardrobe), small_wardrobe, part="validation", cutoffs=[5, 10, 20])
    for name, value in found.metrics.items():
        assert value == pytest.approx(again.metrics["exact"][name]), name
    sampled = train_run(
        small_wardrobe, "bpr-mf", tmp_path / "sampled", parameters=options | {"validation_users": 20}, progress=False
    )
    assert sampled.record.validation.users == 20 < by_auc.record.validation.users == small_wardrobe.n_users
    assert sampled.record.phases[0]["validation_users"] == 20 and "validation_users" not in by_auc.record.phases[0]
    assert not LATER_SETTINGS.keys() & by_auc.record.phases[0].keys()  # earlier runs, which had none, share its row
    assert any("Weights were chosen on a sample" in each and "(20)" in each for each in cautions(Results.of([sampled])))
    for wrong, sentence in (("ndcg@10000", "longer than the catalogue"), ("coverage@10", "nothing to choose by")):
        with pytest.raises(InputError, match=sentence):
            train_run(small_wardrobe, "bpr-mf", tmp_path / "wrong", parameters={"choose_by": wrong}, progress=False)


def test_without_validation_items_nothing_is_chosen(small_wardrobe: Dataset, tmp_path: Path) -> None:
    """Two test items a user and no validation: the last weights are kept and measured, the record says so."""
    train = small_wardrobe.train
    nobody = HeldOut(np.full(small_wardrobe.n_users, -1))
    last = train.indptr[1:] - 1
    two_each = HeldOut(
        Interactions.from_pairs(
            np.concatenate([np.arange(train.n_users), small_wardrobe.test.users]),
            np.concatenate([train.items[last], small_wardrobe.test.flat]), train.n_users, train.n_items,
        )
    )  # fmt: skip
    kept = np.delete(np.arange(len(train)), last)
    fewer = Interactions.from_pairs(train.users[kept], train.items[kept], train.n_users, train.n_items)
    dataset = replace(small_wardrobe, train=fewer, validation=nobody, test=two_each)
    run = train_run(dataset, "bpr-mf", tmp_path / "r", parameters=FAST | {"patience": 1}, progress=False)
    found = run.record.validation
    assert (found.auc, found.metrics, found.epoch) == (None, {}, 2) and np.isnan(found.value())
    assert run.curve["validation_auc"].isna().all() and len(run.curve) == 3
    assert run.metrics["exact"]["held_out"] == 2 * metric_value(run.metrics, "exact", "users") == 2 * dataset.n_users
    again = evaluate(load_model(open_run(run.folder), dataset), dataset)
    assert again.metrics == run.metrics


def test_recorded_metrics_are_those_of_the_saved_weights(run: Run, small_wardrobe: Dataset, features: Features) -> None:
    model = load_model(run, small_wardrobe, features)
    again = evaluate(model, small_wardrobe, seed=3, features=features.values)
    assert again.metrics == run.metrics
    pd.testing.assert_frame_equal(again.per_user, run.per_user)
    exact = run.per_user
    by_hand = 1 - (exact["exact/higher"] + exact["exact/tied"] / 2) / exact["exact/candidates"]
    assert run.metrics["exact"]["auc"] == pytest.approx(by_hand.mean())


def test_a_complete_run_is_opened_and_another_one_is_refused(
    run: Run, small_wardrobe: Dataset, features: Features
) -> None:
    before = (run.folder / "run.json").stat().st_mtime_ns
    options: dict[str, Any] = {"features": features, "parameters": FAST, "progress": False}
    again = train_run(small_wardrobe, "imgrec-ft", run.folder, seed=3, **options)
    assert again.record == run.record and (run.folder / "run.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another run"):
        train_run(small_wardrobe, "imgrec-ft", run.folder, seed=4, **options)


def test_a_run_stopped_in_training_or_in_evaluation_ends_as_if_undisturbed(
    run: Run, small_wardrobe: Dataset, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgrec_lib.runs import train

    options: dict[str, Any] = {
        "features": features,
        "parameters": FAST,
        "seed": 3,
        "save_every": 0.0,
        "progress": False,
    }

    def stop(*args: object, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(small_wardrobe, "imgrec-ft", tmp_path / "r", **options)
    with pytest.raises(InputError, match="no finished run"):
        open_run(tmp_path / "r")
    monkeypatch.undo()
    again = train_run(small_wardrobe, "imgrec-ft", tmp_path / "r", **options)
    assert again.metrics == run.metrics
    left, right = (load_model(r, small_wardrobe, features).state_dict() for r in (run, again))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_model_without_features_does_not_depend_on_them(
    small_wardrobe: Dataset, features: Features, tmp_path: Path
) -> None:
    with_features = train_run(
        small_wardrobe, "bpr-mf", tmp_path / "a", features=features, parameters=FAST, progress=False
    )
    without = train_run(small_wardrobe, "bpr-mf", tmp_path / "b", parameters=FAST, progress=False)
    assert with_features.record.identity == without.record.identity
    assert with_features.record.features is None
    for protocol, measured in without.metrics.items():
        # Features given to such a run serve to measure how alike the recommended items look, and nothing else.
        looks = {name for name, value in measured.items() if name.startswith("visual_diversity") and value is None}
        assert len(looks) == 2 * (protocol == "exact")
        assert {name: with_features.metrics[protocol][name] for name in measured.keys() - looks} == {
            name: measured[name] for name in measured.keys() - looks
        }
        assert all(with_features.metrics[protocol][name] is not None for name in looks)


def test_other_data_or_features_are_refused(
    run: Run, small_wardrobe: Dataset, features: Features, tmp_path: Path
) -> None:
    other = load_dataset("wardrobe", n_users=150, n_items=120, image_size=32, split_seed=9, progress=False)
    changed = (
        "was trained on 'wardrobe' with other data than 'wardrobe' has now: .*; seed 9 of the split \\(0 then\\); "
    )
    with pytest.raises(InputError, match=changed):
        load_model(run, other, features)
    with pytest.raises(
        InputError, match="needs the features it was trained with: backbone 'efficientnet-lite0', not No"
    ):
        load_model(run, small_wardrobe, None)
    few = Features(np.zeros((3, 4), np.float32), {}, "x")
    with pytest.raises(InputError, match="3 rows"):
        train_run(small_wardrobe, "imgrec-ft", tmp_path / "x", features=few, progress=False)
    assert not (tmp_path / "x").exists()


def test_a_record_says_what_of_its_data_has_changed(small_wardrobe: Dataset) -> None:
    record, data = DatasetRecord.of(small_wardrobe), small_wardrobe
    assert data.images is not None
    colour = data.items.assign(colour=data.items["colour"].to_numpy()[::-1], season="winter")
    first = data.train.users == 0
    train = Interactions.from_pairs(data.train.users[~first], data.train.items[~first], data.n_users, data.n_items)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"images": ImageStore(data.images.pixels, data.images.present, "others")}, "the pictures"),
        ({"items": colour}, "the column 'colour'; the column 'season'"),
        ({"items": data.items.drop(columns="colour")}, "the column 'colour'"),
        ({"train": train}, f"{len(train):,} training interactions ({len(data.train):,} then)"),
        ({"user_ids": data.user_ids[::-1]}, "the users"),
        ({"test": HeldOut(np.roll(data.test.items, 1))}, "the test items"),
    ]
    for changed, words in cases:
        assert record.changes(replace(data, **changed)) == words
    old = replace(record, parts={})
    assert (
        old.changes(replace(data, items=colour)) == "ids, interactions, the item table or pictures, in the same numbers"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', "\udcff"])
def test_a_damaged_record_gets_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(tmp_path)


def test_finding_runs(run: Run, tmp_path: Path) -> None:
    assert [found.record.identity for found in find_runs(run.folder.parent)] == [run.record.identity]
    with pytest.raises(InputError, match="no finished run"):
        find_runs(tmp_path)


@pytest.mark.parametrize("name", ["trial", "grid"])
def test_runs_of_the_first_format_still_open_and_are_written_as_they_were(tmp_path: Path, name: str) -> None:
    """The two files are records that version 0.1.0 wrote, before records had types."""
    content = (TESTS / "finished" / f"{name}.json").read_bytes()
    (tmp_path / "run.json").write_bytes(content)
    record = open_run(tmp_path).record
    stage = {"grid": "search"}.get(name, name)  # what a grid's run was is a search's now
    assert (record.stage, record.tested, bool(record.metrics)) == (stage, name == "trial", name == "trial")
    written = record.to_json() | {"stage": name}
    later = {name: written["validation"].pop(name) for name in ("choose_by", "metrics", "users")}
    assert later == {
        "choose_by": "auc",
        "metrics": {},
        "users": 0,
    }  # what records say since models are chosen by other metrics too
    assert written.pop("personal") is None and written.pop("started_from") is None and written.pop("pruned") is False
    assert written["dataset"].pop("parts") == {}
    assert json.dumps(written) == json.dumps(json.loads(content))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", "0"),
        ("seed", True),
        ("dataset/users", 1.5),
        ("validation/auc", "high"),
        ("cost/seconds_fit", "long"),
        ("phases", {}),
        ("metrics/exact", 0.5),
        ("metrics/exact/auc", "good"),
        ("title", None),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path: Path, place: str, value: object) -> None:
    record = json.loads((TESTS / "finished" / "trial.json").read_text())
    *outer, last = place.split("/")
    inner = record
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"its field '{place}[^ ]*' is missing or of another type"):
        open_run(tmp_path)
    del inner[last]
    (tmp_path / "run.json").write_text(json.dumps(record))
    if place != "metrics/exact/auc":
        with pytest.raises(InputError, match=rf"its field '{place}' is missing or of another type"):
            open_run(tmp_path)


def test_a_run_from_before_the_item_table_named_groups_still_opens(small_wardrobe: Dataset, tmp_path: Path) -> None:
    assert small_wardrobe.groups is not None
    run = train_run(small_wardrobe.without_groups(), "bpr-mf", tmp_path / "run", parameters=FAST, progress=False)
    assert run.record.dataset.fingerprint != small_wardrobe.fingerprint
    users, items = torch.arange(3), torch.arange(6).view(3, 2)
    loaded, before = (load_model(run, data) for data in (small_wardrobe, small_wardrobe.without_groups()))
    assert torch.equal(loaded.scorer().pairs(users, items), before.scorer().pairs(users, items))
