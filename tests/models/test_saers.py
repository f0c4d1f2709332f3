"""SAERS: score and loss against slow loops from the formulas, the identities of its attention, and its checkpoint."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy import N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.dataset import Dataset, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.features import FeatureMaps
from imgrec_lib.figures import attention_by_user, attention_figure, attention_gallery, region_gallery
from imgrec_lib.models import build_model
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.models.parts.attention import AttentiveScorer
from imgrec_lib.models.parts.projection import Projection
from imgrec_lib.models.saers import SAERS
from imgrec_lib.runs import load_model, train_run

SMALL: dict[str, Any] = {
    "factors": 4,
    "attention_units": 3,
    "at_interactions": None,
    "size": 32,
    "keep": "recompute",
    "components": 0,
    "progress": False,
}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return toy_data()


def saers(data: TrainingData, *, scale: float = 0.5, seed: int = 0, **options: Any) -> SAERS:
    """A small model in double precision, with random weights everywhere."""
    model = build_model("saers", data, seed=seed, **(SMALL | options))
    assert isinstance(model, SAERS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


def batch_of(data: TrainingData, size: int = 6, negatives: int = 2) -> Batch:
    return Sampler(data, 0).triples(size, negatives)


class Slow:
    """One pair at a time, from the formulas."""

    def __init__(self, model: SAERS) -> None:
        model.prepare()
        self.p = {name: value.detach().numpy() for name, value in model.named_parameters()}
        assert model.whole is not None and model.parts is not None
        self.f, self.g = model.whole.numpy(), model.parts.numpy()

    def alpha(self, u: int, i: int) -> np.ndarray:
        logits = []
        for a in range(self.g.shape[1]):
            e = self.p["part_projection"].T @ self.g[i, a]
            inner = self.p["user_attention"].T @ self.p["users"][u] + self.p["part_attention"].T @ e
            logits.append(self.p["attention_weight"] @ np.tanh(inner + self.p["attribute_bias"][a]))
        exponentials = np.exp(logits)
        return exponentials / exponentials.sum()

    def vector(self, u: int, i: int) -> np.ndarray:
        z = self.p["whole_projection"].T @ self.f[i]
        for a, weight in enumerate(self.alpha(u, i)):
            z = z + weight * (self.p["part_projection"].T @ self.g[i, a])
        return z

    def score(self, u: int, i: int) -> float:
        return float(self.p["users"][u] @ self.vector(u, i) + self.p["item_bias"][i])


def test_scores_against_a_slow_loop(data: TrainingData) -> None:
    model = saers(data)
    slow, scorer = Slow(model), model.scorer()
    users, items = torch.tensor([0, 22, 7]), torch.tensor([[0, 36], [5, 5], [11, 2]])
    block = scorer.block(users)
    alpha = scorer.attention(users)
    assert alpha.shape == (3, N_ITEMS, len(model.labels)) and len(model.labels) == 3
    for row, u in enumerate(users.tolist()):
        for i in range(N_ITEMS):
            assert float(block[row, i]) == pytest.approx(slow.score(u, i), rel=1e-6, abs=1e-9)
            np.testing.assert_allclose(alpha[row, i], slow.alpha(u, i), rtol=1e-9)
    torch.testing.assert_close(scorer.pairs(users, items), block.gather(1, items), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(alpha.sum(2), torch.ones(3, N_ITEMS, dtype=torch.float64))
    assert float(alpha.std(0).max()) > 0.01 and float(alpha.std(1).max()) > 0.01  # users and items differ


def test_loss_against_a_slow_loop(data: TrainingData) -> None:
    weights: dict[str, Any] = {"l2": 0.3, "l2_items": 0.2, "l2_bias": 0.7, "l2_visual": 0.01, "l2_attention": 0.05}
    model = saers(data, **weights)
    slow, batch = Slow(model), batch_of(data)
    n = batch.negatives.shape[1]
    total = 0.0
    for u, i, others in zip(*(x.tolist() for x in batch[:3]), strict=True):
        total += weights["l2"] * 0.5 * (slow.p["users"][u] ** 2).sum()
        total += weights["l2_items"] * 0.5 * (slow.vector(u, i) ** 2).sum()
        total += weights["l2_bias"] * 0.5 * slow.p["item_bias"][i] ** 2
        for j in others:
            total += np.log1p(np.exp(slow.score(u, j) - slow.score(u, i))) / n
            total += weights["l2_items"] * 0.5 * (slow.vector(u, j) ** 2).sum() / n
            total += weights["l2_bias"] * 0.5 * slow.p["item_bias"][j] ** 2 / n
    squares = {name: (value**2).sum() for name, value in slow.p.items()}
    visual = squares["whole_projection"] + squares["part_projection"]
    attention = sum(
        squares[name] for name in ("user_attention", "part_attention", "attribute_bias", "attention_weight")
    )
    expected = total / len(batch.users) + 0.5 * (weights["l2_visual"] * visual + weights["l2_attention"] * attention)
    loss = model.loss(batch)
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-9)


def test_with_one_attribute_attention_is_one_and_the_region_alone_counts(data: TrainingData) -> None:
    model = saers(data, attributes="pattern")
    assert model.labels.names == ("pattern",)
    scorer = model.scorer()
    assert torch.equal(scorer.attention(torch.arange(N_USERS)), torch.ones(N_USERS, N_ITEMS, 1, dtype=torch.float64))
    assert model.whole is not None and model.parts is not None
    vectors = model.whole @ model.whole_projection + model.parts[:, 0] @ model.part_projection
    plain = InnerProduct.with_item_offset(model.users, vectors, model.item_bias).block(torch.arange(N_USERS))
    torch.testing.assert_close(scorer.block(torch.arange(N_USERS)), plain.detach(), rtol=1e-6, atol=1e-9)


def test_the_order_of_the_attributes_changes_nothing(data: TrainingData) -> None:
    model = saers(data, attributes="colour, pattern,category")
    other = saers(data, attributes="category,colour,pattern")
    order = [2, 0, 1]
    assert [model.labels.names[a] for a in order] == list(other.labels.names)
    with torch.no_grad():
        other.attribute_bias.copy_(model.attribute_bias[order])
    users = torch.arange(N_USERS)
    first, second = model.scorer(), other.scorer()
    torch.testing.assert_close(second.block(users), first.block(users), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.attention(users), first.attention(users)[..., order], rtol=1e-4, atol=1e-5)


def test_equal_keys_are_attended_to_equally_and_the_bias_alone_can_prefer_one(data: TrainingData) -> None:
    model = saers(data)
    with torch.no_grad():
        model.part_attention.zero_()
        model.attribute_bias.zero_()
    users = torch.arange(N_USERS)
    torch.testing.assert_close(
        model.scorer().attention(users), torch.full((N_USERS, N_ITEMS, 3), 1 / 3, dtype=torch.float64)
    )
    with torch.no_grad():
        model.attribute_bias[1] = 10 * model.attention_weight.sign()
    attention = model.scorer().attention(users)
    assert bool((attention[..., 1] > attention[..., [0, 2]].amax(2)).all())


@pytest.mark.parametrize("size", [1e-3, 1.0, 10.0, 1e4])
def test_the_scorers_way_to_tanh_holds_at_every_size(size: float) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    queries, keys, weight = size * draw(5, 8), size * draw(7, 4, 8), draw(8)
    scorer = AttentiveScorer(draw(5, 2), draw(7, 2), draw(7), draw(7, 4, 2), queries, keys, weight)
    direct = (torch.tanh(queries.double()[:, None, None] + keys.double()) @ weight.double()).softmax(-1)
    found = scorer.attention(torch.arange(5)).double()
    assert torch.isfinite(found).all()
    if size < 1e4:
        torch.testing.assert_close(found, direct, rtol=2e-5, atol=1e-6)
    else:  # clamped at +-40: a query and a key of opposite signs and both beyond it count as cancelling each other
        torch.testing.assert_close(found.sum(-1), torch.ones(5, 7, dtype=torch.float64))


def test_gradients_of_the_loss(data: TrainingData) -> None:
    model, batch = saers(data, l2=0.1, l2_items=0.1, l2_bias=0.1, l2_visual=0.1, l2_attention=0.1), batch_of(data, 3)
    model.prepare()
    names = ("users", "item_bias", "user_attention", "part_attention", "attribute_bias", "attention_weight")

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(_Loss(model), dict(zip(prefixed, values, strict=True)), (batch,))

    prefixed = [f"model.{name}" for name in names]
    assert torch.autograd.gradcheck(loss, [model.get_parameter(name) for name in names], atol=1e-6)


class _Loss(torch.nn.Module):
    def __init__(self, model: SAERS) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.model.loss(batch)


def test_without_item_bias_twins_by_picture_are_twins_by_score() -> None:
    data = toy_data()
    assert data.images is not None
    pixels = data.images.pixels.copy()
    pixels[9] = pixels[4]
    twins = replace(data, images=ImageStore.from_array(pixels))
    model = build_model("saers", twins, item_bias=False, **SMALL)
    scores = model.eval().scorer().block(torch.arange(N_USERS))
    torch.testing.assert_close(scores[:, 9], scores[:, 4])
    assert id(model.item_bias) not in {id(p) for p in model.start_phase(0)}


def test_labels_of_cold_items_may_be_missing() -> None:
    data = toy_data()
    assert data.attributes is not None
    table = data.attributes.copy()
    table.loc[::3, "colour"] = ""
    model = build_model("saers", replace(data, attributes=table, categories=None), **SMALL)
    assert isinstance(model, SAERS) and (model.labels.codes[::3, 0] == -1).all()
    assert torch.isfinite(model.scorer().block(torch.arange(3))).all()
    with pytest.raises(InputError, match="unknown attribute column 'color': did you mean 'colour'"):
        build_model("saers", data, attributes="color", **SMALL)


# --- Projection


def test_projection_keeps_distances_and_its_components_are_the_principal_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = 5 + torch.randn(200, 6, generator=generator, dtype=torch.float64) * torch.tensor([9, 4, 1, 0.1, 0.1, 0.1])
    whole = Projection(6).double()
    whole.fit(rows)
    found = whole(rows)
    assert found.square().sum(1).mean() == pytest.approx(1.0) and found.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(torch.pdist(found) * whole.scale, torch.pdist(rows))
    some = Projection(6, 3).double()
    some.fit(rows)
    assert some(rows).shape == (200, 3) and some(rows).square().sum(1).mean() == pytest.approx(1.0)
    singular = torch.linalg.svdvals(rows - rows.mean(0))[:3]
    torch.testing.assert_close(torch.linalg.svdvals(some(rows) * some.scale), singular)
    constant = Projection(4).double()
    constant.fit(torch.ones(5, 4, dtype=torch.float64))
    assert torch.equal(constant(torch.ones(2, 4, dtype=torch.float64)), torch.zeros(2, 4, dtype=torch.float64))


# --- Checkpoint and run


@pytest.mark.slow
def test_a_checkpoint_brings_the_attribute_network_and_needs_no_labels_to_be_learnt_again(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saers(data, components=5).float()
    users = torch.arange(N_USERS)
    expected = model.scorer().block(users)
    assert data.attributes is not None
    forgetful = replace(data, attributes=data.attributes.iloc[::-1].reset_index(drop=True))
    other = build_model("saers", forgetful, **(SMALL | {"attention_units": 3, "components": 5}))
    other.scorer()  # it has learnt from its own labels before the checkpoint arrives
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.eval().scorer().block(users), expected)
    passes: list[int] = []

    def batches(*_: object) -> Iterator[object]:
        passes.append(1)
        return iter(())

    monkeypatch.setattr(FeatureMaps, "batches", batches)
    other.load_state_dict(model.state_dict())  # the same network: nothing is looked at again
    assert torch.equal(other.scorer().block(users), expected) or not passes
    assert not passes


@pytest.mark.slow
def test_trains_and_loads_as_any_model(small_wardrobe: Dataset, tmp_path: Path) -> None:
    parameters = {"factors": 8, "attention_units": 4, "size": 32, "components": 16, "epochs": 2, "progress": False}
    run = train_run(small_wardrobe, "saers", tmp_path / "run", parameters=parameters, progress=False)
    assert run.record.fidelity == "reconstruction" and run.record.features is None
    model = load_model(run, small_wardrobe)
    assert isinstance(model, SAERS)
    table = model.accuracy()
    assert list(table.index) == list(model.labels.names) and (table["items"] > 0).all()
    assert model.regions.boxes.shape == (120, len(table), 4)


def test_learns_tastes_that_show_in_the_pictures() -> None:
    dataset, _ = planted_dataset(n_users=80, n_items=60)
    colours = {("red", "plain"): (200, 40, 40), ("black", "plain"): (20, 20, 20)}
    pixels = np.full((60, 32, 32, 3), 240, np.uint8)
    for i, (colour, pattern) in enumerate(dataset.items[["colour", "pattern"]].itertuples(index=False)):
        pixels[i, 4:28, 4:28] = colours[colour, "plain"]
        if pattern == "striped":
            pixels[i, 4:28:4, 4:28] = 250
        if dataset.items["category"][i] == "tops":
            pixels[i, :, :16] = 240
    dataset = replace(dataset, images=ImageStore.from_array(pixels))
    data = dataset.training_data()
    model = build_model("saers", data, **(SMALL | {"factors": 8, "size": 64}))
    sampler, optimiser = Sampler(data, 0), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(sampler.triples(256, 1)).backward()
        optimiser.step()
    scores = model.scorer().block(torch.arange(80)).numpy()
    popularity = np.tile(dataset.train.popularity, (80, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items) + 0.1


def test_the_catalogue_table_is_not_changed(data: TrainingData) -> None:
    assert data.attributes is not None
    before = data.attributes.copy()
    saers(data).prepare()
    pd.testing.assert_frame_equal(data.attributes, before)


# --- What the report shows of it


@pytest.fixture(scope="module")
def shown(small_wardrobe: Dataset) -> SAERS:
    options: dict[str, Any] = {"factors": 4, "attention_units": 3, "size": 64, "keep": "memory", "progress": False}
    model = build_model("saers", small_wardrobe.training_data(), attributes="colour,category,pattern", **options)
    assert isinstance(model, SAERS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_attention_gallery_tells_each_attribute_its_value_attention_and_place(
    shown: SAERS, small_wardrobe: Dataset
) -> None:
    gallery = attention_gallery(small_wardrobe, shown, [(3, 7), (4, 7)])
    alpha = shown.scorer().attention(torch.tensor([3, 4]))[:, 7].numpy()
    assert [len(row.cells) for row in gallery.rows] == [4, 4]
    assert gallery.rows[0].title.startswith(f"User {small_wardrobe.user_ids[3]} looks at ")
    for row, attention in zip(gallery.rows, alpha, strict=True):
        for cell, a in zip(row.cells[1:], np.argsort(-attention), strict=True):
            value = shown.labels.values[a][shown.regions.predicted[7, a]]
            assert cell.caption[:2] == (f"{shown.labels.names[a]}: {value}", f"attention {attention[a]:.0%}")
            left, top, right, bottom = shown.regions.boxes[7, a].tolist()
            area = f"{(right - left) * (bottom - top):.0%}"
            assert cell.caption[2].endswith("whole picture" if area == "100%" else f", {area}")
            assert all(line in cell.alt for line in cell.caption)
    assert f'alt="{gallery.rows[0].cells[1].alt}"' in html.unescape(gallery.html())


def test_boxes_are_drawn_where_they_are_and_the_rest_fades(shown: SAERS, small_wardrobe: Dataset) -> None:
    gallery = region_gallery(small_wardrobe, shown, [11])
    assert gallery.images is not None and small_wardrobe.images is not None
    names = [cell.caption[0].split(":")[0] for cell in gallery.rows[0].cells[1:]]
    assert names == list(shown.labels.names)  # without a user in the table's order
    plain = np.asarray(small_wardrobe.images.thumbnail(11, 224)).astype(int)
    assert np.array_equal(gallery.images.pixels[0], plain)
    for a in range(3):
        left, top, right, bottom = (round(224 * float(x)) for x in shown.regions.boxes[11, a])
        drawn = gallery.images.pixels[1 + a].astype(int)
        frame = drawn[top + 2, left + 3 : right - 3]
        assert (frame == frame[0]).all() and frame.std(1).mean() > 10  # one colour, no grey
        outside = np.ones((224, 224), bool)
        outside[top:bottom, left:right] = False
        grey = np.array([0xE9, 0xEB, 0xEE])
        if outside.any():
            assert np.abs(drawn - grey)[outside].mean() <= np.abs(plain - grey)[outside].mean()


def test_gallery_errors_name_the_index(shown: SAERS, small_wardrobe: Dataset) -> None:
    with pytest.raises(InputError, match="item index 120 does not exist: choose from 0 to 119"):
        region_gallery(small_wardrobe, shown, [120])
    with pytest.raises(InputError, match="user index -1 does not exist: choose from 0 to 149"):
        attention_gallery(small_wardrobe, shown, [(-1, 0)])
    with pytest.raises(InputError, match="no pictures to draw boxes on"):
        region_gallery(replace(small_wardrobe, images=None), shown, [0])


def test_attention_by_user_is_the_mean_over_its_history(shown: SAERS, small_wardrobe: Dataset) -> None:
    table = attention_by_user(small_wardrobe, shown)
    alpha = shown.scorer().attention(torch.arange(150)).numpy()
    assert len(table) == 150 and list(table.columns) == ["colour", "category", "pattern"]
    for user in (0, 77, 149):
        np.testing.assert_allclose(
            table.loc[user], alpha[user, small_wardrobe.train.of(user)].mean(0), rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)


def test_attention_figure_orders_by_the_median_and_names_every_attribute() -> None:
    table = pd.DataFrame({"garment_group_name": [0.2, 0.3, 0.25], "colour": [0.8, 0.7, 0.75]})
    axes = attention_figure(table).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["garment group", "colour"]
    assert "3 users" in axes.get_xlabel()
    with pytest.raises(InputError, match="no user to show the attention of"):
        attention_figure(table[:0])
