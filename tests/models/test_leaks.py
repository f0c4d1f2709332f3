"""Held-out interactions reach neither weights nor features, whatever the model.

What is allowed: validation items choose among the states that training passes through (the epoch that is kept, hence
where a second phase starts, and when training stops), through the one number that `fit` is handed. So for other
validation items the weights are compared epoch by epoch, with that choice taken away; for other test items everything
must be equal, the choice included. A model that uses time is served at the time of the held-out interaction; it is not
told which item that was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conformance import CARDS, TRAINED, parameters_of, small
from narrow import not_none
from PIL import Image
from torch import Tensor
from toy import planted_dataset

from imgrec_lib import ValidationAUC, extract_features, load_dataset
from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.models.base import Recommender
from imgrec_lib.training import fit

N_USERS, N_ITEMS = 20, 40


@pytest.fixture(scope="module")
def planted() -> tuple[Dataset, np.ndarray]:
    """A dataset with all that a model can ask for, and its features."""
    dataset, features = planted_dataset(n_users=N_USERS, n_items=N_ITEMS)
    pixels = np.random.default_rng(1).integers(0, 256, (N_ITEMS, 8, 8, 3), dtype=np.uint8)
    return dataset.with_images(ImageStore.from_array(pixels)), features


def others(dataset: Dataset, part: str) -> Dataset:
    """The same training set with other held-out items of that part, at other times."""
    held: HeldOut = getattr(dataset, part)
    taken = [{*dataset.train.of(u), dataset.validation.items[u], dataset.test.items[u]} for u in range(N_USERS)]
    free = [next(i for i in range(N_ITEMS - 1, -1, -1) if i not in owned) for owned in taken]
    assert held.times is not None
    changed: dict[str, Any] = {part: HeldOut(np.array(free), held.times + 1)}
    return replace(dataset, **changed)


def trained(
    name: str, dataset: Dataset, features: np.ndarray, wrap: Callable[[Callable[[Recommender], float]], Any]
) -> tuple[list[dict[str, Tensor]], pd.DataFrame, dict[str, Tensor]]:
    """The weights at each validation, the learning curve without seconds, and the weights that are kept."""
    data = dataset.training_data(features, in_order=True)
    keep: dict[str, Any] = {"keep": "memory"} if "keep" in parameters_of(CARDS[name]) else {}
    model = small(name, data, **keep)
    settings: dict[str, Any] = {"epochs": 2, "patience": 0, "batch_size": 32, "evaluate_every": 1, "choose_by": "auc"}
    model.phases = tuple(replace(phase, **settings) for phase in model.phases)
    states: list[dict[str, Tensor]] = []
    validate = wrap(ValidationAUC(dataset))

    def watched(model: Recommender) -> float:
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        return validate(model)

    curve = fit(model, data, watched, seed=3, progress=False).curve.drop(columns="seconds")
    return states, curve, model.state_dict()


def without_choice(validate: Callable[[Recommender], float]) -> Callable[[Recommender], float]:
    """Validate, but say that every epoch is the best so far."""
    calls = 0

    def rising(model: Recommender) -> float:
        nonlocal calls
        validate(model)
        calls += 1
        return calls / 1000

    return rising


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_other_validation_items_give_the_same_weights_after_every_epoch(
    name: str, planted: tuple[Dataset, np.ndarray]
) -> None:
    dataset, features = planted
    first, curve, kept = trained(name, dataset, features, without_choice)
    second, other_curve, other_kept = trained(name, others(dataset, "validation"), features, without_choice)
    assert len(first) == len(second) >= 3
    assert all(equal(one, other) for one, other in zip(first, second, strict=True))
    assert equal(kept, other_kept) and equal(kept, first[-1])
    pd.testing.assert_frame_equal(curve, other_curve)
    assert not equal(first[0], first[-1])  # it was trained


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_other_test_items_change_nothing_at_all(name: str, planted: tuple[Dataset, np.ndarray]) -> None:
    dataset, features = planted
    first, curve, kept = trained(name, dataset, features, lambda validate: validate)
    second, other_curve, other_kept = trained(name, others(dataset, "test"), features, lambda validate: validate)
    assert all(equal(one, other) for one, other in zip(first, second, strict=True)) and equal(kept, other_kept)
    pd.testing.assert_frame_equal(curve, other_curve)


@pytest.mark.parametrize("name", [name for name in CARDS if name not in TRAINED])
def test_scores_of_untrained_models(name: str, planted: tuple[Dataset, np.ndarray]) -> None:
    dataset, features = planted
    users = torch.arange(N_USERS)
    scores = [
        small(name, version.training_data(features, in_order=True)).eval().scorer().block(users)
        for version in (dataset, others(others(dataset, "test"), "validation"))
    ]
    assert torch.equal(*scores) and scores[0].std() > 0


@pytest.mark.parametrize("name", ["bpr-mf", "imgrec-ft"])
def test_a_leak_would_be_seen(name: str, planted: tuple[Dataset, np.ndarray]) -> None:
    """One training interaction exchanged for the user's test item: the comparison above notices."""
    dataset, features = planted
    items = dataset.train.items.copy()
    items[0] = dataset.test.items[0]
    train = Interactions.from_pairs(dataset.train.users, items, N_USERS, N_ITEMS, dataset.train.times)
    first, _, _ = trained(name, dataset, features, without_choice)
    second, _, _ = trained(name, replace(dataset, train=train), features, without_choice)
    assert equal(first[0], second[0]) and not equal(first[-1], second[-1])


def reachable(value: object) -> list[object]:
    """A value and all that its fields hold."""
    inner = [reachable(getattr(value, f.name)) for f in fields(value)] if is_dataclass(value) else []
    return [value, *(part for parts in inner for part in parts)]


def test_training_data_holds_no_held_out_item(planted: tuple[Dataset, np.ndarray]) -> None:
    dataset, features = planted
    version = others(others(dataset, "test"), "validation")
    one, other = (reachable(d.training_data(features, in_order=True)) for d in (dataset, version))
    assert not any(isinstance(value, HeldOut | Dataset) for value in one)
    assert len(one) == len(other) > 10
    for a, b in zip(one, other, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        elif isinstance(a, pd.DataFrame):
            assert isinstance(b, pd.DataFrame)
            pd.testing.assert_frame_equal(a, b)
        elif not is_dataclass(a):
            assert a == b
    keys = {(u, i) for u in range(N_USERS) for i in (dataset.test.items[u], dataset.validation.items[u])}
    data: TrainingData = dataset.training_data(features, in_order=True)
    assert not keys & set(zip(data.interactions.users.tolist(), data.interactions.items.tolist(), strict=True))


def test_pictures_and_features_know_nothing_of_interactions(tmp_path: Path) -> None:
    """A catalogue read twice from files, with the same training set and other held-out items, in two caches."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"i{i}.png")
    (tmp_path / "items.csv").write_text("item\n" + "".join(f"i{i}\n" for i in range(6)))
    (tmp_path / "train.csv").write_text("user,item\na,i0\na,i1\nb,i1\n")
    found = []
    for number, (validation, test) in enumerate([(("i2", "i3"), ("i4", "i5")), (("i5", "i4"), ("i3", "i2"))]):
        for part, held in (("validation", validation), ("test", test)):
            (tmp_path / f"{part}.csv").write_text(f"user,item\na,{held[0]}\nb,{held[1]}\n")
        cache = tmp_path / f"cache-{number}"
        dataset = load_dataset("table", tmp_path, image_size=32, cache=cache, progress=False)
        found.append((dataset, extract_features(not_none(dataset.images), size=32, cache=cache, progress=False)))
    (one, features), (other, other_features) = found
    assert one.fingerprint != other.fingerprint
    assert one.images is not None and other.images is not None
    assert one.images.fingerprint == other.images.fingerprint
    assert features.fingerprint == other_features.fingerprint
    assert features.values.tobytes() == other_features.values.tobytes()
    np.testing.assert_array_equal(one.train.items, other.train.items)
