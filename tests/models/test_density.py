"""Penalties that hold on data of any density: what was found on a sparse week is no default on dense data as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance import batch_of, data, parameters_of, penalties_of, small

from imgrec_lib.data.readers.wardrobe.world import load_wardrobe
from imgrec_lib.models import list_models, resolve_profile
from imgrec_lib.models.parts.settings import HM_WEEK
from imgrec_lib.request import Request
from imgrec_lib.runs.train import train_run

CARRIED = [name for name, card in list_models().items() if "at_interactions" in parameters_of(card)]


def test_every_model_whose_penalties_act_once_an_occurrence_carries_them_over() -> None:
    """Those whose default was found on the week of H&M say so in their profile, and no other does."""
    assert set(CARRIED) == {
        "bpr-mf", "deepstyle", "fm-id", "fm-visual", "jrl", "lightgcn", "saers", "vbpr", "warp",
    }  # fmt: skip
    for name, card in list_models().items():
        for profile in card.profiles:
            at = resolve_profile(name, profile).parameters.get("at_interactions")
            assert at == (HM_WEEK if name in CARRIED and profile == "default" else None), (name, profile)


@pytest.mark.parametrize("name", CARRIED)
def test_a_penalty_carried_over_is_the_penalty_of_that_weight(name: str) -> None:
    """On twice the density of the data that a weight was found on, it counts half."""
    training = data()
    own = len(training.interactions) / math.sqrt(training.n_users * training.n_items)
    weights: dict[str, Any] = dict.fromkeys(penalties_of(name), 0.5)
    halved: dict[str, Any] = dict.fromkeys(penalties_of(name), 0.25)
    carried = small(name, training, **weights, at_interactions=own / 2)
    batch = batch_of(carried, training)
    torch.testing.assert_close(carried.loss(batch), small(name, training, **halved, at_interactions=None).loss(batch))


@pytest.mark.slow
@pytest.mark.parametrize("interactions", [5, 60])
def test_the_default_is_near_the_best_of_many_strengths_on_sparse_and_on_dense_data(
    interactions: int, tmp_path: Path
) -> None:
    """On validation items, by the AUC that chooses; ten times the purchases ask for a tenth of the penalty."""
    shop = load_wardrobe(n_users=300, n_items=300, image_size=32, min_interactions=interactions, progress=False)
    default = resolve_profile("bpr-mf", "default").parameters

    def auc(**parameters: float | None) -> float:
        out = tmp_path / str(parameters)
        found = train_run(shop, Request("bpr-mf", parameters=parameters), out, progress=False).record.validation
        assert found is not None and found.auc is not None
        return found.auc

    penalties = {name: value for name, value in default.items() if name in ("l2", "l2_negative", "l2_bias")}
    strengths = [{name: value * 10.0**power for name, value in penalties.items()} for power in (-2, -1, 0, 1)]
    best = max(auc(**strength, at_interactions=None) for strength in strengths)
    assert auc() > best - 0.005
