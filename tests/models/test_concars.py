"""CoNCARS against loops over outer products, kernels and slots, and its slots against pandas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from narrow import built, not_none
from torch import Tensor
from toy import N_USERS, START, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model
from imgrec_lib.models.concars import N_SLOTS, CoNCARS, OuterProductCNN, PairScorer, TemporalEmbedding, time_slots

EVERY_USER = torch.arange(N_USERS)


def random_model(**parameters: Any) -> CoNCARS:
    model = built(CoNCARS, "concars", toy_data(), **{"factors": 4, "channels": 3, "initial_scale": 0.7, **parameters})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    return model.double()


def slow_logit(network: OuterProductCNN, p: Tensor, x: Tensor, q: Tensor, y: Tensor) -> Tensor:
    """One pair: outer products pixel by pixel, convolutions kernel by kernel."""
    fused = []
    for m, (left, right) in enumerate([(p, y), (p, q), (x, y), (x, q)]):
        channels = [[[left[r] * right[s] for s in range(len(right))] for r in range(len(left))]]
        for layer, bias in enumerate(network.biases):
            outputs = []
            for c in range(network.channels):
                size = len(channels[0]) // 2
                pixels = [[bias[m, 0, c] for _ in range(size)] for _ in range(size)]
                for r in range(size):
                    for s in range(size):
                        for b, image in enumerate(channels):
                            for i in (0, 1):
                                for j in (0, 1):
                                    if layer == 0:
                                        weight = network.first[m, i, j, c]
                                    else:
                                        weight = network.later[layer - 1][m, j, i * network.channels + b, c]
                                    pixels[r][s] = pixels[r][s] + weight * image[2 * r + i][2 * s + j]
                        pixels[r][s] = torch.relu(pixels[r][s])
                outputs.append(pixels)
            channels = outputs
        fused += [image[0][0] for image in channels]
    return network.fusion.weight[0] @ torch.stack(fused) + network.fusion.bias[0]


def slow_temporal(side: TemporalEmbedding, row: int, slot: int) -> Tensor:
    n_slots = side.slot_vectors.shape[-2] - 1
    if side.full:
        vectors = [side.slot_vectors[row, s] for s in range(n_slots + 1)]
    else:
        vectors = [side.static[row] + side.slot_vectors[s] for s in range(n_slots + 1)]
    weights = [torch.exp(torch.tanh(not_none(side.attention) @ vectors[s]) @ vectors[slot]) for s in range(n_slots)]
    total = torch.zeros_like(vectors[0])
    for weight, vector in zip(weights, vectors, strict=False):
        total = total + weight * vector
    return total / torch.stack(weights).sum()


def slow_score(model: CoNCARS, user: int, item: int, slot: int) -> Tensor:
    return slow_logit(
        model.network,
        model.users.static[user],
        slow_temporal(model.users, user, slot),
        model.items.static[item],
        slow_temporal(model.items, item, slot),
    )


@pytest.mark.parametrize(("factors", "channels"), [(2, 3), (4, 3), (8, 2)])
def test_network_equals_the_loops(factors: int, channels: int) -> None:
    torch.manual_seed(0)
    network = OuterProductCNN(factors, channels).double()
    for bias in network.biases:
        torch.nn.init.normal_(bias, std=0.3)
    user, item = torch.randn(2, 3, factors).double(), torch.randn(2, 3, 2, factors).double()
    logits = [[slow_logit(network, *user[:, g], *item[:, g, n]) for n in range(2)] for g in range(3)]
    expected = torch.stack([torch.stack(row) for row in logits])
    actual = network(user, item)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
    weights = torch.randn(3, 2).double()
    parameters = list(network.parameters())
    for fast, slow in zip(
        torch.autograd.grad((weights * actual).sum(), parameters),
        torch.autograd.grad((weights * expected).sum(), parameters),
        strict=True,
    ):
        assert fast.any()
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


def test_network_equals_torch_convolutions() -> None:
    torch.manual_seed(0)
    d, c = 32, 5
    network = OuterProductCNN(d, c).double()
    (p, x), (q, y) = torch.randn(2, 6, d).double(), torch.randn(2, 6, d).double()
    fused = []
    for m, (left, right) in enumerate([(p, y), (p, q), (x, y), (x, q)]):
        maps = (left.unsqueeze(2) * right.unsqueeze(1)).unsqueeze(1)
        maps = F.conv2d(maps, network.first[m].permute(2, 0, 1).unsqueeze(1), network.biases[0][m, 0], stride=2).relu()
        for kernel, bias in zip(network.later, network.biases[1:], strict=True):
            # [column, row and in, out] -> [out, in, row, column]
            weight = kernel[m].view(2, 2, c, c).permute(3, 2, 1, 0)
            maps = F.conv2d(maps, weight, bias[m, 0], stride=2).relu()
        fused.append(maps.flatten(1))
    expected = network.fusion(torch.cat(fused, 1)).squeeze(1)
    actual = network(torch.stack([p, x]), torch.stack([q, y]).unsqueeze(2)).squeeze(1)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_network_gradients() -> None:
    torch.manual_seed(0)
    network = OuterProductCNN(4, 2).double()
    user, item = torch.randn(2, 2, 4).double().requires_grad_(), torch.randn(2, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(network, (user, item))


def test_four_networks_are_four() -> None:
    """Each map has kernels of its own: silencing one leaves the derivative through the others."""
    network = OuterProductCNN(4, 3)
    assert network.first.shape[0] == 4 and all(kernel.shape[0] == 4 for kernel in network.later)
    assert len({tuple(kernel.flatten().tolist()) for kernel in network.first}) == 4
    assert network.user_of_map.tolist() == [0, 0, 1, 1] and network.item_of_map.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("tables", ["low-rank", "full"])
@pytest.mark.parametrize("slots", ["weekday", "month"])
def test_loss_and_scores_equal_the_loops(slots: str, tables: str) -> None:
    model = random_model(slots=slots, slot_tables=tables, l2=0.3)
    batch = Sampler(toy_data(), 0).triples(3, 2)
    assert batch.times is not None
    moments = pd.to_datetime(batch.times.numpy(), unit="s")
    expected = 0.0
    for b in range(3):
        user, slot = int(batch.users[b]), int(moments[b].weekday() if slots == "weekday" else moments[b].month - 1)
        for item, sign in [(int(batch.positives[b]), -1), *((j, 1) for j in batch.negatives[b].tolist())]:
            expected += F.softplus(sign * slow_score(model, user, item, slot)).item() / 9
            expected += 0.3 * 0.5 * model.items.static[item].square().sum().item() / 9
        expected += 0.3 * 0.5 * model.users.static[user].square().sum().item() / 3
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-10)

    times = torch.full((N_USERS,), int(batch.times[0]))
    slot = int(time_slots(times[:1], slots))
    scores = model.scorer(times).block(torch.tensor([5, 7]))
    for row, user in enumerate((5, 7)):
        for item in (0, 20):
            assert scores[row, item].item() == pytest.approx(slow_score(model, user, item, slot).item(), rel=1e-10)


def test_each_user_is_served_at_its_own_time() -> None:
    model = random_model()
    times = torch.as_tensor(START + np.random.default_rng(0).integers(0, 365 * 86_400, N_USERS))
    times[4] = -1
    scores = model.scorer(times).block(EVERY_USER)
    assert len(time_slots(times, "month").unique()) > 4
    for user in range(N_USERS):
        alone = model.scorer(torch.full((N_USERS,), int(times[user]))).block(torch.tensor([user]))
        torch.testing.assert_close(scores[user], alone[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(scores[4], model.scorer().block(torch.tensor([4]))[0])
    assert not torch.allclose(scores, model.scorer().block(EVERY_USER))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = random_model().scorer(torch.full((N_USERS,), START))
    users, items = torch.tensor([3, 0, 3]), torch.tensor([[1, 2, 36], [0, 0, 5], [7, 1, 2]])
    block, pairs = scorer.block(users), scorer.pairs(users, items)
    torch.testing.assert_close(pairs, block.gather(1, items), rtol=1e-10, atol=0)
    for chunk in (1, 2, 36):
        monkeypatch.setattr(PairScorer, "chunk", chunk)
        torch.testing.assert_close(scorer.block(users), block, rtol=1e-10, atol=0)
        torch.testing.assert_close(scorer.pairs(users, items), pairs, rtol=1e-10, atol=0)


def test_unknown_slot_is_attended_by_none_and_asks_neutrally_at_first() -> None:
    for tables in ("low-rank", "full"):
        model = built(CoNCARS, "concars", toy_data(), factors=4, channels=2, slot_tables=tables)
        assert not model.users.slot_vectors[..., -1, :].any() and model.users.slot_vectors[..., 0, :].any()
        users, slots = torch.arange(5), torch.full((5,), 3)
        before = model.users(users, slots)
        with torch.no_grad():
            model.users.slot_vectors[..., -1, :] += 9
        assert torch.equal(model.users(users, slots), before)
        assert not torch.equal(model.users(users, torch.full((5,), 12))[1], before[1])


def test_users_and_items_have_attention_and_slots_of_their_own() -> None:
    model = random_model()
    batch = Sampler(toy_data(), 0).triples(8, 1)
    model.loss(batch).backward()
    gradients = [not_none(not_none(side.attention).grad) for side in (model.users, model.items)]
    assert all(g.any() for g in gradients)
    assert not torch.allclose(gradients[0], gradients[1])
    names = {name for name, _ in model.named_parameters()}
    assert {"users.slot_vectors", "items.slot_vectors"} <= names  # in no plain list: optimised and saved


@given(seconds=st.integers(0, 4_102_444_799), kind=st.sampled_from(sorted(N_SLOTS)))
def test_slots_equal_the_calendar(seconds: int, kind: str) -> None:
    moment = pd.Timestamp(seconds, unit="s")
    expected = {"month": moment.month - 1, "weekday": moment.weekday(), "hour": moment.hour}[kind]
    assert time_slots(torch.tensor([seconds]), kind).tolist() == [expected]


@pytest.mark.parametrize("kind", sorted(N_SLOTS))
def test_unknown_times(kind: str) -> None:
    assert time_slots(torch.tensor([-1, -(2**63), 0]), kind)[:2].tolist() == [N_SLOTS[kind]] * 2


def test_batches_without_times_ask_from_the_unknown_slot() -> None:
    model = random_model()
    batch = Sampler(toy_data(), 0).triples(4, 1)
    unknown = Batch(batch.users, batch.positives, batch.negatives, torch.full((4,), -1))
    torch.testing.assert_close(model.loss(batch._replace(times=None)), model.loss(unknown))
    assert model.loss(batch).item() != model.loss(unknown).item()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"factors": 12}, "must be 2, 4, 8, ..., not 12"),
        ({"factors": 1}, "not 1"),
        ({"slots": "year"}, "'month', 'weekday', 'hour', not 'year'"),
        ({"slot_tables": "both"}, "'low-rank' or 'full', not 'both'"),
    ],
)
def test_bad_parameters_get_a_sentence(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model("concars", toy_data(), **parameters)


@pytest.mark.slow
def test_learns_which_items_belong_to_which_month() -> None:
    """Every user buys winter items in winter and summer items in summer: only time can tell them apart."""
    rng = np.random.default_rng(0)
    dataset, _ = planted_dataset()
    old = dataset.train
    season = (pd.to_datetime(not_none(old.times), unit="s").month.to_numpy() - 1) // 6
    half = dataset.n_items // 2
    items = np.full(len(old), -1)
    for user in range(dataset.n_users):
        mine = np.flatnonzero(old.users == user)
        for s in (0, 1):
            of_season = mine[season[mine] == s]
            items[of_season] = s * half + rng.choice(half, len(of_season), replace=False)
    moved = type(old).from_pairs(old.users, items, dataset.n_users, dataset.n_items, old.times)
    data = replace(dataset.training_data(), interactions=moved)
    model = built(CoNCARS, "concars", data, factors=8, channels=8)
    train(model, Sampler(data, 0), steps=200)
    january, july = (
        model.scorer(torch.full((dataset.n_users,), int(pd.Timestamp(day).timestamp()))).block(torch.arange(9))
        for day in ("2021-01-15", "2021-07-15")
    )
    assert january[:, :half].mean() > january[:, half:].mean() + 1
    assert july[:, half:].mean() > july[:, :half].mean() + 1


@pytest.mark.slow
def test_learns_planted_tastes() -> None:
    dataset, _ = planted_dataset()
    data = dataset.training_data()
    model = built(CoNCARS, "concars", data, factors=8, channels=8)
    train(model, Sampler(data, 0), steps=250)
    scores = model.scorer(torch.as_tensor(dataset.test.times)).block(torch.arange(dataset.n_users)).numpy()
    assert scores.shape == (dataset.n_users, dataset.n_items)
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items)


def train(model: CoNCARS, sampler: Sampler, steps: int) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        model.loss(sampler.triples(256)).backward()
        optimiser.step()
