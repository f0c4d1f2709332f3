"""Words, categories and numbers of an item table as features, against scikit-learn's parts and cases by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from imgrec_lib import InputError, Request, item_features, load_dataset, open_trained, train_run
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.features import category_features, number_features, text_features
from imgrec_lib.features.controls import with_control
from imgrec_lib.models import build_model

ITEMS = pd.DataFrame(
    {
        "item": ["a", "b", "c", "d", "e"],
        "category": ["shoes", "shoes", "bags", "bags", "unknown"],
        "name": ["Red shoe", "Blue shoe", "Red bag", "Blue bag", "Zeppelin"],
        "description": ["Crème leather, soft.", "creme LEATHER", "canvas", "Canvas!", ""],
        "price": ["10", "$1,000.00", "99.5 EUR", "", "10"],
        "season": ["summer", "winter", "summer", "", "autumn"],
    }
)


@pytest.fixture(scope="module")
def shop(small_wardrobe: Dataset) -> Dataset:
    """Five items; of everything else nothing is read."""
    interactions = replace(small_wardrobe.train, items=small_wardrobe.train.items % 5, n_items=5)
    return replace(small_wardrobe, items=ITEMS, train=interactions, images=None, name="shop")


def cosine(values: np.ndarray, one: str, other: str) -> float:
    rows = [values[ITEMS["item"].tolist().index(item)] for item in (one, other)]
    return float(rows[0] @ rows[1] / np.prod([np.linalg.norm(row) for row in rows]))


def test_words_are_weighed_as_tf_idf(shop: Dataset, tmp_path: Path) -> None:
    """The inner products of the features are those of TF-IDF vectors by the formula, for the components are all."""
    features = text_features(shop, text_columns=["name"], cache=tmp_path)
    # Of four names a word that two have weighs ln(6 / 3) + 1 among five items; pairs of words are nobody else's, and
    # the zeppelin has no word that another item has.
    unit = {"shoe": 0, "bag": 1, "red": 2, "blue": 3}
    expected = np.zeros((5, 4))
    for row, name in enumerate(ITEMS["name"]):
        for word in name.lower().split():
            if word in unit:
                expected[row, unit[word]] = 2**-0.5
    assert features.values @ features.values.T == pytest.approx(expected @ expected.T, abs=1e-6)
    assert features.description["text_columns"] == "name" and features.widths == {"text": features.values.shape[1]}
    # Accents and case do not count, and by default all columns speak but that of numbers.
    everything = text_features(shop, cache=tmp_path)
    assert everything.description["text_columns"] == "name, description, category, season"
    assert cosine(everything.values, "a", "b") > cosine(everything.values, "a", "d")
    leather = text_features(shop, text_columns=["description"], cache=tmp_path)
    assert cosine(leather.values, "a", "b") > 0.99 and not leather.values[4].any()


def test_fewer_components_are_those_of_the_largest_singular_values(small_wardrobe: Dataset, tmp_path: Path) -> None:
    whole = text_features(small_wardrobe, text_components=10_000, cache=tmp_path).values.astype(np.float64)
    few = text_features(small_wardrobe, text_components=9, cache=tmp_path)
    left, singular, _ = np.linalg.svd(whole, full_matrices=False)
    best = (left[:, :9] * singular[:9]) @ (left[:, :9] * singular[:9]).T
    assert few.values.shape == (small_wardrobe.n_items, 9)
    assert few.values @ few.values.T == pytest.approx(best, abs=1e-4)
    assert text_features(small_wardrobe, text_components=9, cache=tmp_path).fingerprint == few.fingerprint
    renamed = replace(small_wardrobe, items=small_wardrobe.items.assign(name="same"))
    assert text_features(renamed, text_components=9, cache=tmp_path).fingerprint != few.fingerprint
    assert renamed.fingerprint == small_wardrobe.fingerprint


def test_categories_are_ones_for_the_values_that_items_share(shop: Dataset) -> None:
    features = category_features(shop)
    # bags, shoes and summer; "unknown", "winter" and "autumn" are one item's each, and an empty cell says nothing.
    assert features.values.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert category_features(shop, category_columns=["season"]).values.tolist() == [[1], [0], [1], [0], [0]]


def test_numbers_are_standardised_logarithms(shop: Dataset) -> None:
    logarithms = np.log1p([10, 1000, 99.5, 10])
    expected = (logarithms - logarithms.mean()) / logarithms.std()
    values = number_features(shop).values[:, 0]
    assert values == pytest.approx([*expected[:3], 0, expected[3]], abs=1e-6)
    signed = replace(shop, items=ITEMS.assign(price=["-1", "1", "-1", "1", ""]))
    assert number_features(signed).values[:, 0].tolist() == [-1, 1, -1, 1, 0]


def test_sentences(shop: Dataset) -> None:
    bare = replace(shop, items=ITEMS[["item"]])
    for call, sentence in (
        (lambda: text_features(bare), "has no column of words: add one, such as 'name'"),
        (lambda: category_features(bare), "no category or attribute that items share"),
        (lambda: number_features(bare), "no column of numbers: add one, such as 'price'"),
        (lambda: number_features(shop, number_columns=["season"]), "'season' of the item table holds not only numbers"),
        (lambda: text_features(shop, text_columns=["nmae"]), "unknown column of the item table 'nmae': did you mean"),
        (lambda: text_features(shop, text_columns=["item"]), "no word of the item table is in the texts of two items"),
        (lambda: item_features(shop), "has no pictures: load it with its images"),
        (lambda: item_features(shop, {"a": "text"}, unit_lenght=True), "did you mean 'unit_length'"),
        (lambda: Request("vbpr", feature_files={"a": "tekst"}).check(), "say one of pictures, text, categories, num"),
        (
            lambda: Request("vbpr", feature_files={"a": "text"}, control="shuffled pictures").check(),
            "these features are not of pictures: call the control 'shuffled features'",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


def test_sets_stand_side_by_side_by_name(small_wardrobe: Dataset, tmp_path: Path) -> None:
    vectors = pd.DataFrame(np.eye(small_wardrobe.n_items, 3) + 1, index=small_wardrobe.items["item"])
    vectors.to_parquet(tmp_path / "own.parquet")
    sources: dict[str, str | Path] = {
        "look": "pictures",
        "words": "text",
        "table": "categories",
        "own": tmp_path / "own.parquet",
    }
    options: dict[str, Any] = {
        "weights": "random",
        "size": 32,
        "text_components": 5,
        "progress": False,
        "cache": tmp_path / "cache",
    }
    features = item_features(small_wardrobe, sources, unit_length=True, **options)
    views = features.views
    assert list(views) == list(sources) and [view.shape[1] for view in views.values()][:2] == [1280, 5]
    for view in views.values():
        assert np.linalg.norm(view, axis=1) == pytest.approx(1, abs=1e-5)
    words = text_features(small_wardrobe, text_components=5, cache=tmp_path / "cache").values
    assert views["words"] == pytest.approx(words / np.linalg.norm(words, axis=1, keepdims=True), abs=1e-6)
    # Words say nothing of how lists look.
    assert features.of_pictures is not None and features.of_pictures.shape[1] == 1283
    assert text_features(small_wardrobe, cache=tmp_path / "cache").of_pictures is None
    assert features.random and features.description["text_columns"].startswith("name, description, category")
    # The control gives each item all sets of one other item.
    shuffled = with_control(features, "shuffled features").views
    places = [int(np.flatnonzero((shuffled["own"] == views["own"][row]).all(1))[0]) for row in range(3)]
    assert (shuffled["words"][places] == views["words"][:3]).all() and places != [0, 1, 2]


def test_graph_models_have_a_view_of_each_set(small_wardrobe: Dataset, tmp_path: Path) -> None:
    sources = {"items": "categories", "a.b": "text"}
    features = item_features(small_wardrobe, sources, text_components=6, progress=False, cache=tmp_path)
    data = small_wardrobe.training_data(features)
    for name in ("freedom", "bm3"):
        model: Any = build_model(name, data, factors=4)
        assert [each.features.width for each in model.modalities.values()] == [features.widths["items"], 6]
    freedom = build_model("freedom", data, factors=4, neighbours=3)
    alone = [
        build_model("freedom", replace(data, features=np.ascontiguousarray(view), feature_widths={}), neighbours=3)
        for view in features.views.values()
    ]
    models: list[Any] = [freedom, *alone]
    graphs = [each.item_graph(torch.eye(data.n_items)) for each in models]
    assert graphs[0] == pytest.approx((graphs[1] + graphs[2]) / 2, abs=1e-6)


def test_a_run_on_words_opens_again(tmp_path: Path) -> None:
    """Without a picture: the item table alone describes the items."""
    shop = tmp_path / "shop"
    shop.mkdir()
    rng = np.random.default_rng(0)
    rows = [f"u{u},{i}" for u in range(30) for i in rng.choice(25, 6, replace=False)]
    (shop / "interactions.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    names = [f"{('red', 'blue', 'green')[i % 3]} {('shoe', 'bag')[i % 2]}" for i in range(25)]
    table = pd.DataFrame({"item": range(25), "title": names, "detail_desc": "good", "price": range(25)})
    table.to_csv(shop / "items.csv", index=False)
    request = Request(
        "vbpr", dataset="table", root=str(shop), dataset_options={"min_interactions": 3},
        parameters={"epochs": 1}, feature_files={"words": "text", "price": "numbers"},
    )  # fmt: skip
    dataset, features = request.load(progress=False)
    assert list(dataset.items) == ["item", "name", "description", "price"]
    run = train_run(dataset, request, tmp_path / "run", features=features, progress=False)
    assert run.metrics["exact"]["visual_diversity@10"] is None
    trained = open_trained(tmp_path / "run", progress=False)
    assert trained.similar(["6"], 3, by="words")["name"].tolist() == ["red shoe"] * 3
    assert len(trained.similar(["6"], 3, by="price")) == 3
    with pytest.raises(InputError, match="unknown kind of item vectors 'word': did you mean 'words'"):
        trained.similar(["6"], 4, by="word")


def test_the_wardrobe_has_words() -> None:
    dataset = load_dataset("wardrobe", n_users=30, n_items=40, image_size=16, progress=False)
    for row in dataset.items.to_dict("records"):
        text = row["description"].lower()
        assert row["colour"] in text and row["cut"].lower() in text and row["brand"].lower() in text
    assert "description" not in dataset.attribute_columns
