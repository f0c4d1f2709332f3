"""Decisions that the sources of the reconstructions leave open: each is an option, here against its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conformance import batch_of, data, gradients, parameters_of, randomised, small, user_times
from formulas import naive_fm
from toy import N_CATEGORIES, N_ITEMS, N_USERS

from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, model_card
from imgrec_lib.models.base import PictureEmbedding, Recommender, ScoreParts

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("deepstyle", {"two_user_vectors": True}),
    ("deepstyle", {"item_bias": True}),
    ("deepstyle", {"category_bias": True}),
    ("deepstyle", {"visual_bias": True}),
    ("deepstyle", {"two_user_vectors": True, "item_bias": True, "category_bias": True, "visual_bias": True}),
    ("fm-visual", {"use_categories": True}),
    ("fm-visual", {"feature_pairs": False}),
    ("fm-visual", {"use_categories": True, "feature_pairs": False}),
    ("saers", {"two_user_vectors": True}),
    ("saers", {"two_user_vectors": True, "item_bias": False}),
    ("concars", {"attention": False}),
    ("concars", {"attention": False, "slot_tables": "full"}),
    ("concars", {"item_bias": True}),
]

ids = [f"{name}-{'-'.join(options)}" for name, options in OPTIONS]


def built(name: str, options: dict[str, Any], seed: int = 0) -> Recommender:
    return randomised(small(name, data(), seed=seed, **options), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=ids)
def test_every_option_conforms(name: str, options: dict[str, Any]) -> None:
    """Pairs are entries of blocks, parts sum to scores, weights travel and learn, pictures can be embedded."""
    model, users, times = built(name, options), torch.arange(N_USERS), user_times()
    items = torch.randint(N_ITEMS, (N_USERS, 5), generator=torch.Generator().manual_seed(1))
    scores = model.scorer(times).block(users)
    pairs = model.scorer(times).pairs(users, items)
    torch.testing.assert_close(pairs, scores.gather(1, items), rtol=1e-4, atol=1e-4)
    if isinstance(model, ScoreParts):
        parts = sum(model.contributions(users, items).values())
        torch.testing.assert_close(parts, scores.gather(1, items), rtol=1e-4, atol=1e-4)
    other = built(name, options, seed=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.scorer(times).block(users), scores)
    batch = batch_of(model, data(), size=200)
    assert all(
        gradient.any()
        for key, gradient in gradients(model, batch).items()
        if model.get_parameter(key).requires_grad
    )  # fmt: skip
    if isinstance(model, PictureEmbedding):
        whole = data()
        assert whole.features is not None and whole.images is not None
        rows = model.embed_pictures(torch.tensor(whole.images.pixels[:3]), torch.tensor(whole.features[:3]))
        assert model.scorer().extended(rows).block(users).shape == (N_USERS, N_ITEMS + 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=ids)
def test_every_option_is_off_unless_asked_for(name: str, options: dict[str, Any]) -> None:
    defaults = parameters_of(model_card(name))
    assert all(defaults[key] != value for key, value in options.items())
    assert not set(options) & set(model_card(name).profiles["default"].parameters)


def deepstyle_by_loop(model: Recommender, options: dict[str, Any]) -> np.ndarray:
    w = {key: value.detach().double().numpy() for key, value in model.named_parameters()}
    whole = data()
    assert whole.features is not None and whole.categories is not None
    f, c = whole.features.astype(np.float64) / whole.features.max(), whole.categories
    scores = np.zeros((N_USERS, N_ITEMS))
    for u in range(N_USERS):
        own, style = (w["users"][u][:4], w["users"][u][4:]) if "two_user_vectors" in options else [w["users"][u]] * 2
        for i in range(N_ITEMS):
            scores[u, i] = own @ w["items"][i] + style @ (f[i] @ w["projection"] - w["categories"][c[i]])
            if "item_bias" in options:
                scores[u, i] += w["item_bias"][i]
            if "category_bias" in options:
                scores[u, i] += w["category_bias"][c[i]]
            if "visual_bias" in options:
                scores[u, i] += f[i] @ w["visual_bias"]
    return scores


@pytest.mark.parametrize("options", [options for name, options in OPTIONS if name == "deepstyle"])
@pytest.mark.parametrize("negatives", [1, 3])
def test_deepstyle_follows_its_formula(options: dict[str, Any], negatives: int) -> None:
    without = options | {"l2": 0.0, "l2_category": 0.0, "l2_visual": 0.0}
    model = built("deepstyle", without)
    expected = deepstyle_by_loop(model, options)
    np.testing.assert_allclose(model.scorer().block(torch.arange(N_USERS)).numpy(), expected, rtol=1e-4, atol=1e-5)
    batch = batch_of(model, data(), negatives=negatives)
    u, i, j = batch.users.numpy(), batch.positives.numpy(), batch.negatives.numpy()
    margins = expected[u, i][:, None] - expected[u[:, None], j]
    assert model.loss(batch).item() == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-4)
    sampled = built("deepstyle", without | {"loss": "bce"})
    sampled.load_state_dict(model.state_dict())
    logits = np.column_stack([expected[u, i], expected[u[:, None], j]])
    signs = np.where(np.arange(1 + negatives) == 0, -1.0, 1.0)
    wanted = np.log1p(np.exp(signs * logits)).mean()
    assert sampled.loss(batch).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("pairs", [True, False])
def test_fm_visual_with_a_category_is_the_naive_machine(pairs: bool) -> None:
    model = built("fm-visual", {"use_categories": True, "feature_pairs": pairs})
    w = {key: value.detach().double().numpy() for key, value in model.named_parameters()}
    whole = data()
    assert whole.features is not None and whole.categories is not None
    f, c = whole.features.astype(np.float64) / whole.features.max(), whole.categories
    linear = np.concatenate([np.zeros(N_USERS), w["item_weight"], w["category_weight"], w["feature_weight"]])
    vectors = np.concatenate([w["users"], w["items"], w["categories"], w["feature_vectors"]])
    expected = np.zeros((N_USERS, N_ITEMS))
    for i in range(N_ITEMS):
        visual = np.concatenate([np.zeros(N_USERS + N_ITEMS + N_CATEGORIES), f[i]])
        for u in range(N_USERS):
            x = visual.copy()
            x[[u, N_USERS + i, N_USERS + N_ITEMS + c[i]]] = 1
            expected[u, i] = naive_fm(x, 0.0, linear, vectors)
            if not pairs:  # less what the features make among themselves
                expected[u, i] -= naive_fm(visual, 0.0, 0 * linear, vectors)
    scores = model.scorer().block(torch.arange(N_USERS)).numpy()
    np.testing.assert_allclose(scores - scores[:, :1], expected - expected[:, :1], rtol=1e-4, atol=1e-4)


def test_fm_visual_refuses_categories_that_are_not_there() -> None:
    from dataclasses import replace

    bare = replace(data(), categories=None, n_categories=0)
    build_model("fm-visual", bare)
    with pytest.raises(InputError, match="use_categories of FM-visual needs categories: add a 'category' column"):
        build_model("fm-visual", bare, use_categories=True)


def test_saers_with_two_user_vectors_by_loop() -> None:
    model: Any = built("saers", {"two_user_vectors": True})
    model.prepare()
    w = {key: value.detach().double().numpy() for key, value in model.named_parameters()}
    whole, parts = (x.double().numpy() for x in (model.whole, model.parts))
    scores = model.scorer().block(torch.arange(N_USERS)).numpy()
    for u in (0, 7):
        own, region = w["users"][u][:4], w["users"][u][4:]
        for i in (1, 20):
            e = parts[i] @ w["part_projection"]
            keys = e @ w["part_attention"] + w["attribute_bias"]
            logits = np.tanh(w["users"][u] @ w["user_attention"] + keys) @ w["attention_weight"]
            alpha = np.exp(logits) / np.exp(logits).sum()
            expected = own @ (whole[i] @ w["whole_projection"]) + alpha @ (e @ region) + w["item_bias"][i]
            assert scores[u, i] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_concars_without_attention_takes_the_slots_own_vector() -> None:
    for tables in ("low-rank", "full"):
        model = built("concars", {"attention": False, "slot_tables": tables})
        side: Any = model.users
        index, slots = torch.tensor([3, 8]), torch.tensor([2, 12])  # the last one: unknown
        static, temporal = side(index, slots)
        table = side.slot_vectors
        own = table[index, slots] if tables == "full" else side.static[index] + table[slots]
        torch.testing.assert_close(static, side.static[index])
        torch.testing.assert_close(temporal, own)
        assert "users.attention" not in model.state_dict()


def test_concars_offset_is_added_to_the_score() -> None:
    model, times = built("concars", {"item_bias": True}), user_times()
    bias = model.get_parameter("item_bias")
    scores = model.scorer(times).block(torch.arange(N_USERS))
    batch = batch_of(model, data())
    with_it = model.loss(batch).item()
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.zero_()
    torch.testing.assert_close(model.scorer(times).block(torch.arange(N_USERS)) + kept, scores)
    assert model.loss(batch).item() != with_it
