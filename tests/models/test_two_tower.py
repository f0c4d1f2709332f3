"""TwoTower against slow loops from its formulas: score, loss and every part; new customers and new pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy import N_FEATURES, N_ITEMS, N_USERS, toy_data, toy_interactions

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import BasketBatch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Baskets, Extensible, PictureEmbedding, PurchaseParts, ScoreParts, Sliceable
from imgrec_lib.models.parts import neighbours
from imgrec_lib.models.two_tower import STRIDE, TwoTower

EVERYONE = torch.arange(N_USERS)
WHOLE: dict[str, Any] = {"groups": True, "item_table": True, "nearest": 5, "shrink": 2.0}
VARIANTS: list[dict[str, Any]] = [
    {},
    WHOLE,
    WHOLE | {"ids": False},
    {"together": False},
    {"looks": False},
    {"together": False, "looks": False},
    {"units": 0, "looks": False},
]


def build(data: TrainingData, seed: int = 2, **options: Any) -> TwoTower:
    """A small model with random weights, in evaluation mode."""
    model = build_model("two-tower", data, **({"factors": 4, "units": 6} | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    assert isinstance(model, TwoTower)
    return model.eval()


class Slow:
    """The model's formulas, one number at a time, from its weights and the data."""

    def __init__(self, model: TwoTower, data: TrainingData, options: dict[str, Any]) -> None:
        self.model, self.data = model, data
        self.options = {"together": True, "looks": True, "groups": False, "item_table": False} | options
        self.w = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
        self.buyers: list[set[int]] = [set() for _ in range(N_ITEMS)]
        for u, i in zip(data.interactions.users.tolist(), data.interactions.items.tolist(), strict=True):
            self.buyers[i].add(u)
        assert data.features is not None
        self.f = data.features.astype(np.float64)
        seen = self.f[[bool(row.any()) for row in self.f]]
        self.centre, self.deviation = seen.mean(0), seen.std(0)
        names = [name for name, on in (("c", "together"), ("v", "looks"), ("e", "groups")) if self.options[on]]
        self.weights = {name: STRIDE * float(self.w["weights"][k]) for k, name in enumerate(names)}
        self.h = [self.layer(i) for i in range(N_ITEMS)]
        self.cosines = self.all_cosines()

    def layer(self, i: int) -> np.ndarray:
        x = (self.f[i] - self.centre) / self.deviation if self.f[i].any() else np.zeros(N_FEATURES)
        h = self.w["layer.weight"] @ x + self.w["layer.bias"]
        if self.options["item_table"]:
            assert self.data.categories is not None and self.data.attributes is not None
            start = 0
            columns = [list(map(int, self.data.categories))]
            for name in self.data.attributes:
                text = self.data.attributes[name].tolist()
                columns.append([sorted(set(text)).index(value) for value in text])
            for column in columns:
                h = h + self.w["values"][start + column[i]]
                start += max(column) + 1
        return np.maximum(h, 0)

    def vectors(self, i: int) -> tuple[np.ndarray, float, np.ndarray]:
        """z_i, o_i and y_i."""
        h, known = self.h[i], bool(self.buyers[i])
        z, y = self.w["item_layer.weight"] @ h, self.w["purchase_layer.weight"] @ h
        o = float((self.w["offset_layer.weight"] @ h)[0])
        if known:
            o += float(self.w["offset"][i])
            if "items" in self.w:
                z, y = z + self.w["items"][i], y + self.w["purchases"][i]
        return z, o, y

    def all_cosines(self) -> np.ndarray:
        found = np.zeros((N_ITEMS, N_ITEMS))
        pictures = self.model.pictures
        if pictures is None:
            return found
        units = pictures.units.double().numpy()
        for j in range(N_ITEMS):
            cosines = [float(units[j] @ units[i]) if i != j else 0.0 for i in range(N_ITEMS)]
            least = sorted(cosines)[-min(pictures.k, N_ITEMS)]
            found[j] = [c if c >= least and c > 0 else 0.0 for c in cosines]
        return found

    def related(self, j: int, i: int, without: int | None = None) -> dict[str, float]:
        """What a purchase of j adds to i, by relation; `without` is a user whose purchases do not count."""
        parts = {}
        if i == j:
            return {name: 0.0 for name in self.weights}
        if "c" in self.weights:
            one, other = (self.buyers[k] - {without} for k in (i, j))
            shrink = self.options.get("shrink", 10.0)
            parts["c"] = len(one & other) / (math.sqrt(len(one) * len(other)) + shrink)
        if "v" in self.weights:
            parts["v"] = float(self.cosines[j, i]) ** self.model.power
        if "e" in self.weights:
            assert self.data.groups is not None
            parts["e"] = float(self.data.groups[i] == self.data.groups[j])
        return {name: self.weights[name] * value for name, value in parts.items()}

    def score(self, bought: list[int], i: int, emphasis: float, without: int | None = None) -> float:
        x = self.w["user"].copy()
        for j in bought:
            x += self.vectors(j)[2] / math.sqrt(len(bought))
        z, o, _ = self.vectors(i)
        near = sum(sum(self.related(j, i, without).values()) for j in bought)
        return float(x @ z) + o + emphasis * near


def some_never_bought() -> TrainingData:
    """The toy data, with items that nobody bought and a user who bought nothing."""
    data = toy_data()
    kept = (data.interactions.items > 4) & (data.interactions.users != 7)
    users, items = data.interactions.users[kept], data.interactions.items[kept]
    return replace(data, interactions=Interactions.from_pairs(users, items, N_USERS, N_ITEMS))


@pytest.mark.parametrize("options", VARIANTS)
def test_scores_follow_the_formula(options: dict[str, Any]) -> None:
    data = some_never_bought()
    model = build(data, emphasis=2.5, **options)
    slow = Slow(model, data, options)
    expected = [[slow.score(data.interactions.of(u).tolist(), i, 2.5) for i in range(N_ITEMS)] for u in range(N_USERS)]
    scorer = model.scorer()
    assert isinstance(scorer, Sliceable)
    np.testing.assert_allclose(scorer.block(EVERYONE).numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        scorer.tile(EVERYONE, slice(3, 11)).numpy(), np.array(expected)[:, 3:11], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("options", VARIANTS)
def test_the_loss_follows_the_formula_with_the_user_left_out_of_the_counts(options: dict[str, Any]) -> None:
    data = some_never_bought()
    model = build(data, **options)
    slow = Slow(model, data, options)
    batch = model.sample(Sampler(data, 5), replace(model.phases[0], batch_size=12))
    total = 0.0
    for user, items, hidden in zip(batch.users.tolist(), batch.items.tolist(), batch.hidden.tolist(), strict=True):
        shown = [i for i, h in zip(items, hidden, strict=True) if i >= 0 and not h]
        wanted = [i for i, h in zip(items, hidden, strict=True) if h]
        # The counts that a negative is judged by hold no pair of this user with it, for the user does not have it.
        others = sum(math.exp(slow.score(shown, i, 1.0)) for i in range(N_ITEMS) if i not in items)
        for i in wanted:
            score = slow.score(shown, i, 1.0, without=None)
            if "c" in slow.weights:  # only the pair's own relation is judged without the user
                score += sum(slow.related(j, i, user)["c"] - slow.related(j, i)["c"] for j in shown)
            total += math.log(1 + others / math.exp(score))
    average = 12 * 0.5 * len(data.interactions) / N_USERS
    assert model.loss(batch).item() == pytest.approx(total / average, rel=1e-5)
    if model.ids:
        penalty = 0.5 * sum((slow.w[name] ** 2).sum() for name in ("items", "purchases"))
        model.l2 = 0.3
        assert model.loss(batch).item() == pytest.approx(total / average + 0.3 * penalty, rel=1e-5)


def test_what_only_this_user_bought_together_gives_nothing_away() -> None:
    """Two users who share no item: whatever the weight of co-purchases, the loss does not depend on it."""
    interactions = Interactions.from_pairs(np.repeat([0, 1], 4), np.arange(8), 2, N_ITEMS)
    data = replace(toy_data(), interactions=interactions)
    losses = []
    for weight in (0.0, 5.0):
        model = build(data, looks=False, shrink=0.0)
        with torch.no_grad():
            model.weights.fill_(weight)
        losses.append(model.loss(model.sample(Sampler(data, 0), replace(model.phases[0], batch_size=6))).item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("options", VARIANTS)
def test_parts_add_up_to_the_score(options: dict[str, Any]) -> None:
    data = some_never_bought()
    model = build(data, **options)
    assert isinstance(model, ScoreParts) and isinstance(model, PurchaseParts)
    every = torch.arange(N_ITEMS)
    scores = model.scorer().block(EVERYONE)
    parts = model.contributions(EVERYONE, every.expand(N_USERS, -1))
    torch.testing.assert_close(sum(parts.values()), scores, rtol=1e-4, atol=1e-4)
    # Whoever bought nothing has the score that all users have in common.
    common = scores[7]
    for user in (0, 7, 22):
        by_purchase = model.purchase_similarity(user, every)
        assert by_purchase.shape == (N_ITEMS, len(data.interactions.of(user)))
        torch.testing.assert_close(by_purchase.sum(1) + common, scores[user], rtol=1e-4, atol=1e-4)


def test_the_names_of_the_parts_say_what_takes_part() -> None:
    one = torch.tensor([0])
    plain = build(toy_data()).contributions(one, one.unsqueeze(0))
    assert list(plain) == ["picture", "id", "picture: offset", "id: offset", "bought together", "looks alike"]
    whole = build(toy_data(), **WHOLE).contributions(one, one.unsqueeze(0))
    assert "picture and item table" in whole and "same group" in whole and "picture" not in whole


@pytest.mark.parametrize("options", VARIANTS)
def test_a_known_users_basket_gets_the_users_scores(options: dict[str, Any]) -> None:
    data = some_never_bought()
    model = build(data, **options)
    assert isinstance(model, Baskets)
    torch.testing.assert_close(model.score_baskets(data.interactions), model.scorer().block(EVERYONE))
    new = toy_interactions(n_users=6, seed=9)
    slow = Slow(model, data, options)
    expected = [[slow.score(new.of(u).tolist(), i, model.emphasis) for i in range(N_ITEMS)] for u in range(6)]
    np.testing.assert_allclose(model.score_baskets(new).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_new_customer_gets_the_scores_that_it_has_when_it_is_known() -> None:
    """No weight belongs to a user: the same weights, in a model that knows one user more."""
    data = toy_data()
    kept = data.interactions.users < N_USERS - 1
    users, items = data.interactions.users[kept], data.interactions.items[kept]
    assert set(data.interactions.items) == set(items)
    earlier = replace(data, interactions=Interactions.from_pairs(users, items, N_USERS - 1, N_ITEMS))
    before, after = (build(each, together=False) for each in (earlier, data))
    after.load_state_dict(before.state_dict())
    basket = Interactions.from_pairs(np.zeros(data.interactions.history_lengths[-1], int),
                                     data.interactions.of(N_USERS - 1), 1, N_ITEMS)  # fmt: skip
    torch.testing.assert_close(before.score_baskets(basket)[0], after.scorer().block(EVERYONE)[-1])


@pytest.mark.parametrize("options", VARIANTS)
def test_a_new_picture_gets_the_scores_that_it_has_when_it_is_an_item_that_nobody_bought(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy_data()
    assert data.features is not None and data.images is not None
    # The first and the last item are new.
    features = data.features.copy()
    features[0] = features[5] + 0.1
    kept = (data.interactions.items > 0) & (data.interactions.items < N_ITEMS - 1)
    users, items = data.interactions.users[kept], data.interactions.items[kept]
    later = replace(data, features=features, interactions=Interactions.from_pairs(users, items, N_USERS, N_ITEMS))
    inner = slice(1, N_ITEMS - 1)
    assert data.categories is not None and data.groups is not None and data.attributes is not None
    earlier = replace(
        later,
        features=features[inner],
        categories=data.categories[inner],
        groups=data.groups[inner],
        attributes=data.attributes.iloc[inner].reset_index(drop=True),
        images=None,
        interactions=Interactions.from_pairs(users, items - 1, N_USERS, N_ITEMS - 2),
    )
    options = {key: value for key, value in options.items() if key not in ("groups", "item_table")}
    options["nearest"] = N_ITEMS  # so that no other item loses its place
    before = build(earlier, **options)
    if before.pictures is not None:  # what was learnt of pictures before is kept, as the weights are
        kept_whitening = before.pictures.mean, before.pictures.whitening
        monkeypatch.setattr(neighbours, "whitening", lambda features: kept_whitening)
    after = build(later, **options)
    weights = before.state_dict()
    for name, value in weights.items():
        if len(value) == N_ITEMS - 2:  # the ids' weights, with zeros for the two
            nothing = torch.zeros_like(value[:1])
            weights[name] = torch.cat([nothing, value, nothing])
    after.load_state_dict(weights)
    assert isinstance(before, PictureEmbedding)
    scorer = before.scorer()
    assert isinstance(scorer, Extensible)
    pictures = torch.from_numpy(features[[0, -1]])
    rows = before.embed_pictures(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), pictures)
    extended = scorer.extended(rows).block(EVERYONE)
    expected = after.scorer().block(EVERYONE)
    torch.testing.assert_close(extended[:, -2:], expected[:, [0, -1]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(extended[:, :-2], scorer.block(EVERYONE))


def test_ids_are_left_out_at_random_in_training_alone() -> None:
    data = some_never_bought()
    model = build(data, id_dropout=0.25)
    never = torch.tensor(data.interactions.popularity == 0)
    torch.manual_seed(0)
    table = torch.ones(N_ITEMS, 4)
    assert torch.equal(model.id_vectors(table), table * ~never.unsqueeze(1))
    model.train()
    kept = torch.stack([model.id_vectors(table) for _ in range(400)])
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(kept.amax(2), kept.amin(2))  # a whole vector is there or not
    assert not kept[:, never].any()
    share = kept[:, ~never].mean()
    assert share.item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_baskets_hide_a_random_part_of_what_each_user_has(share: float) -> None:
    data = some_never_bought()
    sampler = Sampler(data, 1)
    counts, seen = np.zeros((N_USERS, N_ITEMS)), np.zeros(N_USERS)
    for _ in range(60):
        batch = sampler.baskets(100, share)
        assert isinstance(batch, BasketBatch) and not (batch.hidden & (batch.items < 0)).any()
        for user, items, hidden in zip(batch.users.tolist(), batch.items.tolist(), batch.hidden.tolist(), strict=True):
            assert sorted(i for i in items if i >= 0) == data.interactions.of(user).tolist()
            wanted = [i for i, h in zip(items, hidden, strict=True) if h]
            n = len(data.interactions.of(user))
            assert max(1, math.floor(n * share)) <= len(wanted) <= max(1, min(n - 1, math.ceil(n * share)))
            counts[user, wanted] += 1
            seen[user] += 1
    assert seen[7] == 0  # who bought nothing is never drawn
    for user in range(N_USERS):
        bought, n = data.interactions.of(user), seen[user]
        if len(bought) < 2:
            continue
        chance = counts[user, bought].sum() / n / len(bought)
        assert np.abs(counts[user, bought] - n * chance).max() < 5 * math.sqrt(n * chance * (1 - chance))
        if 1 <= len(bought) * share <= len(bought) - 1:
            assert abs(chance - share) < 5 * math.sqrt(share / n)


def test_what_is_missing_or_out_of_range_gets_a_sentence() -> None:
    data = toy_data()
    with pytest.raises(InputError, match="needs groups"):
        build_model("two-tower", replace(data, groups=None), groups=True)
    bare = replace(data, categories=None, n_categories=0, attributes=None)
    with pytest.raises(InputError, match="needs a category or attributes"):
        build_model("two-tower", bare, item_table=True)
    for wrong in ({"id_dropout": 1.0}, {"nearest": 0}, {"power": 0.0}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))!r} of two-tower must be"):
            build_model("two-tower", data, **wrong)
    with pytest.raises(InputError, match="between 0 and 1"):
        Sampler(data, 0).baskets(3, 1.0)


def test_whitening_flattens_the_large_directions_and_leaves_the_small_ones() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([30.0, 3.0, 1.0, 1.0])
    features = torch.tensor(rng.normal(size=(4000, 4)) * spread + 5, dtype=torch.float32)
    features[::7] = 0
    mean, matrix = neighbours.whitening(features)
    seen = features[features.any(1)]
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-4)
    left = ((seen - mean) @ matrix).numpy()
    values = np.linalg.eigvalsh(np.cov(seen.numpy().T))
    covariance = np.cov(left.T)
    np.testing.assert_allclose(np.diag(covariance), values / (values + values.mean()), rtol=1e-2)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    nothing = neighbours.whitening(torch.zeros(3, 2))
    assert not nothing[0].any() and torch.equal(nothing[1], torch.eye(2))


def test_near_pictures_are_those_of_a_slow_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 7)
    features = torch.from_numpy(toy_data().features)
    near = neighbours.NearestPictures(features, 4, 3.0)
    found = near.among_themselves().toarray()
    units = near.units.numpy()
    for j in range(N_ITEMS):
        cosines = sorted(((float(units[j] @ units[i]), i) for i in range(N_ITEMS) if i != j), reverse=True)
        expected = {i: c**3 for c, i in cosines[:4] if c > 0}
        assert set(np.flatnonzero(found[j])) == set(expected)
        np.testing.assert_allclose([found[j, i] for i in expected], list(expected.values()), rtol=1e-4)
    assert not found[0].any() and not found[:, 0].any()  # no picture, no neighbours
