"""The baselines against slow loops in float64, written from the papers' formulas, and the identities between them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from formulas import naive_fm
from narrow import not_none
from torch import Tensor
from toy import N_CATEGORIES, N_FEATURES, N_ITEMS, N_USERS, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, model_card, warp
from imgrec_lib.models.base import Recommender, TrainSettings
from imgrec_lib.models.warp import WARP, rank_weights


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return toy_data()


def build(name: str, data: TrainingData, seed: int = 0, **parameters: Any) -> Recommender:
    """A model in float64 with random weights everywhere, and no penalty but those given."""
    keywords = inspect.signature(model_card(name).build).parameters
    plain = {k: 0.0 for k in keywords if k.startswith("l2")} | {k: None for k in keywords if k == "at_interactions"}
    model = build_model(name, data, **(plain | parameters)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def weights(model: Recommender) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


def all_scores(model: Recommender) -> np.ndarray:
    return model.scorer().block(torch.arange(N_USERS)).numpy()


def triples(data: TrainingData, negatives: int = 1, size: int = 9) -> Batch:
    return Sampler(data, seed=2).triples(size, negatives)


def bpr_by_loop(score: Any, batch: Batch) -> float:
    """Mean over all pairs of -ln sigma(s(u,i) - s(u,j)), one pair at a time."""
    terms = [
        math.log1p(math.exp(-(score(u, i) - score(u, j))))
        for u, i, row in zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True)
        for j in row
    ]
    return sum(terms) / len(terms)


def mean_half_square(rows: list[np.ndarray]) -> float:
    return sum(0.5 * float(np.sum(np.square(row))) for row in rows) / len(rows)


def scores_by_loop(score: Any) -> np.ndarray:
    return np.array([[score(u, i) for i in range(N_ITEMS)] for u in range(N_USERS)])


def features_of(data: TrainingData) -> np.ndarray:
    assert data.features is not None
    return data.features.astype(np.float64)


# VBPR


def vbpr_score(model: Recommender, data: TrainingData, scale: float) -> Any:
    w, f = weights(model), features_of(data) / scale

    def score(u: int, i: int) -> float:
        total = w["item_bias"][i]
        for k in range(w["users"].shape[1]):
            total += w["users"][u, k] * w["items"][i, k]
        for k in range(w["visual_users"].shape[1]):
            total += w["visual_users"][u, k] * sum(w["projection"][x, k] * f[i, x] for x in range(N_FEATURES))
        return total + sum(w["visual_bias"][x] * f[i, x] for x in range(N_FEATURES))

    return score


@pytest.mark.parametrize("negatives", [1, 3])
def test_vbpr_follows_its_formula(negatives: int, data: TrainingData) -> None:
    penalty: dict[str, Any] = {"l2": 0.3, "l2_negative": 0.05, "l2_bias": 0.2, "l2_visual": 0.07}
    model = build("vbpr", data, factors=4, visual_factors=3, **penalty)
    score = vbpr_score(model, data, features_of(data).max())
    np.testing.assert_allclose(all_scores(model), scores_by_loop(score), rtol=1e-6, atol=1e-6)
    batch, w = triples(data, negatives), weights(model)
    users, items, others = batch.users.numpy(), batch.positives.numpy(), batch.negatives.numpy().ravel()
    expected = bpr_by_loop(score, batch)
    expected += 0.3 * (
        mean_half_square(list(w["users"][users]))
        + mean_half_square(list(w["items"][items]))
        + mean_half_square(list(w["visual_users"][users]))
    )
    expected += 0.05 * mean_half_square(list(w["items"][others]))
    expected += 0.2 * (mean_half_square(list(w["item_bias"][items])) + mean_half_square(list(w["item_bias"][others])))
    expected += 0.07 * 0.5 * (np.sum(w["projection"] ** 2) + np.sum(w["visual_bias"] ** 2))
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-6)


def test_vbpr_feature_scale(data: TrainingData) -> None:
    model = build("vbpr", data, factors=4, visual_factors=3, feature_scale=58.388599)
    score = vbpr_score(model, data, 58.388599)
    np.testing.assert_allclose(all_scores(model), scores_by_loop(score), rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"'feature_scale' of .* must be float, at least 0"):
        build_model("vbpr", data, feature_scale=-1.0)


def repaired_cornac_loss(w: dict[str, Tensor], features: Tensor, batch: Batch) -> Tensor:
    """Cornac's VBPR loss with its visual-bias term squeezed from (B, 1) to (B,).

    x_uij = beta_i - beta_j + gamma_u . (gamma_i - gamma_j) + theta_u . ((f_i - f_j) E) + (f_i - f_j) beta', summed.
    """
    u, i, j = batch.users, batch.positives, batch.negatives[:, 0]
    difference = features[i] - features[j]
    x_uij = (
        w["item_bias"][i]
        - w["item_bias"][j]
        + (w["users"][u] * (w["items"][i] - w["items"][j])).sum(dim=1)
        + (w["visual_users"][u] * difference.mm(w["projection"])).sum(dim=1)
        + difference.mm(w["visual_bias"].unsqueeze(1)).squeeze(1)
    )
    assert x_uij.shape == u.shape
    return -torch.nn.functional.logsigmoid(x_uij).sum()


def test_vbpr_gradients_are_those_of_the_repaired_cornac_formula(data: TrainingData) -> None:
    model = build("vbpr", data, factors=4, visual_factors=3)
    batch = triples(data, size=50)
    model.loss(batch).backward()
    copies = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    features = torch.as_tensor(features_of(data) / features_of(data).max())
    repaired_cornac_loss(copies, features, batch).div(50).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and copies[name].grad is not None
        torch.testing.assert_close(parameter.grad, copies[name].grad, rtol=1e-6, atol=1e-9)


def test_vbpr_without_pictures_is_bpr_mf(data: TrainingData) -> None:
    blank = replace(data, features=np.zeros_like(features_of(data), dtype=np.float32))
    penalty: dict[str, Any] = {"l2_negative": 0.05, "l2_bias": 0.2}
    vbpr = build("vbpr", blank, factors=4, **penalty)
    bprmf = build("bpr-mf", blank, factors=4, **penalty)
    bprmf.load_state_dict({name: vbpr.state_dict()[name] for name in ("users", "items", "item_bias")})
    np.testing.assert_allclose(all_scores(vbpr), all_scores(bprmf), rtol=1e-12)
    batch = triples(data, negatives=2)
    assert vbpr.loss(batch).item() == pytest.approx(bprmf.loss(batch).item(), rel=1e-12)
    vbpr.loss(batch).backward()
    bprmf.loss(batch).backward()
    for name, parameter in bprmf.named_parameters():
        torch.testing.assert_close(vbpr.get_parameter(name).grad, parameter.grad)


# DeepStyle


def deepstyle_score(model: Recommender, data: TrainingData) -> Any:
    w, f, c = weights(model), features_of(data) / features_of(data).max(), not_none(data.categories)

    def score(u: int, i: int) -> float:
        style = [sum(w["projection"][x, k] * f[i, x] for x in range(N_FEATURES)) for k in range(4)]
        return sum(w["users"][u, k] * (style[k] - w["categories"][c[i], k] + w["items"][i, k]) for k in range(4))

    return score


@pytest.mark.parametrize("negatives", [1, 3])
def test_deepstyle_follows_its_formula(negatives: int, data: TrainingData) -> None:
    model = build("deepstyle", data, factors=4, l2=0.3, l2_category=0.2, l2_visual=0.07)
    score = deepstyle_score(model, data)
    np.testing.assert_allclose(all_scores(model), scores_by_loop(score), rtol=1e-6, atol=1e-6)
    batch, w, c = triples(data, negatives), weights(model), data.categories
    assert c is not None
    users, items, others = batch.users.numpy(), batch.positives.numpy(), batch.negatives.numpy().ravel()
    expected = bpr_by_loop(score, batch)
    expected += 0.3 * sum(
        mean_half_square(list(rows)) for rows in (w["users"][users], w["items"][items], w["items"][others])
    )
    expected += 0.2 * sum(mean_half_square(list(w["categories"][c[part]])) for part in (items, others))
    expected += 0.07 * 0.5 * np.sum(w["projection"] ** 2)
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-6)


def test_deepstyle_category_table_is_shared(data: TrainingData) -> None:
    model = build("deepstyle", data, factors=4)
    assert model.get_parameter("categories").shape == (N_CATEGORIES, 4)
    before = all_scores(model)
    with torch.no_grad():
        model.get_parameter("categories")[2] += 1.0
    moved = np.abs(all_scores(model) - before).max(0) > 1e-9
    np.testing.assert_array_equal(moved, data.categories == 2)


def test_deepstyle_with_one_category_does_not_depend_on_its_table() -> None:
    data = toy_data(n_categories=1)
    model = build("deepstyle", data, factors=4)
    batch, before = triples(data, negatives=2), all_scores(model)
    loss = model.loss(batch)
    loss.backward()
    gradient = model.get_parameter("categories").grad
    assert gradient is not None and gradient.abs().max() < 1e-12
    with torch.no_grad():
        model.get_parameter("categories").add_(torch.tensor([3.0, -1.0, 2.0, 0.5]))
    after = all_scores(model)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after - after[:, :1], before - before[:, :1], atol=1e-9)
    assert model.loss(batch).item() == pytest.approx(loss.item(), rel=1e-12)


# Factorisation machines


def fm_inputs(data: TrainingData, u: int, i: int, visual: bool) -> np.ndarray:
    x = np.zeros(N_USERS + N_ITEMS)
    x[[u, N_USERS + i]] = 1
    return np.concatenate([x, features_of(data)[i] / features_of(data).max()]) if visual else x


@pytest.mark.parametrize("name", ["fm-id", "fm-visual"])
def test_fm_ranks_as_the_naive_machine_does(name: str, data: TrainingData) -> None:
    model, visual = build(name, data, factors=4), name == "fm-visual"
    w, rng = weights(model), np.random.default_rng(0)
    # w_0 and w_u, which the model leaves out, have any value here: they must not matter.
    linear = [rng.normal(size=N_USERS), w["item_weight"]] + ([w["feature_weight"]] if visual else [])
    vectors = [w["users"], w["items"]] + ([w["feature_vectors"]] if visual else [])
    w_all, v_all = np.concatenate(linear), np.concatenate(vectors)

    def score(u: int, i: int) -> float:
        return naive_fm(fm_inputs(data, u, i, visual), 0.7, w_all, v_all)

    expected, scores = scores_by_loop(score), all_scores(model)
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], rtol=1e-6, atol=1e-6)
    for negatives in (1, 3):
        batch = triples(data, negatives)
        assert model.loss(batch).item() == pytest.approx(bpr_by_loop(score, batch), rel=1e-6)


def test_fm_visual_penalty(data: TrainingData) -> None:
    batch = triples(data, negatives=2)
    plain = build("fm-visual", data, factors=4)
    model = build("fm-visual", data, factors=4, l2=0.3, l2_linear=0.2, l2_visual=0.07)
    w = weights(model)
    users, items, others = batch.users.numpy(), batch.positives.numpy(), batch.negatives.numpy().ravel()
    expected = 0.3 * sum(
        mean_half_square(list(rows)) for rows in (w["users"][users], w["items"][items], w["items"][others])
    )
    expected += 0.2 * sum(mean_half_square(list(w["item_weight"][part])) for part in (items, others))
    expected += 0.07 * 0.5 * (np.sum(w["feature_vectors"] ** 2) + np.sum(w["feature_weight"] ** 2))
    assert model.loss(batch).item() - plain.loss(batch).item() == pytest.approx(expected, rel=1e-9)


def test_fm_id_is_bpr_mf_with_item_bias(data: TrainingData) -> None:
    fm = build("fm-id", data, factors=4, l2=0.3, l2_linear=0.2)
    bprmf = build("bpr-mf", data, factors=4, l2=0.3, l2_negative=0.3, l2_bias=0.2)
    names = {"users": "users", "items": "items", "item_weight": "item_bias"}
    bprmf.load_state_dict({there: fm.state_dict()[here] for here, there in names.items()})
    np.testing.assert_allclose(all_scores(fm), all_scores(bprmf), rtol=1e-12)
    batch = triples(data, negatives=2)
    losses = fm.loss(batch), bprmf.loss(batch)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    for loss in losses:
        loss.backward()
    for here, there in names.items():
        torch.testing.assert_close(fm.get_parameter(here).grad, bprmf.get_parameter(there).grad)


# WARP


def warp_by_loop(model: Recommender, batch: Batch, train: Interactions, harmonic: bool) -> tuple[float, list[int]]:
    """The mean loss without penalty, and the trial at which each positive found its violator (0: none)."""
    w, n_items = weights(model), train.n_items

    def score(u: int, i: int) -> float:
        return float(w["users"][u] @ w["items"][i]) + w["item_bias"][i]

    total, found = 0.0, []
    for u, i, row in zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True):
        found.append(0)
        for trial, j in enumerate(row, start=1):
            if j not in train.of(u) and score(u, j) > score(u, i) - 1:
                rank = (n_items - 1) // trial
                weight = sum(1 / k for k in range(1, rank + 1)) if harmonic else min(math.log(max(1, rank)), 10)
                total += weight * max(0.0, 1 - score(u, i) + score(u, j))
                found[-1] = trial
                break
    return total / len(found), found


def warp_batch(model: Recommender, data: TrainingData, size: int = 200) -> Batch:
    batch = model.sample(Sampler(data, seed=1), TrainSettings(batch_size=size))
    assert isinstance(batch, Batch)
    return batch


@pytest.mark.parametrize("search", [warp._search, warp._search_all], ids=["on the CPU", "on any device"])
@pytest.mark.parametrize("weighting", ["lightfm", "wsabie"])
def test_warp_follows_its_algorithm(
    weighting: str, search: Callable[..., Tensor], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warp, "_search", search)
    model = build("warp", data, factors=4, max_trials=6, weighting=weighting)
    with torch.no_grad():
        model.get_parameter("users").mul_(4)  # spread the scores, so that violators are found late or never
    batch = warp_batch(model, data)
    expected, found = warp_by_loop(model, batch, data.interactions, weighting == "wsabie")
    assert set(found) == {0, 1, 2, 3, 4, 5, 6}
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-6)


def test_warp_by_hand() -> None:
    """One user, three items of scores 2, 1.5, 0: only item 1 violates, at the second trial."""
    interactions = Interactions.from_pairs(np.array([0]), np.array([0]), n_users=1, n_items=3)
    model = build_model("warp", TrainingData(interactions), factors=1, max_trials=3, l2=0.0, l2_bias=0.0)
    model.load_state_dict(
        {
            "users": torch.tensor([[1.0]]),
            "items": torch.tensor([[2.0], [1.0], [0.0]]),
            "item_bias": torch.tensor([0.0, 0.5, 0.0]),
        }
    )
    user, positive = torch.tensor([0]), torch.tensor([0])
    # Q = 2 gives rank (3 - 1) // 2 = 1 and weight ln 1 = 0: found, but of no weight.
    late = model.loss(Batch(user, positive, torch.tensor([[2, 1, 1]]), None))
    # Q = 1 gives rank 2: ln 2 * (1 - 2 + 1.5).
    soon = model.loss(Batch(user, positive, torch.tensor([[1, 2, 2]]), None))
    # A training item in the first trial uses it up.
    owned = model.loss(Batch(user, positive, torch.tensor([[0, 1, 2]]), None))
    never = model.loss(Batch(user, positive, torch.tensor([[2, 2, 2]]), None))
    assert soon.item() == pytest.approx(math.log(2) * 0.5, rel=1e-6)
    assert late.item() == owned.item() == never.item() == 0
    never.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_warp_rank_weights() -> None:
    lightfm, wsabie = rank_weights(101, 100, "lightfm"), rank_weights(101, 100, "wsabie")
    assert lightfm[0].item() == pytest.approx(math.log(100), rel=1e-6)  # Q = 1: rank N - 1
    assert wsabie[0].item() == pytest.approx(sum(1 / k for k in range(1, 101)), rel=1e-6)
    assert wsabie[99].item() == 1 and lightfm[99].item() == 0  # rank 1
    for table in (lightfm, wsabie):
        assert (table.diff() <= 0).all() and table[0] > table[1] > table[4] > table[99]
    assert rank_weights(20_000, 1, "lightfm").item() == pytest.approx(math.log(19_999), rel=1e-6)
    assert rank_weights(10**6, 1, "lightfm").item() == 10  # LightFM's cap
    assert rank_weights(4, 5, "wsabie")[3:].tolist() == [0, 0]  # more trials than items: rank 0
    with pytest.raises(InputError, match="'lightfm' or 'wsabie'"):
        rank_weights(10, 2, "harmonic")


@pytest.mark.parametrize("weighting", ["lightfm", "wsabie"])
def test_warp_gradient_by_finite_differences(weighting: str, data: TrainingData) -> None:
    model = build("warp", data, factors=3, max_trials=4, weighting=weighting, l2=0.2, l2_bias=0.1)
    batch = warp_batch(model, data, size=30)
    model.loss(batch).backward()
    step = 1e-6
    for parameter in model.parameters():
        flat, gradient = parameter.detach().view(-1), parameter.grad
        assert gradient is not None
        for index in range(0, len(flat), 7):
            kept = flat[index].item()
            flat[index] = kept + step
            above = model.loss(batch).item()
            flat[index] = kept - step
            below = model.loss(batch).item()
            flat[index] = kept
            assert gradient.view(-1)[index].item() == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_warp_penalty_touches_violating_triples_only(data: TrainingData) -> None:
    plain = build("warp", data, factors=4, max_trials=3)
    model = build("warp", data, factors=4, max_trials=3, l2=0.3, l2_bias=0.2)
    batch, w = warp_batch(model, data), weights(model)
    _, found = warp_by_loop(model, batch, data.interactions, harmonic=False)
    expected = 0.0
    for b, trial in enumerate(found):
        if trial:
            u, i, j = batch.users[b], batch.positives[b], batch.negatives[b, trial - 1]
            expected += 0.3 * mean_half_square([np.concatenate([w["users"][u], w["items"][i], w["items"][j]])])
            expected += 0.2 * mean_half_square([np.array([w["item_bias"][i], w["item_bias"][j]])])
    assert 0 < sum(trial > 0 for trial in found) < len(found)
    assert model.loss(batch).item() - plain.loss(batch).item() == pytest.approx(expected / len(found), rel=1e-6)


def test_warp_draws_from_the_whole_catalogue(data: TrainingData) -> None:
    model = build("warp", data, max_trials=8)
    batch = warp_batch(model, data, size=2000)
    assert batch.negatives.shape == (2000, 8)
    owned = {u: set(data.interactions.of(u).tolist()) for u in range(N_USERS)}
    assert all(i in owned[u] for u, i in zip(batch.users.tolist(), batch.positives.tolist(), strict=True))
    counts = torch.bincount(batch.negatives.flatten(), minlength=N_ITEMS)
    assert (counts - 16000 / N_ITEMS).abs().max() < 5 * (16000 / N_ITEMS) ** 0.5  # uniform: five standard deviations


def test_warp_takes_no_training_item_for_a_violator(data: TrainingData) -> None:
    """Where every item scores the same, the first trial violates unless its user owns it."""
    model = build("warp", data, max_trials=3)
    assert isinstance(model, WARP)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    batch = warp_batch(model, data, size=2000)
    items, weight = model.first_violators(batch)
    for u, item, row, found in zip(
        batch.users.tolist(), items.tolist(), batch.negatives.tolist(), (weight > 0).tolist(), strict=True
    ):
        free = [j for j in row if j not in data.interactions.of(u)]
        assert found == bool(free) and (not free or item == free[0])


def test_wsabie_projects_into_the_ball(data: TrainingData) -> None:
    model = build("warp", data, factors=4, max_norm=1.0, bias=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.after_step()
    for name in ("users", "items"):
        norm = before[name].norm(dim=1, keepdim=True)
        assert (norm > 1).any() and (norm < 1).any()
        expected = torch.where(norm > 1, before[name] / norm, before[name])
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=1e-6, atol=1e-7)
    assert all(p is not model.get_parameter("item_bias") for p in model.start_phase(0))
    free = build("warp", data, factors=4)
    free.after_step()
    assert torch.equal(free.get_parameter("users"), before["users"])


# VisRank and Pop+VisRank


def visrank_by_loop(data: TrainingData, similarity: str, aggregate: str) -> np.ndarray:
    f = features_of(data)

    def similar(a: np.ndarray, b: np.ndarray) -> float:
        if similarity == "euclidean":
            return -float(np.sum((a - b) ** 2))
        norm = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return float(a @ b) / norm if norm else 0.0

    table = np.zeros((data.n_users, data.n_items))
    for u in range(data.n_users):
        for i in range(data.n_items):
            values = [similar(f[j], f[i]) for j in data.interactions.of(u)]
            if values:
                table[u, i] = max(values) if aggregate == "max" else sum(values) / len(values)
    return table


def with_an_empty_user(data: TrainingData) -> TrainingData:
    old = data.interactions
    keep = old.users != 5
    pairs = old.users[keep], old.items[keep]
    return replace(data, interactions=Interactions.from_pairs(*pairs, N_USERS, N_ITEMS, None))


@pytest.mark.parametrize("aggregate", ["mean", "max"])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_visrank_follows_its_formula(similarity: str, aggregate: str, data: TrainingData) -> None:
    data = with_an_empty_user(data)
    model = build_model("visrank", data, similarity=similarity, aggregate=aggregate)
    np.testing.assert_allclose(all_scores(model), visrank_by_loop(data, similarity, aggregate), atol=2e-5)


def test_visrank_max_over_long_histories() -> None:
    """More purchases than fit in one pass, with users whose purchases are cut by its end."""
    rng = np.random.default_rng(0)
    n_users, n_items = 8, 1500
    lengths = np.array([700, 1, 1400, 30, 0, 900, 1450, 5])
    items = np.concatenate([rng.choice(n_items, n, replace=False) for n in lengths])
    interactions = Interactions.from_pairs(np.repeat(np.arange(n_users), lengths), items, n_users, n_items)
    features = rng.normal(size=(n_items, 6)).astype(np.float32)
    model = build_model("visrank", TrainingData(interactions, features=features), aggregate="max")
    users = torch.tensor([6, 4, 2, 0, 5, 2, 7, 3])
    scores = model.scorer().block(users).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for row, user in enumerate(users.tolist()):
        history = interactions.of(user)
        expected = (unit @ unit[history].T).max(1) if len(history) else np.zeros(n_items)
        np.testing.assert_allclose(scores[row], expected, atol=1e-5)


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_pop_visrank_follows_its_formula(aggregate: str, data: TrainingData) -> None:
    data = with_an_empty_user(data)
    model = build_model("pop-visrank", data, weight=2.5, aggregate=aggregate)
    popularity = np.log(1 + data.interactions.popularity)
    expected = popularity[None, :] + 2.5 * visrank_by_loop(data, "cosine", aggregate)
    np.testing.assert_allclose(all_scores(model), expected, atol=2e-5)
    # Scoring twice gives the same scores: nothing is changed in place that is used again.
    np.testing.assert_array_equal(all_scores(model), all_scores(model))
    pairs = model.scorer().pairs(torch.tensor([4, 5]), torch.tensor([[0, 36], [7, 7]]))
    np.testing.assert_allclose(pairs.numpy(), expected[[[4, 4], [5, 5]], [[0, 36], [7, 7]]], atol=2e-5)
