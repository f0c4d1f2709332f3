"""BM3 against slow loops in float64, written from the paper: scores, losses, what lets gradients through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conformance import gradients, randomised
from graphs import by_neighbours, picture_of
from narrow import built
from toy import N_ITEMS, N_USERS, toy_data

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models.base import TrainSettings
from imgrec_lib.models.bm3 import BM3


def model_of(data: TrainingData, **parameters: Any) -> BM3:
    return randomised(built(BM3, "bm3", data, **{"factors": 4, "layers": 2, **parameters}).double())


def nodes(model: BM3, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """The graph's averages; an item's own vector is added once more."""
    users, items = by_neighbours(model, data.interactions, 2)
    return users, items + model.get_parameter("items").detach().numpy()


def predictor(model: BM3, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().numpy() for p in model.predictor.parameters())
    return np.array([float(weight[k] @ x) + bias[k] for k in range(len(bias))])


def apart(model: BM3, online: np.ndarray, target: np.ndarray) -> float:
    seen = predictor(model, online)
    return 1 - float(seen @ target) / math.sqrt(float(seen @ seen) * float(target @ target))


def batch_of(model: BM3, data: TrainingData, size: int = 9) -> Batch:
    return model.sample(Sampler(data, seed=2), TrainSettings(batch_size=size))


def test_scores_follow_the_formula() -> None:
    data = toy_data()
    model = model_of(data)
    users, items = nodes(model, data)
    expected = [
        [float(predictor(model, users[u]) @ predictor(model, items[i])) for i in range(N_ITEMS)] for u in range(N_USERS)
    ]
    np.testing.assert_allclose(model.scorer().block(torch.arange(N_USERS)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_follows_the_formula() -> None:
    data = toy_data()
    model = model_of(data, feature_weight=0.7, l2=0.3)  # in evaluation mode dropout takes nothing
    users, items = nodes(model, data)
    assert data.features is not None
    features = data.features.astype(np.float64) / data.features.max()
    weight, bias = (p.detach().numpy() for p in picture_of(model).layer.parameters())
    batch, total = batch_of(model, data), 0.0
    for u, i in zip(batch.users.tolist(), batch.positives.tolist(), strict=True):
        look = weight @ features[i] + bias
        total += apart(model, users[u], items[i]) + apart(model, items[i], users[u])
        total += 0.7 * (apart(model, look, items[i]) + apart(model, look, look))
        total += 0.3 * 0.5 * float(users[u] @ users[u] + items[i] @ items[i])
    assert model.loss(batch).item() == pytest.approx(total / len(batch.users), rel=1e-6)


def test_targets_are_thinned_by_dropout_and_let_no_gradient_through() -> None:
    """The loss and its gradient with the same masks, written as one expression."""
    data = toy_data()
    model = model_of(data, feature_weight=0.7, dropout=0.5)
    model.train()
    batch = batch_of(model, data)
    torch.manual_seed(7)
    found = gradients(model, batch)
    torch.manual_seed(7)
    loss = model.loss(batch)
    # The masks in the order in which the four comparisons draw them.
    torch.manual_seed(7)
    masks = [F.dropout(torch.ones(9, 4, dtype=torch.float64), 0.5) for _ in range(4)]
    model.zero_grad(set_to_none=True)
    users, items = model.propagated()
    user, item = users[batch.users], items[batch.positives]
    picture = picture_of(model)
    look = picture.layer(picture.features.values[batch.positives] / picture.features.scale)
    pairs = [(user, item, 1.0), (item, user, 1.0), (look, item, 0.7), (look, look, 0.7)]
    expected = torch.zeros((), dtype=torch.float64)
    for (online, target, weight), mask in zip(pairs, masks, strict=True):
        seen, still = model.predictor(online), target.detach() * mask
        cosine = (seen * still).sum(1) / (seen.norm(dim=1) * still.norm(dim=1)).clamp_min(1e-8)
        expected = expected + weight * (1 - cosine).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    expected.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-12)


def test_no_negative_is_drawn() -> None:
    data = toy_data()
    batch = batch_of(model_of(data), data)
    assert batch.negatives.shape == (9, 0)
    owned = {(u, i) for u in range(N_USERS) for i in data.interactions.of(u).tolist()}
    assert set(zip(batch.users.tolist(), batch.positives.tolist(), strict=True)) <= owned


def test_pictures_reach_the_scores_through_training_alone() -> None:
    data = toy_data()
    model = model_of(data)
    before = model.scorer().block(torch.arange(N_USERS))
    with torch.no_grad():
        for parameter in picture_of(model).layer.parameters():
            parameter.mul_(2)
    assert torch.equal(model.scorer().block(torch.arange(N_USERS)), before)
    assert gradients(model, batch_of(model, data))["modalities.picture.layer.weight"].any()
