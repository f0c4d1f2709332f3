"""LightGCN against slow loops over neighbours and against dense matrices in float64; what it is without a graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conformance import randomised
from graphs import by_neighbours
from toy import N_ITEMS, N_USERS, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models import build_model
from imgrec_lib.models.base import InnerProduct, Recommender


def model_of(data: TrainingData, **parameters: Any) -> Recommender:
    return randomised(
        build_model("lightgcn", data, **{"factors": 4, "l2": 0.0, "at_interactions": None, **parameters}).double()
    )


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_scores_follow_the_formula(layers: int) -> None:
    data = toy_data()
    model = model_of(data, layers=layers)
    users, items = by_neighbours(model, data.interactions, layers)
    expected = [[float(users[u] @ items[i]) for i in range(N_ITEMS)] for u in range(N_USERS)]
    found = model.scorer().block(torch.arange(N_USERS)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("negatives", [1, 3])
def test_the_loss_follows_the_formula(negatives: int) -> None:
    data = toy_data()
    model = model_of(data, layers=2, l2=0.3)
    batch = Sampler(data, seed=2).triples(9, negatives)
    users, items = by_neighbours(model, data.interactions, 2)
    own_users, own_items = (model.get_parameter(name).detach().numpy() for name in ("users", "items"))
    pairs, penalty = [], 0.0
    for u, i, others in zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True):
        for j in others:
            pairs.append(math.log1p(math.exp(-float(users[u] @ (items[i] - items[j])))))
        penalty += 0.5 * float(own_users[u] @ own_users[u] + own_items[i] @ own_items[i]) / len(batch.users)
        penalty += sum(0.5 * float(own_items[j] @ own_items[j]) / len(others) for j in others) / len(batch.users)
    assert model.loss(batch).item() == pytest.approx(sum(pairs) / len(pairs) + 0.3 * penalty, rel=1e-6)


def test_gradients_are_those_of_the_dense_matrix() -> None:
    """All of A, with PyTorch's own derivative of a matrix product."""
    data = toy_data()
    model = model_of(data, layers=3)
    batch = Sampler(data, seed=2).triples(40, 2)
    model.loss(batch).backward()
    edges = np.zeros((N_USERS + N_ITEMS,) * 2)
    edges[data.interactions.users, N_USERS + data.interactions.items] = 1
    edges += edges.T
    degree = edges.sum(1).clip(min=1)
    dense = torch.as_tensor(edges / np.sqrt(np.outer(degree, degree)))
    tables = [model.get_parameter(name).detach().clone().requires_grad_() for name in ("users", "items")]
    nodes = torch.cat(tables)
    mean = sum((torch.linalg.matrix_power(dense, power) @ nodes for power in range(4)), 0 * nodes) / 4
    users, items = mean[:N_USERS], mean[N_USERS:]
    own = (users[batch.users] * items[batch.positives]).sum(1, keepdim=True)
    other = torch.einsum("bk,bnk->bn", users[batch.users], items[batch.negatives])
    torch.nn.functional.softplus(other - own).mean().backward()
    for name, table in zip(("users", "items"), tables, strict=True):
        torch.testing.assert_close(model.get_parameter(name).grad, table.grad, rtol=1e-6, atol=1e-9)


def test_without_layers_it_is_bpr_mf() -> None:
    data = toy_data()
    model = model_of(data, layers=0, l2=0.2)
    plain = build_model("bpr-mf", data, factors=4, l2=0.2, l2_negative=0.2, l2_bias=0.0, at_interactions=None).double()
    plain.load_state_dict({**model.state_dict(), "item_bias": torch.zeros(N_ITEMS)})
    batch: Batch = Sampler(data, seed=1).triples(20, 2)
    assert model.loss(batch).item() == pytest.approx(plain.loss(batch).item(), rel=1e-12)
    users = torch.arange(N_USERS)
    torch.testing.assert_close(model.scorer().block(users), plain.scorer().block(users), rtol=1e-12, atol=0)


def test_who_is_not_in_the_graph_hears_of_nothing() -> None:
    interactions = Interactions.from_pairs(np.array([0, 0, 2]), np.array([1, 3, 1]), 4, 5)
    model = model_of(TrainingData(interactions), layers=3)
    scorer = model.scorer()
    assert isinstance(scorer, InnerProduct)
    own_users, own_items = (model.get_parameter(name).detach() for name in ("users", "items"))
    torch.testing.assert_close(scorer.users[[1, 3]], own_users[[1, 3]] / 4)
    torch.testing.assert_close(scorer.items[[0, 2, 4]], own_items[[0, 2, 4]] / 4)
