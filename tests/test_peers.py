"""The baselines against the field's own libraries, on one split: each side tuned on validation, compared on test.

The libraries are extras (`pip install imgrec[peers]`); without one, its test is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from toy import exact_auc, planted_dataset

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.evaluation import ValidationAUC
from imgrec_lib.models import build_model
from imgrec_lib.training.trainer import fit


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """250 users x 150 items, 12 training items each; its pictures play no part."""
    return planted_dataset(n_users=250, n_items=150, history=14, seed=1)[0]


def matrix(dataset: Dataset) -> sparse.csr_matrix:
    train = dataset.train
    return sparse.csr_matrix(
        (np.ones(len(train), np.float32), train.items, train.indptr), shape=(train.n_users, train.n_items)
    )


def best_on_validation(scores: Iterable[np.ndarray], dataset: Dataset) -> float:
    """Exact AUC on test of the candidate with the best exact AUC on validation."""
    best = max(scores, key=lambda s: exact_auc(s, dataset, dataset.validation.items))
    return exact_auc(best, dataset, dataset.test.items)


def ours(name: str, dataset: Dataset, grid: list[dict[str, Any]], **settings: Any) -> float:
    """Our model's exact AUC on test, tuned over `grid` on validation."""
    data, validate, tables = dataset.training_data(), ValidationAUC(dataset), []
    for parameters in grid:
        model = build_model(name, data, **parameters)
        model.phases = tuple(replace(phase, **settings) for phase in model.phases)
        fit(model, data, validate, progress=False)
        tables.append(model.scorer().block(torch.arange(dataset.n_users)).numpy())
    return best_on_validation(tables, dataset)


def test_warp_is_as_good_as_lightfm(dataset: Dataset) -> None:
    lightfm = pytest.importorskip("lightfm", reason="LightFM is not installed")
    tables = []
    for factors in (4, 16):
        for alpha in (0.0, 1e-3):
            model = lightfm.LightFM(
                no_components=factors, loss="warp", item_alpha=alpha, user_alpha=alpha, random_state=0
            )
            for _ in range(3):
                model.fit_partial(matrix(dataset), epochs=10, num_threads=1)
                item_bias, items = model.get_item_representations()
                _, users = model.get_user_representations()
                tables.append(users @ items.T + item_bias)
    theirs = best_on_validation(tables, dataset)
    grid = [{"factors": factors, "l2": l2} for factors in (4, 16) for l2 in (0.0, 1e-2)]
    mine = ours("warp", dataset, grid, batch_size=64, epochs=40)
    print("WARP", mine, "LightFM", theirs)
    assert theirs > 0.85
    assert mine > theirs - 0.01


def test_bpr_mf_is_as_good_as_implicit(dataset: Dataset) -> None:
    bpr = pytest.importorskip("implicit.bpr", reason="implicit is not installed")
    tables = []
    for factors in (4, 16):
        for rate, regularisation in ((0.05, 0.01), (0.05, 0.05), (0.1, 0.03)):
            model = bpr.BayesianPersonalizedRanking(
                factors=factors, learning_rate=rate, regularization=regularisation, iterations=150,
                num_threads=1, random_state=0, use_gpu=False,
            )  # fmt: skip
            model.fit(matrix(dataset), show_progress=False)
            tables.append(model.user_factors @ model.item_factors.T)  # its item bias is one of the factors
    theirs = best_on_validation(tables, dataset)
    grid = [
        {"factors": factors, "l2": l2, "l2_negative": l2, "l2_bias": l2 / 10}
        for factors in (4, 16)
        for l2 in (0.0, 1e-2)
    ]
    mine = ours("bpr-mf", dataset, grid, batch_size=128, epochs=60, learning_rate=0.01)
    print("BPR-MF", mine, "implicit", theirs)
    assert theirs > 0.85
    assert mine > theirs - 0.01
