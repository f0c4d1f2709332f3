"""The smallest data and the worst numbers: one user, one item, no candidate, a loss that is not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conformance import CARDS, TRAINED, parameters_of, small
from narrow import not_none
from toy import START, best_items, toy_data

from imgrec_lib import InputError, ValidationAUC, evaluate, train_run
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.evaluation import PROTOCOLS, negative_lists
from imgrec_lib.features import Features
from imgrec_lib.models import build_model
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.training import fit


def tiny(train: list[list[int]], validation: list[int], test: list[int], n_items: int) -> Dataset:
    """A dataset with all that a model can ask for, from the items of each user."""
    pairs = [(u, i) for u, items in enumerate(train) for i in items]
    users, items = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
    table = pd.DataFrame(
        {
            Columns.ITEM: [f"i{i}" for i in range(n_items)],
            Columns.CATEGORY: [f"c{i % 2}" for i in range(n_items)],
            Columns.GROUP: [f"g{i // 3}" for i in range(n_items)],
            "colour": [("red", "black")[i // 2 % 2] for i in range(n_items)],
        }
    )
    pixels = np.random.default_rng(0).integers(0, 256, (n_items, 32, 32, 3), dtype=np.uint8)
    times = START + np.arange(len(users))
    late = START + 1000 + np.arange(len(train))
    return Dataset(
        "tiny", np.array([f"u{u}" for u in range(len(train))]), table,
        Interactions.from_pairs(users, items, len(train), n_items, times),
        HeldOut(np.array(validation), late), HeldOut(np.array(test), late + 1),
        ImageStore.from_array(pixels),
    )  # fmt: skip


def features_of(dataset: Dataset) -> Features:
    values = np.random.default_rng(1).random((dataset.n_items, 6), dtype=np.float32)
    return Features(values, {"random": "yes", "backbone": "none"}, "f")


SMALLEST = {
    "one user": tiny([[0, 1]], [2], [3], 12),
    "one user with one training item": tiny([[0]], [1], [2], 4),
    "fewer items than negatives": tiny([[0, 1], [1, 2], [3, 0]], [2, 3, 1], [3, 0, 2], 6),
    "a user who owns every item but one": tiny([[0, 1, 2], [0]], [3, 1], [-1, 2], 4),
    "a user who owns every item": tiny([[*range(12)], [0]], [-1, 1], [-1, 2], 12),
    "a user without training item": tiny([[], [0, 1]], [2, 3], [1, 2], 5),
}


def short(name: str) -> dict[str, Any]:
    """Parameters of a small model that trains for an epoch."""
    sizes = {"factors": 4, "visual_factors": 3, "units": 6, "size": 32, "keep": "memory"}
    given = {key: value for key, value in sizes.items() if key in parameters_of(CARDS[name])}
    return given | ({"epochs": 1, "batch_size": 4} if name in TRAINED else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("case", ["one user", "a user who owns every item"])
def test_every_model_trains_and_is_measured_on_the_smallest_data(name: str, case: str, tmp_path: Path) -> None:
    dataset = SMALLEST[case]
    run = train_run(
        dataset, name, tmp_path / "run", features=features_of(dataset), parameters=short(name), progress=False
    )
    json.dumps(run.record.to_json(), allow_nan=False)
    users = int((dataset.test.items >= 0).sum())
    for protocol, values in run.metrics.items():
        assert not_none(values["users"]) + not_none(values["users_without_candidates"]) == users, protocol
        assert values["auc"] is None or 0 <= values["auc"] <= 1


@pytest.mark.parametrize("case", SMALLEST)
def test_the_smallest_data_is_evaluated_and_sampled(case: str) -> None:
    dataset = SMALLEST[case]
    scorer = InnerProduct(torch.zeros(dataset.n_users, 1), torch.zeros(dataset.n_items, 1))
    for metrics in evaluate(scorer, dataset).metrics.values():
        assert metrics["auc"] in (0.5, None) and metrics["tie_share"] in (1.0, None)  # all scores are equal
    for name, protocol in PROTOCOLS.items():
        if protocol.draws is not None:
            lists = negative_lists(dataset, name)
            assert lists.shape == (dataset.n_users, protocol.draws) and lists.max() < dataset.n_items
    items, scores = best_items(scorer, dataset, range(dataset.n_users), k=12)
    for user in range(dataset.n_users):
        free = [i for i in range(dataset.n_items) if i not in dataset.train.of(user)]
        assert items[user, : len(free)].tolist() == free  # equal scores: by index
        assert (items[user, len(free) :] == -1).all() and np.isneginf(scores[user, len(free) :]).all()
    batch = Sampler(dataset.training_data(), 0).triples(50, 3)
    owned = [set(dataset.train.of(u)) for u in range(dataset.n_users)]
    assert all(0 < len(owned[u]) < dataset.n_items for u in batch.users.tolist())
    for user, negatives in zip(batch.users.tolist(), batch.negatives.tolist(), strict=True):
        assert not owned[user] & set(negatives)


def test_one_item(tmp_path: Path) -> None:
    """Nothing can be ranked or drawn: evaluation says None, training a sentence."""
    dataset = tiny([[0]], [-1], [0], 1)
    scorer = InnerProduct(torch.zeros(1, 1), torch.zeros(1, 1))
    metrics = evaluate(scorer, dataset).metrics["exact"]
    assert metrics["auc"] is None and metrics["users"] == 0 and metrics["users_without_candidates"] == 1
    with pytest.raises(InputError, match="no user has both a training item and an item to serve as negative"):
        Sampler(dataset.training_data(), 0)
    with pytest.raises(InputError, match="no user has both a training item and an item to serve as negative"):
        train_run(dataset, "bpr-mf", tmp_path / "run", progress=False)


def test_no_user(tmp_path: Path) -> None:
    dataset = tiny([], [], [], 3)
    scorer = InnerProduct(torch.zeros(0, 1), torch.zeros(3, 1))
    with pytest.raises(InputError, match="no user has a held-out item: split the dataset so that some items are held"):
        evaluate(scorer, dataset)
    with pytest.raises(InputError, match="no user of dataset 'tiny' has a validation item"):
        ValidationAUC(dataset)
    with pytest.raises(InputError, match="the training set is empty or every user owns the whole catalogue"):
        Sampler(dataset.training_data(), 0)


@pytest.mark.parametrize("name", ["poprank", "bpr-mf"])
def test_a_validation_without_candidates_is_a_sentence(name: str, tmp_path: Path) -> None:
    """All items but the validation item are the user's: AUC has nothing to compare it with."""
    dataset = tiny([[0]], [1], [-1], 2)
    with pytest.raises(InputError, match="the validation auc is not a number: no user has an item to rank"):
        fit(build_model(name, dataset.training_data()), dataset.training_data(), ValidationAUC(dataset), progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_every_model_and_names_step_and_parameter(name: str, bad: float) -> None:
    data = toy_data()
    keep: dict[str, Any] = {"keep": "memory"} if "keep" in parameters_of(CARDS[name]) else {}
    model = small(name, data, epochs=2, batch_size=64, choose_by="auc", **keep)
    trained = [key for key, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for key in trained[:2]:
            model.get_parameter(key).fill_(bad)
    with pytest.raises(
        InputError, match=r"the loss became .* in epoch 1, step 1 \(parameter '.*' is no longer finite\)"
    ):
        fit(model, data, lambda _: 0.5, progress=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused_everywhere(bad: float) -> None:
    dataset = SMALLEST["fewer items than negatives"]
    items = torch.zeros(6, 1)
    items[3] = bad
    scorer = InnerProduct(torch.ones(3, 1), items)
    for call in (
        lambda: evaluate(scorer, dataset),
        lambda: evaluate(scorer, dataset, part="validation"),
        lambda: best_items(scorer, dataset, [0]),
    ):
        with pytest.raises(InputError, match=r"user (u)?0 a score that is NaN or infinite"):
            call()
