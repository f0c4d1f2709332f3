"""TwoTower-EtE: its second phase against slow loops, its frozen twin, and what it makes of new pictures and baskets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from narrow import built
from torch import Tensor
from toy import N_ITEMS, N_USERS, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.models.base import TrainSettings
from imgrec_lib.models.two_tower_ete import TwoTowerEtE
from imgrec_lib.training import fit

EVERYONE = torch.arange(N_USERS)
STEP = TrainSettings(batch_size=9)


def some_never_bought(image_size: int = 32) -> TrainingData:
    """The toy data, with items that nobody bought and a user who bought nothing."""
    data = toy_data(image_size=image_size)
    kept = (data.interactions.items > 4) & (data.interactions.users != 7)
    users, items = data.interactions.users[kept], data.interactions.items[kept]
    return replace(data, interactions=Interactions.from_pairs(users, items, N_USERS, N_ITEMS))


def model_of(data: TrainingData, phase: int = 1, **options: Any) -> TwoTowerEtE:
    """A small model with random weights outside of its tail, in a phase of its training."""
    small: dict[str, Any] = {"factors": 4, "units": 6, "size": 32, "keep": "memory", "cut": "1", "dropout": 0.0}
    model = built(TwoTowerEtE, "two-tower-ete", data, **(small | options))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("tail."):
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    model.start_phase(phase)
    return model.train()


def test_item_baskets_hold_the_items_buyers_and_all_that_these_have() -> None:
    data, seen = some_never_bought(), set()
    sampler = Sampler(data, 0)
    for _ in range(20):
        batch = sampler.item_baskets(9)
        items = batch.items[0].tolist()
        assert len(set(items)) == 9
        buyers = [u for u in range(N_USERS) if set(data.interactions.of(u).tolist()) & set(items)]
        assert batch.users.tolist() == buyers
        for user, basket, places in zip(buyers, batch.baskets.tolist(), batch.places.tolist(), strict=True):
            bought = data.interactions.of(user).tolist()
            assert basket == bought + [-1] * (len(basket) - len(bought))
            assert places == [items.index(i) if i in items else -1 for i in basket]
        assert torch.equal(batch.shown, (batch.baskets >= 0) & (batch.places < 0))
        seen.update(items)
    assert seen == set(range(N_ITEMS))
    assert len(Sampler(data, 0).item_baskets(100).items[0]) == N_ITEMS


def loss_by_loops(model: TwoTowerEtE, data: TrainingData, batch: Any, fresh: Tensor) -> Tensor:
    """The formula, one user and one item at a time, in float64; `fresh` are the features of the batch's items."""
    tail = {id(parameter) for parameter in model.tail.parameters()}
    w = {name: value for name, value in model.named_parameters() if id(value) not in tail}
    known = data.interactions.popularity > 0

    def h(features: Tensor) -> Tensor:
        return (w["layer.weight"] @ ((features - model.mean) / model.deviation) + w["layer.bias"]).clamp(min=0)

    items = batch.items[0].tolist()
    vectors = {i: w["item_layer.weight"] @ h(fresh[k]) for k, i in enumerate(items)}
    offsets = {
        i: (w["offset_layer.weight"] @ h(fresh[k])).squeeze() + (w["offset"][i] if known[i] else 0)
        for k, i in enumerate(items)
    }
    total = torch.zeros((), dtype=torch.float64)
    for user in batch.users.tolist():
        bought = data.interactions.of(user).tolist()
        shown, hidden = [j for j in bought if j not in items], [j for j in bought if j in items]
        x: Tensor = w["user"]
        for j in shown:
            x = x + w["purchase_layer.weight"] @ h(model.features[j]) / math.sqrt(len(shown))
        scores = {i: x @ vectors[i] + offsets[i] for i in items}
        others = sum(N_ITEMS / len(items) * scores[i].exp() for i in items if i not in bought)
        for i in hidden:
            total = total - (scores[i].exp() / (scores[i].exp() + others)).log()
    return total / len(batch.users)


def test_the_second_phase_has_the_loss_and_the_gradients_of_slow_loops() -> None:
    data = some_never_bought()
    model = model_of(data).double()
    batch = Sampler(data, 3).item_baskets(STEP.batch_size)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(p) for p in model.backbone.tail_parameters()} < {id(p) for p in trained}
    loss = model.loss(batch)
    expected = loss_by_loops(model, data, batch, model.pooled(batch.items[0]))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(*(torch.autograd.grad(each, trained) for each in (loss, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    parts = [model.shard(batch, rank, 2) for rank in range(2)]
    torch.testing.assert_close(sum(weight * model.loss(part) for part, weight in parts), loss)


def test_the_twin_takes_the_same_steps_and_keeps_its_tail_to_the_bit() -> None:
    data = some_never_bought()
    states, losses = [], []
    for rate in (0.0, 1e-12):
        model = model_of(data, 0, encoder_rate=rate, dropout=0.3)
        quick = TrainSettings(batch_size=9, epochs=2, patience=0, warm_up=3, weight_decay=0.1)
        model.phases = (quick, replace(quick, learning_rate=1e-3))
        before = {name: value.clone() for name, value in model.tail.state_dict().items()}
        losses.append(fit(model, data, None, progress=False).curve["loss"])
        states.append({name: value for name, value in model.state_dict().items() if not name.startswith("tail.")})
        if not rate:
            assert all(torch.equal(value, before[name]) for name, value in model.tail.state_dict().items())
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)  # activations are kept in half precision
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=0.02, atol=0.002)


def test_a_trained_tail_is_followed_in_scores_in_what_was_bought_and_after_loading() -> None:
    data = some_never_bought()
    # With activations in full precision: those that are kept have half.
    model = model_of(data, keep="recompute").eval()
    before = model.scorer().block(EVERYONE)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.mul_(1.3)
    after = model.scorer().block(EVERYONE)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(model.features, model.pooled(torch.arange(N_ITEMS)))
    parts = model.contributions(EVERYONE, torch.arange(N_ITEMS).expand(N_USERS, -1))
    torch.testing.assert_close(sum(parts.values()), after, rtol=1e-4, atol=1e-4)
    other = model_of(data, keep="recompute").eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.scorer().block(EVERYONE), after, rtol=1e-4, atol=1e-4)
    other.load_state_dict(first)
    torch.testing.assert_close(other.scorer().block(EVERYONE), before, rtol=1e-2, atol=1e-3)


def test_new_pictures_and_new_customers_score_as_known_ones() -> None:
    data = some_never_bought()
    assert data.images is not None
    model = model_of(data, keep="recompute").eval()
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.mul_(1.1)
    scorer = model.scorer()
    expected = scorer.block(EVERYONE)
    torch.testing.assert_close(model.score_baskets(data.interactions), expected)
    tower = model.basket_tower()
    every = Sampler(data, 0)._owned(EVERYONE, torch.arange(N_ITEMS))
    torch.testing.assert_close(tower(every) @ scorer.towers.items.T, expected, rtol=1e-4, atol=1e-4)
    never = torch.tensor([1, 3])  # items that nobody bought
    rows = model.embed_pictures(torch.from_numpy(np.array(data.images.pixels[never.numpy()])), torch.empty(2, 0))
    extended = scorer.extended(rows).block(EVERYONE)
    torch.testing.assert_close(extended[:, -2:], expected[:, never], rtol=1e-4, atol=1e-4)
