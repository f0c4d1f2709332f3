"""The softmax losses: log-sum-exp in tiles against float64 loops, samples against the whole catalogue in expectation,
and the loss of every model that offers them against its own scores."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy import N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.sampler import CandidateBatch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, list_models
from imgrec_lib.models.base import Recommender, TrainSettings
from imgrec_lib.models.parts import softmax
from imgrec_lib.models.parts.objective import PAIRWISE, SOFTMAX
from imgrec_lib.models.parts.softmax import Entries, log_sum_exp, softmax_cross_entropy

MODELS = [name for name, card in list_models().items() if "loss" in inspect.signature(card.build).parameters]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three users by four items: even a toy has many tiles, and the last ones are not full."""
    monkeypatch.setattr(softmax, "TILE_USERS", 3)
    monkeypatch.setattr(softmax, "TILE_NUMBERS", {"cpu": 12, "cuda": 12})


def example(n_users: int, n_items: int, width: int, scale: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Users, items, offsets in float64, and exclusions of up to three items a user."""
    rng = np.random.default_rng(seed)
    users, items, offsets = (rng.normal(size=shape) for shape in ((n_users, width), (n_items, width), n_items))
    excluded = np.full((n_users, 3), -1)
    for row in excluded:
        wanted = rng.integers(0, min(3, n_items) + 1)
        row[rng.permutation(3)[:wanted]] = rng.choice(n_items, wanted, replace=False)
    return torch.tensor(scale * users), torch.tensor(items), torch.tensor(scale * offsets), torch.tensor(excluded)


def entries(n_users: int, n_items: int, seed: int) -> Entries:
    """Numbers for a third of all pairs or less, in random order, some of them several times."""
    rng = np.random.default_rng(seed + 1)
    pairs = rng.integers(0, n_users * n_items, n_users * n_items // 3)
    return Entries(*(torch.tensor(x) for x in (pairs // n_items, pairs % n_items, 2 * rng.normal(size=len(pairs)))))


def by_loops(
    users: Tensor, items: Tensor, offsets: Tensor, excluded: Tensor, added: Entries, upstream: Tensor
) -> list[np.ndarray]:
    """The log-sum-exp of each user, and the gradients of its weighted sum: one score at a time."""
    pairs = list(zip(added.rows.tolist(), added.items.tolist(), strict=True))
    extra: dict[tuple[int, int], float] = {}
    for pair, value in zip(pairs, added.values.tolist(), strict=True):
        extra[pair] = extra.get(pair, 0.0) + value
    u, z, o = users.numpy(), items.numpy(), offsets.numpy()
    result = np.full(len(u), -np.inf)
    gradients = [np.zeros_like(u), np.zeros_like(z), np.zeros_like(o), np.zeros(len(pairs))]
    for b in range(len(u)):
        scores = {
            i: float(u[b] @ z[i] + o[i]) + extra.get((b, i), 0.0)
            for i in range(len(z))
            if i not in excluded[b].tolist()
        }
        if not scores:
            continue
        largest = max(scores.values())
        result[b] = largest + math.log(sum(math.exp(s - largest) for s in scores.values()))
        for i, score in scores.items():
            chance = float(upstream[b]) * math.exp(score - result[b])
            gradients[0][b] += chance * z[i]
            gradients[1][i] += chance * u[b]
            gradients[2][i] += chance
            for m, pair in enumerate(pairs):
                if pair == (b, i):
                    gradients[3][m] += chance
    return [result, *gradients]


@given(
    n_users=st.integers(1, 8),
    n_items=st.integers(1, 11),
    width=st.integers(1, 5),
    scale=st.sampled_from([0.1, 1.0, 300.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_tiles_equal_loops_in_value_and_gradient(
    n_users: int, n_items: int, width: int, scale: float, seed: int
) -> None:
    users, items, offsets, excluded = example(n_users, n_items, width, scale, seed)
    upstream = torch.tensor(np.random.default_rng(seed).normal(size=n_users))
    added = entries(n_users, n_items, seed)
    expected = by_loops(users, items, offsets, excluded, added, upstream)
    inputs = [each.requires_grad_() for each in (users, items, offsets, added.values)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "TILE_USERS", 3)
        patch.setattr(softmax, "TILE_NUMBERS", {"cpu": 12, "cuda": 12})
        result = log_sum_exp(users, items, offsets, excluded, added)
        gradients = torch.autograd.grad((result.nan_to_num(neginf=0.0) * upstream).sum(), inputs)
    np.testing.assert_allclose(result.detach().numpy(), expected[0], rtol=1e-9, atol=1e-9)
    for gradient, wanted in zip(gradients, expected[1:], strict=True):
        np.testing.assert_allclose(gradient.numpy(), wanted, rtol=1e-7, atol=1e-9)


def test_scores_far_above_those_of_the_first_tile_do_not_overflow(small_tiles: None) -> None:
    users, items = torch.ones(2, 1), torch.tensor([[0.0], [0.0], [0.0], [0.0], [1000.0], [999.0]])
    offsets, none = torch.zeros(6), torch.full((2, 1), -1)
    expected = 1000 + math.log1p(math.exp(-1))
    torch.testing.assert_close(log_sum_exp(users, items, offsets, none), torch.full((2,), expected))
    # And where the only large score is left out, what remains is not lost below it.
    users, items = torch.ones(1, 1), torch.tensor([[1000.0], [1.0], [2.0]])
    result = log_sum_exp(users, items, torch.zeros(3), torch.tensor([[0]]))
    torch.testing.assert_close(result, torch.tensor([2 + math.log1p(math.exp(-1))]))


def test_single_precision_is_kept_over_a_large_catalogue() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = (0.5 * torch.randn(n, 16, generator=generator) for n in (5, 50_000))
    offsets, none = torch.randn(50_000, generator=generator), torch.full((5, 1), -1)
    expected = torch.logsumexp(users.double() @ items.double().T + offsets.double(), 1)
    torch.testing.assert_close(log_sum_exp(users, items, offsets, none).double(), expected, rtol=1e-6, atol=0)
    half = log_sum_exp(users.bfloat16(), items.bfloat16(), offsets, none)
    assert half.dtype == torch.float32


def test_no_more_than_a_tile_of_scores_is_ever_held() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            for each in result if isinstance(result, tuple | list) else [result]:
                if isinstance(each, Tensor):
                    self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
            return result

    users, items, offsets = torch.randn(1500, 2), torch.randn(20_000, 2), torch.randn(20_000)
    for each in (users, items, offsets):
        each.requires_grad_()
    with Largest() as seen:
        log_sum_exp(users, items, offsets, torch.full((1500, 1), -1)).sum().backward()
    assert seen.numbers == softmax.TILE_NUMBERS["cpu"] < 1500 * 20_000


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_shapes_that_do_not_fit_are_refused(wrong: int) -> None:
    inputs = list(example(4, 5, 3, 1.0, 0))
    inputs[wrong] = inputs[wrong][:-1]
    if wrong == 0:
        inputs[0] = inputs[0][:, :2]
    with pytest.raises(ValueError, match="do not fit"):
        log_sum_exp(*inputs)  # type: ignore[arg-type]  # four of its arguments, in a list
    with pytest.raises(ValueError, match="do not fit"):
        softmax_cross_entropy(torch.zeros(4), torch.zeros(3), *example(4, 5, 3, 1.0, 0))


def owned(user: int) -> set[int]:
    return set(toy_data().interactions.of(user).tolist())


@pytest.mark.parametrize("by", ["user", "interaction"])
@pytest.mark.parametrize("drawing", ["all", "uniform", "batch"])
def test_a_batch_of_candidates_says_what_is_owned(drawing: str, by: str) -> None:
    batch = Sampler(toy_data(), 3).candidates(20, drawing, 15, by)
    candidates = batch.candidates[0].tolist()
    assert len(set(candidates)) == len(candidates)
    assert batch.log_weights.shape == (1, len(candidates)) and batch.log_weights.dtype == torch.float32
    if drawing == "all":
        assert candidates == list(range(N_ITEMS)) and not batch.log_weights.any()
    if drawing == "batch":
        assert set(candidates) == set(batch.positives.tolist())
    examples = zip(batch.users.tolist(), batch.positives.tolist(), batch.owned.tolist(), strict=True)
    for user, positive, places in examples:
        assert positive in owned(user)
        assert {candidates[place] for place in places if place >= 0} == owned(user) & set(candidates)


@pytest.mark.parametrize("by", ["user", "interaction"])
@pytest.mark.parametrize("drawing", ["uniform", "batch"])
def test_the_candidates_sum_has_the_expectation_of_the_catalogues(drawing: str, by: str) -> None:
    """Of 1,500 batches, the mean over all users of the weighted sum of exp(score) over what they do not own."""
    data, sampler = toy_data(), Sampler(toy_data(), 0)
    scores = np.random.default_rng(1).normal(size=(N_USERS, N_ITEMS))
    popular = data.interactions.popularity > 0
    free = np.ones((N_USERS, N_ITEMS), bool) if drawing == "uniform" else np.tile(popular, (N_USERS, 1))
    free[data.interactions.users, data.interactions.items] = False
    expected = (np.exp(scores) * free).sum(1)
    estimates: list[list[float]] = [[] for _ in range(N_USERS)]
    for _ in range(1500):
        batch = sampler.candidates(6, drawing, 6, by)
        terms = torch.exp(torch.tensor(scores)[batch.users][:, batch.candidates[0]] + batch.log_weights)
        rows, places = (batch.owned >= 0).nonzero(as_tuple=True)
        terms[rows, batch.owned[rows, places]] = 0
        for user, estimate in zip(batch.users.tolist(), terms.sum(1).tolist(), strict=True):
            estimates[user].append(estimate)
    for user in range(N_USERS):
        mean, error = np.mean(estimates[user]), np.std(estimates[user]) / math.sqrt(len(estimates[user]))
        assert abs(mean - expected[user]) < 5 * error


def random_weights(model: Recommender, scale: float = 0.5) -> Recommender:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def plain(name: str, loss: str) -> Recommender:
    """A small model with random weights and no penalty, whose training scores are those of its scorer."""
    parameters = inspect.signature(list_models()[name].build).parameters
    options: dict[str, Any] = {"factors": 4, "visual_factors": 3, "units": 6, "mask_own_edge": False}
    options |= {key: 0.0 for key in parameters if key.startswith("l2")}
    chosen = {key: value for key, value in options.items() if key in parameters}
    return random_weights(build_model(name, toy_data(), loss=loss, **chosen))


@pytest.mark.slow
@pytest.mark.parametrize("loss", [*PAIRWISE, *SOFTMAX])
@pytest.mark.parametrize("name", MODELS)
def test_every_models_loss_is_that_of_its_scores(name: str, loss: str) -> None:
    model = plain(name, loss)
    batch = model.sample(Sampler(toy_data(), 4), TrainSettings(batch_size=9, negatives=5))
    scores = model.scorer().block(torch.arange(N_USERS)).double().numpy()
    total = 0.0
    if isinstance(batch, CandidateBatch):
        weights = dict(zip(batch.candidates[0].tolist(), batch.log_weights[0].double().exp().tolist(), strict=True))
        for user, positive in zip(batch.users.tolist(), batch.positives.tolist(), strict=True):
            others = sum(w * math.exp(scores[user, i]) for i, w in weights.items() if i not in owned(user))
            total += math.log(math.exp(scores[user, positive]) + others) - scores[user, positive]
        count = 9
    else:
        for user, positive, negatives in zip(*(each.tolist() for each in batch[:3]), strict=True):
            if loss == "bce":
                total += math.log1p(math.exp(-scores[user, positive]))
                total += sum(math.log1p(math.exp(scores[user, j])) for j in negatives)
            else:
                total += sum(math.log1p(math.exp(scores[user, j] - scores[user, positive])) for j in negatives)
        count = 9 * 6 if loss == "bce" else 9 * 5
    assert model.loss(batch).item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_large_sample_gives_the_loss_and_the_gradient_of_the_catalogue(name: str) -> None:
    losses, gradients = [], []
    for loss, negatives in (("softmax", 1), ("sampled-softmax", 500_000)):
        model = plain(name, loss)
        batch = model.sample(Sampler(toy_data(), 4), TrainSettings(batch_size=9, negatives=negatives))
        value = model.loss(batch)
        value.backward()
        losses.append(value.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=4e-3)
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


@pytest.mark.parametrize("loss", SOFTMAX)
@pytest.mark.parametrize("name", MODELS)
def test_parts_of_a_batch_add_up_to_its_loss(name: str, loss: str) -> None:
    model = plain(name, loss).double()
    batch = model.sample(Sampler(toy_data(), 4), TrainSettings(batch_size=8, negatives=5))
    parts = [model.shard(batch, rank, 3) for rank in range(3)]
    assert sorted(len(part.users) for part, _ in parts) == [2, 3, 3]
    torch.testing.assert_close(sum(weight * model.loss(part) for part, weight in parts), model.loss(batch))


@pytest.mark.slow
@pytest.mark.parametrize("loss", [*PAIRWISE, *SOFTMAX])
def test_every_loss_learns_planted_tastes(loss: str) -> None:
    dataset, features = planted_dataset()
    data = dataset.training_data(features, in_order=True)
    model = build_model("vbpr", data, loss=loss, factors=4, visual_factors=4)
    sampler, optimiser = Sampler(data, 0), torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        value = model.loss(
            model.sample(sampler, TrainSettings(batch_size=256, negatives=4 if loss in PAIRWISE else 40))
        )
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    scores = model.scorer().block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items) + 0.1


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_loss_gets_a_suggestion(name: str) -> None:
    with pytest.raises(InputError, match="did you mean 'softmax'"):
        build_model(name, toy_data(), loss="softmx")


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one candidate"):
        Sampler(toy_data(), 0).candidates(4, "uniform", 0)
    with pytest.raises(InputError, match="drawing of candidates"):
        Sampler(toy_data(), 0).candidates(4, "everything")


def test_the_softmax_over_the_catalogue_reads_whole_tables() -> None:
    tables = {loss: build_model("bpr-mf", toy_data(), loss=loss).row_tables() for loss in ("softmax", "bpr")}
    assert [len(t) for t in tables["softmax"]] == [N_USERS]
    assert [len(t) for t in tables["bpr"]] == [N_USERS, N_ITEMS, N_ITEMS]
