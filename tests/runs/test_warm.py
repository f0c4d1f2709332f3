"""A warm start: weights go to whom they belong, by id, however the data grew; more epochs begin where the run ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from conformance import TRAINED, randomised, small
from narrow import not_none
from records import record
from toy import N_CATEGORIES, N_ITEMS, N_USERS, planted_dataset, toy_data

from imgrec_lib import InputError, Request, build_model, extract_features, open_run, train_run
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.models import model_card
from imgrec_lib.runs import Run
from imgrec_lib.runs.warm import FILE, STATE, moments_from, start_from, write_ids
from imgrec_lib.training import fit, read_checkpoint, trainer, write_checkpoint
from imgrec_lib.training.rows import RowAdam

MORE_USERS, MORE_ITEMS = 29, 41
RNG = np.random.default_rng(0)
USERS, ITEMS = RNG.permutation(MORE_USERS)[:N_USERS], RNG.permutation(MORE_ITEMS)[:N_ITEMS]
"""Where the users and items of the toy data stand in the grown data."""


def spread(values: np.ndarray) -> np.ndarray:
    """Values of the old items at their new places; the new items have those of item 1."""
    grown = np.repeat(values[1:2], MORE_ITEMS, 0)
    grown[ITEMS] = values
    return grown


def grown(data: TrainingData) -> TrainingData:
    """Six more users and four more items, all in another order, and a category before all others."""
    train = data.interactions
    users = np.r_[USERS[train.users], np.setdiff1d(np.arange(MORE_USERS), USERS)]
    items = np.r_[ITEMS[train.items], np.full(MORE_USERS - N_USERS, ITEMS[3])]
    assert train.times is not None and data.categories is not None and data.attributes is not None
    assert data.features is not None and data.images is not None and data.groups is not None
    times = np.r_[train.times, np.full(MORE_USERS - N_USERS, train.times[0])]
    categories = spread(data.categories + 1)
    categories[np.setdiff1d(np.arange(MORE_ITEMS), ITEMS)[0]] = 0
    return TrainingData(
        interactions=Interactions.from_pairs(users, items, MORE_USERS, MORE_ITEMS, times),
        categories=categories,
        n_categories=N_CATEGORIES + 1,
        groups=spread(data.groups),
        attributes=data.attributes.iloc[spread(np.arange(N_ITEMS))].reset_index(drop=True),
        features=spread(data.features),
        images=ImageStore.from_array(spread(data.images.pixels), spread(data.images.present)),
    )


def named(data: TrainingData, users: np.ndarray, items: np.ndarray, first: int) -> Dataset:
    """A dataset of that many users and items, whose ids are the numbers of the old ones."""
    assert data.categories is not None
    table = pd.DataFrame(
        {Columns.ITEM: items.astype(str), Columns.CATEGORY: [f"c{c + first}" for c in data.categories]}
    )
    nothing = HeldOut(np.full(data.n_users, -1))
    return Dataset("toy", users.astype(str), table, data.interactions, nothing, nothing)


@pytest.mark.parametrize("name", TRAINED)
def test_every_row_goes_to_its_id_and_new_ones_keep_their_initial_weights(name: str, tmp_path: Path) -> None:
    data = toy_data()
    old = randomised(small(name, data))
    write_checkpoint(tmp_path / "model.safetensors", {"model": old.state_dict()}, {}, "")
    write_ids(named(data, np.arange(N_USERS), np.arange(N_ITEMS), 1), tmp_path)
    more = grown(data)
    user_ids, item_ids = np.arange(100, 100 + MORE_USERS), np.arange(100, 100 + MORE_ITEMS)
    user_ids[USERS], item_ids[ITEMS] = np.arange(N_USERS), np.arange(N_ITEMS)
    model, fresh = small(name, more, seed=5), small(name, more, seed=5).state_dict()
    run, now = Run(tmp_path, record(model=name)), named(more, user_ids, item_ids, 0)
    if "head_weight" in fresh:  # a classifier of attribute values, of which there is one more now
        with pytest.raises(
            InputError, match=r"'head_weight' is .* where the item table has other attributes now, train"
        ):
            start_from(model, run, now)
        return
    started = start_from(model, run, now)
    assert started["kept"]["users"] == N_USERS and started["new"]["items"] == MORE_ITEMS - N_ITEMS
    assert set(started["gone"].values()) == {0}
    places = {N_USERS: USERS, N_ITEMS: ITEMS, N_CATEGORIES: np.arange(1, N_CATEGORIES + 1)}
    if "categories" not in model_card(name).uses:
        del places[N_CATEGORIES]
    state = model.state_dict()
    for key, before in old.state_dict().items():
        old_places = np.ix_(*(places.get(size, np.arange(size)) for size in before.shape))
        after, initial = state[key].numpy(), fresh[key].numpy().copy()
        assert (after[old_places] == before.numpy()).all(), key
        initial[old_places] = before.numpy()
        assert (after == initial).all(), key


def test_more_epochs_of_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The command takes model, settings and data from the run; what it starts with is what the run ended with."""
    options = {"n_users": 60, "n_items": 50, "image_size": 32}
    request = Request("bpr-mf", parameters={"epochs": 2, "factors": 4}, dataset="wardrobe", dataset_options=options)
    first = train_run(request.load(progress=False)[0], request, tmp_path / "first", progress=False)
    arguments = ("train", "--warm-start", str(tmp_path / "first"), "--out", str(tmp_path / "more"), "-p", "epochs=3")
    status, text, err = call(monkeypatch, capsys, *arguments, "--no-notebook", "--quiet")
    assert status == 0, err
    assert "60 users have the weights of" in text and "50 items have the weights of" in text and "0 are new" in text
    more = open_run(tmp_path / "more")
    assert more.record.started_from == {
        "run": str(tmp_path / "first"),
        "identity": first.record.identity,
        "kept": {"users": 60, "items": 50},
        "new": {"users": 0, "items": 0},
        "gone": {"users": 0, "items": 0},
    }
    assert more.record.requested["warm_start"] == str(tmp_path / "first")
    assert more.record.parameters["factors"] == 4 and more.record.phases[0]["epochs"] == 3
    earlier, whole = first.curve.drop(columns="seconds"), more.curve.drop(columns="seconds")
    pd.testing.assert_frame_equal(whole[:3], earlier, check_exact=True)
    assert whole["epoch"].max() == 5 and (more.record.validation.auc or 0) >= (first.record.validation.auc or 1)
    assert more.record.identity not in (first.record.identity, None)
    again = replace(request, parameters=request.parameters | {"epochs": 3}, warm_start=str(tmp_path / "first"))
    assert train_run(request.load(progress=False)[0], again, tmp_path / "more", progress=False).record == more.record


@pytest.mark.parametrize("optimiser", ["adam", "adagrad"])
@pytest.mark.parametrize("by_row", [False, True])
def test_more_epochs_are_those_of_one_longer_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, by_row: bool
) -> None:
    """Two epochs and three more leave the weights of five in one go, to the last bit."""
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", 0 if by_row else 10**9)
    taken: list[type] = []
    optimiser_of = trainer._optimiser

    def observed(*args: Any) -> torch.optim.Optimizer:
        taken.append(type(optimiser_of(*args)))
        return optimiser_of(*args)

    monkeypatch.setattr(trainer, "_optimiser", observed)
    dataset, _ = planted_dataset(n_users=30, n_items=20)
    asked = {"factors": 4, "batch_size": 16, "optimiser": optimiser, "patience": 0, "restore": "last"}

    def trained(name: str, epochs: int, **more: Any) -> Run:
        request = Request("bpr-mf", parameters=asked | {"epochs": epochs}, **more)
        return train_run(dataset, request, tmp_path / name, progress=False)

    whole, first = trained("whole", 5), trained("first", 2)
    more = trained("more", 3, warm_start=str(first.folder))
    assert (RowAdam in taken) == (by_row and optimiser == "adam")
    expected, found = (read_checkpoint(run.folder / "model.safetensors").tensors for run in (whole, more))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    pd.testing.assert_frame_equal(more.curve.drop(columns="seconds"), whole.curve.drop(columns="seconds"))
    assert more.metrics == whole.metrics
    # A third time from there; a run of an earlier version, without its training's state, says so.
    (more.folder / STATE).unlink()
    with pytest.warns(UserWarning, match="kept no state of its training: its weights go on with a fresh optimiser"):
        last = trained("last", 1, warm_start=str(more.folder))
    assert last.curve["epoch"].tolist() == [0, 1]


def test_more_epochs_of_a_model_that_sees_pictures(small_wardrobe: Dataset, tmp_path: Path) -> None:
    """They go on, too: licence and source of the network are told of features, and are no part of what they are."""
    features = extract_features(not_none(small_wardrobe.images), weights="random", size=32, progress=False)
    assert features.description.keys() > features.identity.keys()
    asked = {"factors": 4, "visual_factors": 4, "patience": 0, "restore": "last"}

    def trained(name: str, epochs: int, **more: Any) -> Run:
        request = Request("vbpr", parameters=asked | {"epochs": epochs}, **more)
        return train_run(small_wardrobe, request, tmp_path / name, features=features, progress=False)

    whole, first = trained("whole", 2), trained("first", 1)
    more = trained("more", 1, warm_start=str(first.folder))
    pd.testing.assert_frame_equal(more.curve.drop(columns="seconds"), whole.curve.drop(columns="seconds"))


@pytest.mark.slow
def test_more_epochs_of_two_phases_are_more_of_the_last_one(small_wardrobe: Dataset, tmp_path: Path) -> None:
    """One epoch of each, and one more of the second, are one and two; ended in the first, the run goes on there."""
    asked = {"factors": 4, "units": 6, "size": 32, "weights": "random", "keep": "recompute", "phase1_epochs": 1}

    def trained(name: str, epochs: int, observe: Callable[[Any], bool] | None = None, **more: Any) -> Run:
        request = Request("imgrec-ete", parameters=asked | {"phase2_epochs": epochs}, **more)
        return train_run(small_wardrobe, request, tmp_path / name, progress=False, observe=observe)

    whole, first = trained("whole", 2), trained("first", 1)
    ended = trained("ended", 2, observe=lambda row: True)
    assert ended.curve["phase"].max() == 1
    for name, more in (("more", trained("more", 1, warm_start=str(first.folder))),
                       ("anew", trained("anew", 2, warm_start=str(ended.folder)))):  # fmt: skip
        pd.testing.assert_frame_equal(more.curve.drop(columns="seconds"), whole.curve.drop(columns="seconds"))
        expected, found = (read_checkpoint(run.folder / "model.safetensors").tensors for run in (whole, more))
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_more_epochs_have_the_learning_rates_of_the_longer_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = planted_dataset(n_users=30, n_items=20)
    asked = {"factors": 4, "batch_size": 16, "schedule": "linear", "patience": 0}
    rates: list[float] = []
    optimiser_of = trainer._optimiser

    def observed(*args: Any) -> torch.optim.Optimizer:
        optimiser = optimiser_of(*args)
        optimiser.register_step_pre_hook(lambda *_: rates.append(optimiser.param_groups[0]["lr"]))
        return optimiser

    monkeypatch.setattr(trainer, "_optimiser", observed)

    def trained(name: str, epochs: int, **more: Any) -> list[float]:
        rates.clear()
        request = Request("bpr-mf", parameters=asked | {"epochs": epochs}, **more)
        train_run(dataset, request, tmp_path / name, progress=False)
        return rates.copy()

    whole, first = trained("whole", 5), trained("first", 2)
    with pytest.warns(
        UserWarning, match="has fallen to its end: epochs 3 to 5 have the rates of a training of 5, which the first 2"
    ):
        more = trained("more", 3, warm_start=str(tmp_path / "first"))
    assert more == whole[len(first) :] and first != whole[: len(first)] and more[0] > first[-1]


def test_moments_go_to_whom_they_belong(tmp_path: Path) -> None:
    """On grown data the rows of old ids begin with their moments, in their new places, and new rows with none."""
    data, more = toy_data(), grown(toy_data())
    user_ids, item_ids = np.arange(100, 100 + MORE_USERS), np.arange(100, 100 + MORE_ITEMS)
    user_ids[USERS], item_ids[ITEMS] = np.arange(N_USERS), np.arange(N_ITEMS)
    old, now = named(data, np.arange(N_USERS), np.arange(N_ITEMS), 1), named(more, user_ids, item_ids, 0)
    model = build_model("bpr-mf", data, factors=4, epochs=1)
    fit(model, data, None, keep=tmp_path / STATE, progress=False)
    write_ids(old, tmp_path)
    kept = read_checkpoint(tmp_path / STATE).group("optimiser")
    run = Run(tmp_path, record(model="bpr-mf", phases=[asdict(model.phases[0])]))
    bigger = build_model("bpr-mf", more, factors=4, epochs=1)
    moments = not_none(moments_from(bigger, run, now))
    places = {N_USERS: (USERS, MORE_USERS), N_ITEMS: (ITEMS, MORE_ITEMS)}
    assert kept.keys() == moments.keys() and len(kept) >= 6
    for name, before in kept.items():
        if before.ndim == 0:
            assert moments[name] == before
            continue
        where, size = places[len(before)]
        expected = np.zeros((size, *before.shape[1:]), np.float32)
        expected[where] = before.numpy()
        assert np.array_equal(moments[name].numpy(), expected) and expected.any(), name
    fit(bigger, more, None, moments=moments, progress=False)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    dataset, _ = planted_dataset(n_users=30, n_items=20)
    run = train_run(dataset, "bpr-mf", tmp_path / "run", parameters={"epochs": 1, "factors": 4}, progress=False)
    data = dataset.training_data()
    cases = [
        (build_model("bpr-mf", data, factors=8), r"'users' is \(30, 8\) here and \(30, 4\) there; repeat its hyper"),
        (build_model("poprank", data), "is not trained in epochs: there is nothing to start from"),
    ]  # fmt: skip
    for model, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            start_from(model, run, dataset)
    other = Request("vbpr", warm_start=str(tmp_path / "run"))
    with pytest.raises(InputError, match="run run is of BPR-MF, whose weights are of no use to VBPR"):
        train_run(dataset, other, tmp_path / "vbpr", features=None, progress=False)
    (tmp_path / "run" / FILE).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"ids\.parquet is damaged"):
        start_from(build_model("bpr-mf", data, factors=4), run, dataset)
    (tmp_path / "run" / FILE).unlink()
    with pytest.raises(InputError, match="does not say how its dataset was loaded"):
        start_from(build_model("bpr-mf", data, factors=4), run, dataset)
    square, _ = planted_dataset(n_users=20, n_items=20)
    same = train_run(square, "bpr-mf", tmp_path / "square", parameters={"epochs": 0, "factors": 4}, progress=False)
    moved = replace(square, user_ids=square.user_ids[::-1])
    with pytest.raises(InputError, match="20 each of users and items in the run and 20 now: the weights do not say"):
        start_from(build_model("bpr-mf", square.training_data(), factors=4), same, moved)
