"""The attribute network: labels, heads, maps, boxes and region features against independent references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import number_in
from scipy import optimize
from torch import Tensor

from imgrec_lib.data.dataset import Dataset, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.features import attribute_accuracy, attribute_labels, build_backbone
from imgrec_lib.features.attributes import (
    AttributeLabels,
    FeatureMaps,
    Heads,
    activation_maps,
    boxes_from_maps,
    find_regions,
    fit_heads,
    held_out_items,
    region_features,
    strong_part,
    train_heads,
)

RED, BLUE, WHITE = (210, 30, 40), (30, 60, 200), (255, 255, 255)


def data_of(n_items: int, attributes: pd.DataFrame | None = None, **more: Any) -> TrainingData:
    return TrainingData(
        Interactions.from_pairs(np.array([0]), np.array([0]), 1, n_items), attributes=attributes, **more
    )


def labels_of(codes: np.ndarray, sizes: list[int]) -> AttributeLabels:
    values = tuple(tuple(f"v{i}" for i in range(size)) for size in sizes)
    return AttributeLabels(tuple(f"a{i}" for i in range(len(sizes))), values, codes)


# --- Labels


def test_labels_leave_out_ids_free_text_and_constants() -> None:
    n = 60
    table = pd.DataFrame(
        {
            "colour": ["red", "blue", ""] * 20,
            "sku": [f"sku-{i}" for i in range(n)],
            "description": [f"a garment, number {i // 2}" for i in range(n)],
            "currency": ["EUR"] * n,
            "season": [None, np.nan, "summer", "winter"] * 15,
            "pockets": [0, 2, 4] * 20,
        }
    )
    data = data_of(n, table, categories=np.arange(n) % 2, n_categories=2, category_names=("coats", "hats"))
    labels = attribute_labels(data)
    assert labels.names == ("category", "colour", "season", "pockets")
    assert labels.values == (("coats", "hats"), ("blue", "red"), ("summer", "winter"), ("0", "2", "4"))
    assert labels.sizes == [2, 2, 2, 3] and len(labels) == 4
    assert labels.codes[:4].tolist() == [[0, 1, -1, 0], [1, 0, -1, 1], [0, -1, 0, 2], [1, 1, 1, 0]]


def test_named_columns_are_taken_in_the_order_asked_for() -> None:
    table = pd.DataFrame({"a": ["x", "y"] * 3, "serial": list("pqrstu"), "c": ["u"] * 6})
    labels = attribute_labels(data_of(6, table), ["serial", "a"])
    assert labels.names == ("serial", "a") and labels.sizes == [6, 2]
    with pytest.raises(InputError, match=r"unknown attribute column 'serail': did you mean 'serial'"):
        attribute_labels(data_of(6, table), ["serail"])
    with pytest.raises(InputError, match=r"column 'c' has fewer than two different values: choose another column\."):
        attribute_labels(data_of(6, table), ["c"])
    with pytest.raises(InputError, match=r"no column of the item table is an attribute \(found: a, serial, c\)"):
        attribute_labels(data_of(6, table))


def test_held_out_items_follow_the_picture_alone() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2000, 4, 4, 3), dtype=np.uint8)
    pixels[1000:] = pixels[:1000]
    held = held_out_items(ImageStore.from_array(pixels), 0.2)
    assert np.array_equal(held[:1000], held[1000:])  # the same picture is never on both sides
    assert 150 < held[:1000].sum() < 250
    order = rng.permutation(2000)
    assert np.array_equal(held_out_items(ImageStore.from_array(pixels[order]), 0.2), held[order])
    assert not held_out_items(ImageStore.from_array(pixels), 0.0).any()


# --- Heads


def objective(flat: np.ndarray, x: np.ndarray, codes: np.ndarray, sizes: list[int], penalty: float) -> float:
    """The heads' objective by a plain loop over items, float64."""
    table = flat.reshape(sum(sizes), -1)
    total, start = 0.5 * penalty * float((flat**2).sum()), 0
    for a, size in enumerate(sizes):
        rows = [i for i in range(len(x)) if codes[i, a] >= 0]
        for i in rows:
            logits = table[start : start + size, :-1] @ x[i] + table[start : start + size, -1]
            total += (np.log(np.exp(logits).sum()) - logits[codes[i, a]]) / len(rows)
        start += size
    return total


def test_heads_are_the_minimum_of_the_masked_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(3, [0.1, 5, 1, 2], (40, 4))
    sizes = [2, 3]
    codes = np.stack([rng.integers(-1, size, 40) for size in sizes], 1)
    heads = fit_heads(torch.from_numpy(features), torch.from_numpy(codes), sizes, penalty=0.05)
    mean, deviation = features.mean(0), features.std(0)
    x = (features - mean) / deviation
    best = optimize.minimize(
        objective, np.zeros(5 * 5), args=(x, codes, sizes, 0.05), method="L-BFGS-B", options={"ftol": 1e-14}
    ).x.reshape(5, 5)
    np.testing.assert_allclose(heads.weight.numpy() * deviation, best[:, :-1], atol=2e-4)
    expected = x @ best[:, :-1].T + best[:, -1]
    found = torch.cat(heads.logits(torch.from_numpy(features)), 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    predicted = heads.predict(torch.from_numpy(features)).numpy()
    assert np.array_equal(predicted, np.stack([expected[:, :2].argmax(1), expected[:, 2:].argmax(1)], 1))
    assert heads.rows(torch.tensor([[1, 2]])).tolist() == [[1, 4]]


def test_one_head_is_scikit_learn_s_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 5)) + labels[:, None] * np.array([1, 0, -1, 0.5, 0])
    features[:, 4] = 3  # a constant feature
    heads = fit_heads(torch.from_numpy(features), torch.from_numpy(labels)[:, None], [3], penalty=0.02)
    mean, deviation = features.mean(0), np.where(features.std(0) > 0, features.std(0), 1)
    x = np.column_stack([(features - mean) / deviation, np.ones(60)])  # the penalty holds for the offset, too
    peer = LogisticRegression(C=1 / (0.02 * 60), tol=1e-10, max_iter=5000, fit_intercept=False).fit(x, labels)
    np.testing.assert_allclose(heads.weight.numpy() * deviation, peer.coef_[:, :5], atol=2e-3)
    new = rng.normal(size=(50, 5))
    expected = peer.predict(np.column_stack([(new - mean) / deviation, np.ones(50)]))
    assert (heads.predict(torch.from_numpy(new)).squeeze(1).numpy() == expected).mean() > 0.97


def test_accuracy_beside_the_commonest_value_counted_by_hand() -> None:
    codes = np.array([[0, 1], [0, -1], [1, 0], [1, 0], [0, 1], [1, -1]])
    held = np.array([False, False, False, True, True, True])
    predicted = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [1, 1], [1, 1]])
    table = attribute_accuracy(labels_of(codes, [2, 2]), predicted, held)
    # a0: others 0, 0, 1, so the commonest is 0; held out 1, 0, 1. a1: others 1, 0 (a tie: the first); held out 0, 1.
    assert table["items"].tolist() == [3, 2] and table["values"].tolist() == [2, 2]
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1.0])
    assert table["majority"].tolist() == pytest.approx([1 / 3, 1 / 2])
    nobody = attribute_accuracy(labels_of(codes, [2, 2]), predicted, np.zeros(6, bool))
    assert nobody["accuracy"].isna().all() and (nobody["items"] == 0).all()


# --- Maps


def random_maps(n: int = 3, channels: int = 5, height: int = 4, width: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_of_a_map_and_the_bias_are_the_logit() -> None:
    x = random_maps()
    heads = Heads(torch.randn(7, 5, dtype=torch.float64), torch.randn(7, dtype=torch.float64), [3, 4])
    logits = heads.logits(x.mean((2, 3)))
    predicted = heads.predict(x.mean((2, 3)))
    maps = activation_maps(heads.weight[heads.rows(predicted)], x)
    means = maps.mean((2, 3)) + heads.bias[heads.rows(predicted)]
    torch.testing.assert_close(means, torch.stack([part.amax(1) for part in logits], 1))


def test_maps_equal_the_gradient_weighted_ones_and_the_dense_formula() -> None:
    x = random_maps().requires_grad_()
    weight = torch.randn(2, 5, dtype=torch.float64)
    maps = activation_maps(weight.expand(3, 2, 5), x).detach()
    for b in range(3):
        for a in range(2):
            (gradient,) = torch.autograd.grad(F.linear(x.mean((2, 3)), weight)[b, a], x)
            channel_weights = gradient[b].mean((1, 2))  # Grad-CAM's, 1 / (h w) of the head's
            expected = 4 * 6 * (channel_weights[:, None, None] * x[b].detach()).sum(0)
            torch.testing.assert_close(maps[b, a], expected)
            torch.testing.assert_close(maps[b, a, 1, 2], weight[a] @ x[b, :, 1, 2].detach())


def test_strong_part_is_between_zero_and_one() -> None:
    maps = torch.tensor([[[[2.0, -1.0], [4.0, 0.0]], [[-3.0, -1.0], [-2.0, 0.0]]]])
    assert strong_part(maps).tolist() == [[[[0.5, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]


# --- Boxes


def slow_box(above: np.ndarray) -> list[int]:
    """The box of the largest part by flood fill."""
    height, width = above.shape
    seen = np.zeros_like(above)
    best: list[tuple[int, int]] = []
    for start in np.argwhere(above):
        stack, part = [tuple(start)], []
        while stack:
            row, column = stack.pop()
            if 0 <= row < height and 0 <= column < width and above[row, column] and not seen[row, column]:
                seen[row, column] = True
                part.append((row, column))
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        best = part if len(part) > len(best) else best
    if not best:
        return [0, 0, width, height]
    rows, columns = zip(*best, strict=True)
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 7), st.floats(0.0, 0.95))
def test_boxes_against_flood_fill(seed: int, height: int, width: int, threshold: float) -> None:
    maps = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(seed))
    maps[0, 1] = 0
    boxes = boxes_from_maps(maps, threshold)
    assert boxes.shape == (3, 2, 4) and boxes.dtype == torch.int64
    for b in range(3):
        for a in range(2):
            assert boxes[b, a].tolist() == slow_box((maps[b, a] > threshold).numpy())


def test_a_box_by_hand() -> None:
    # Two parts; the diagonal neighbour of the larger does not belong to it.
    picture = """
    1 1 0 0 0
    0 0 1 0 1
    0 0 1 1 0
    """
    maps = torch.tensor([[float(x) for x in row.split()] for row in picture.strip().splitlines()])
    assert boxes_from_maps(maps[None, None]).tolist() == [[[2, 1, 4, 3]]]
    assert boxes_from_maps(torch.zeros(1, 1, 3, 5)).tolist() == [[[0, 0, 5, 3]]]


# --- Region features


def test_a_region_feature_is_the_mean_over_the_box() -> None:
    x = random_maps(2, 5, 7, 7)
    boxes = torch.tensor([[[0, 0, 7, 7], [2, 1, 5, 6], [6, 6, 7, 7]], [[0, 3, 4, 4], [1, 1, 2, 7], [3, 0, 7, 2]]])
    found = region_features(x, boxes)
    assert found.shape == (2, 3, 5)
    for b in range(2):
        for a in range(3):
            left, top, right, bottom = boxes[b, a].tolist()
            torch.testing.assert_close(found[b, a], x[b, :, top:bottom, left:right].mean((1, 2)))
    torch.testing.assert_close(found[0, 0], F.adaptive_avg_pool2d(x, 1)[0, :, 0, 0])


def test_single_precision_region_features_keep_their_digits() -> None:
    x = 40 + random_maps(2, 3, 8, 8).float()
    found = region_features(x, torch.tensor([[[0, 0, 8, 8]]] * 2))[:, 0]
    torch.testing.assert_close(found, x.mean((2, 3)), rtol=1e-6, atol=0)


# --- The whole network


def painted(n: int = 48, size: int = 64) -> tuple[ImageStore, pd.DataFrame]:
    """Pictures with one red or blue square in one corner; the table knows both, but forgets some."""
    rng = np.random.default_rng(3)
    pixels = np.full((n, size, size, 3), 235, np.uint8) + rng.integers(0, 12, (n, size, size, 3), dtype=np.uint8)
    colours = rng.choice(["red", "blue"], n)
    corners = rng.integers(0, 4, n)
    for i in range(n):
        top, left = (corners[i] // 2) * size // 2, (corners[i] % 2) * size // 2
        pixels[i, top : top + size // 2, left : left + size // 2] = RED if colours[i] == "red" else BLUE
    sides = np.where(corners % 2 == 0, "left", "right")
    table = pd.DataFrame({"colour": colours, "side": sides})
    table.loc[::7, "side"] = ""
    return ImageStore.from_array(pixels, np.arange(n) != 5), table


def network_maps(images: ImageStore, cache: Path | None = None, keep: str = "recompute") -> FeatureMaps:
    return FeatureMaps(images, build_backbone(size=64), keep, cache, progress=False)


def test_heads_learn_colours_and_do_not_see_held_out_labels() -> None:
    images, table = painted()
    labels = attribute_labels(data_of(len(images), table))
    maps = network_maps(images)
    heads = train_heads(maps, labels, held_out=0.3)
    held = held_out_items(images, 0.3)
    regions = find_regions(maps, heads)
    accuracy = attribute_accuracy(labels, regions.predicted, held)
    assert number_in(accuracy, "colour", "accuracy") == 1.0 > number_in(accuracy, "colour", "majority")
    spoilt = table.copy()
    spoilt.loc[held, "colour"] = spoilt.loc[held, "colour"].map({"red": "blue", "blue": "red"})
    spoilt.loc[[5], "colour"] = spoilt.loc[[5], "colour"].map({"red": "blue", "blue": "red"})  # has no picture
    other = train_heads(maps, attribute_labels(data_of(len(images), spoilt)), held_out=0.3)
    assert torch.equal(other.weight, heads.weight) and torch.equal(other.bias, heads.bias)
    with pytest.raises(InputError, match="two items with a picture to learn from: lower held_out"):
        train_heads(maps, labels, held_out=0.99)


def test_regions_are_those_of_the_predicted_value_item_by_item() -> None:
    images, table = painted(20)
    labels = attribute_labels(data_of(20, table))
    maps = network_maps(images)
    heads = train_heads(maps, labels, held_out=0.0)
    regions = find_regions(maps, heads, threshold=0.4)
    for item in (0, 5, 19):
        x = maps.of(torch.tensor([item]))
        np.testing.assert_allclose(regions.pooled[item], x.mean((2, 3))[0], rtol=1e-4, atol=1e-5)
        for a, name in enumerate(labels.names):
            logits = heads.logits(x.mean((2, 3)))[a][0]
            assert regions.predicted[item, a] == logits.argmax(), name
            row = heads.weight[sum(labels.sizes[:a]) + int(logits.argmax())]
            strength = torch.relu(torch.einsum("c,chw->hw", row, x[0]))
            left, top, right, bottom = slow_box((strength > 0.4 * strength.max()).numpy())
            np.testing.assert_allclose(2 * regions.boxes[item, a], [left, top, right, bottom])
            mean = x[0, :, top:bottom, left:right].mean((1, 2))
            np.testing.assert_allclose(regions.features[item, a], mean, rtol=1e-4, atol=1e-5)


def test_kept_on_disk_they_are_computed_once_and_keyed_by_what_changes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, table = painted(20)
    labels = attribute_labels(data_of(20, table))
    maps = network_maps(images, tmp_path, "disk")
    heads = train_heads(maps, labels)
    regions = find_regions(maps, heads)
    direct = network_maps(images)
    fresh = find_regions(direct, train_heads(direct, labels))
    assert regions.features.dtype == np.float16 and fresh.features.dtype == np.float32
    np.testing.assert_allclose(regions.pooled, fresh.pooled, rtol=0.02, atol=0.01)
    assert np.array_equal(regions.predicted, fresh.predicted)

    def never(*_: Any) -> Any:
        raise AssertionError("the network looked again")

    monkeypatch.setattr(FeatureMaps, "batches", never)
    again = network_maps(images, tmp_path, "disk")
    assert torch.equal(train_heads(again, labels).weight, heads.weight)
    assert np.array_equal(find_regions(again, heads).boxes, regions.boxes)
    flipped = AttributeLabels(labels.names, labels.values, labels.codes[::-1])
    for changed in (
        lambda: train_heads(again, flipped),
        lambda: train_heads(again, labels, held_out=0.2),
        lambda: train_heads(again, labels, penalty=0.3),
        lambda: find_regions(again, heads, 0.5),
        lambda: find_regions(again, Heads(heads.weight * 2, heads.bias, heads.sizes)),
    ):
        with pytest.raises(AssertionError, match="looked again"):
            changed()
    (folder,) = (tmp_path / "attributes").glob("regions-*")
    (folder / "boxes.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="is damaged: delete the folder, it will be made again"):
        find_regions(again, heads)


def test_the_wardrobe_has_attributes_a_network_can_see(small_wardrobe: Dataset) -> None:
    labels = attribute_labels(small_wardrobe.training_data())
    assert {"category", "colour", "pattern", "audience", "brand"} <= set(labels.names)
    assert "name" not in labels.names and "item" not in labels.names
    assert (labels.codes >= 0).all()
