"""The explorer without a browser: lists, reasons and places against brute force; a frozen view against a live one."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from clips import small_open_clip
from conformance import CARDS, randomised, small
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import not_none
from PIL import Image
from toy import N_ITEMS, N_USERS, best_items, toy_data

from imgrec_lib.data.dataset import Columns
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.explorer import (
    VIEWS,
    Explorer,
    ItemMap,
    Runs,
    State,
    answer,
    compare_users,
    find_item,
    find_user,
    occlude,
    project,
    rank,
    score_parts,
    shared_page,
    similar_users,
)
from imgrec_lib.explorer import occlusion as occlusion_module
from imgrec_lib.explorer.dots import groups_of, other_maps, pictures, points
from imgrec_lib.explorer.item_map import Live, inside, positions_of
from imgrec_lib.explorer.meaning import by_meaning
from imgrec_lib.explorer.new_item import item_anew, keep_picture, new_item, picture_path
from imgrec_lib.explorer.opened import user_order
from imgrec_lib.explorer.people import users_of
from imgrec_lib.explorer.ranking import user_scores
from imgrec_lib.explorer.search import Index, facets
from imgrec_lib.explorer.shown import Beside
from imgrec_lib.explorer.state import POPULARITY, SEEN, USER_ORDERS
from imgrec_lib.features import extract_features
from imgrec_lib.gallery import Gallery
from imgrec_lib.models.base import (
    AttributeAttention,
    Extensible,
    PictureEmbedding,
    PurchaseParts,
    Recommender,
    ScoreParts,
)
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run
from imgrec_lib.serving import Trained, compare_lists
from imgrec_lib.serving.pictures import backbone_of, read_picture

REQUEST = Request(
    "poprank",
    dataset="wardrobe",
    dataset_options={"n_users": 60, "n_items": 80, "image_size": 32},
    feature_options={"size": 64},
)
ETE = {"size": 64, "keep": "memory", "phase1_epochs": 1, "phase2_epochs": 1, "factors": 4}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "ft": ("imgrec-ft", {"epochs": 2, "factors": 8}),
    "bpr": ("bpr-mf", {"epochs": 2, "factors": 8}),
    "visrank": ("visrank", {}),
    "mixed": ("pop-visrank", {}),
    "ete": ("imgrec-ete", ETE),
    "ete-before": ("imgrec-ete", ETE | {"phase2_epochs": 0}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    dataset, features = REQUEST.load(with_features=True, progress=False)
    for name, (model, parameters) in RUNS.items():
        request = replace(REQUEST, model=model, parameters=parameters)
        train_run(dataset, request, folder / name, features=features, progress=False)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return Runs(folder)


@pytest.fixture(scope="module")
def picture(runs: Runs) -> str:
    """The name of the picture of item 7, kept as if somebody had given it."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(not_none(runs.open("ft").dataset.images).pixels[7])).save(content, "PNG")
    return keep_picture(content.getvalue())


# --- What models say of their scores


EXPLAINED = [name for name, card in CARDS.items() if hasattr(card.build, "contributions")]
SEEING = [name for name, card in CARDS.items() if hasattr(card.build, "embed_pictures")]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPLAINED)
def test_parts_of_a_score_sum_to_it(name: str) -> None:
    model = randomised(small(name, toy_data()))
    assert isinstance(model, ScoreParts)
    users, items = torch.arange(N_USERS), torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS)
    parts = model.contributions(users, items)
    torch.testing.assert_close(sum(parts.values()), model.scorer().block(users), rtol=1e-4, atol=1e-4)
    assert len(parts) > 1 and all(part.abs().max() > 0 for part in parts.values())


def test_which_models_explain_themselves() -> None:
    assert {"imgrec-dir", "imgrec-ft", "imgrec-ete", "vbpr", "deepstyle", "fm-visual"} <= set(EXPLAINED) & set(SEEING)


def test_attention_is_that_of_the_score() -> None:
    model = randomised(small("saers", toy_data()))
    assert isinstance(model, AttributeAttention)
    users, items = torch.arange(N_USERS), torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS)
    shares = torch.stack(list(model.attribute_attention(users, items).values()), 2)
    torch.testing.assert_close(shares.sum(2), torch.ones(N_USERS, N_ITEMS))
    torch.testing.assert_close(shares, model.scorer().attention(users), rtol=1e-4, atol=1e-5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SEEING)
def test_a_picture_scores_as_an_item_with_an_average_id(name: str) -> None:
    """Where all ids are the same, an item is its picture: the new item then scores as the one it is a picture of."""
    data = toy_data(n_categories=1)
    # Of TwoTower's neighbours an item is none of itself, but the new picture of the old one: see test_two_tower.py.
    alone = {"together": False, "looks": False} if name == "two-tower" else {}
    model = randomised(small(name, data, **alone))
    assert isinstance(model, PictureEmbedding)
    with torch.no_grad():
        for parameter in model.parameters():
            if len(parameter) == N_ITEMS:
                parameter.copy_(parameter[:1].expand_as(parameter))
        assert data.images is not None and data.features is not None
        pixels, features = torch.as_tensor(data.images.pixels), torch.as_tensor(data.features)
        users, scorer = torch.arange(N_USERS), model.scorer()
        assert isinstance(scorer, Extensible)
        known = scorer.block(users)
        both = scorer.extended(model.embed_pictures(pixels, features)).block(users)
    torch.testing.assert_close(both[:, :N_ITEMS], known)
    if name in ("pop-visrank", "item-knn-visual"):  # nobody has bought the new item
        assert isinstance(model, ScoreParts)
        known = model.contributions(users, torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS))["likeness to purchases"]
    if name.startswith("two-tower"):  # a new item has no id, not an average one
        assert isinstance(model, ScoreParts)
        parts = model.contributions(users, torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS))
        known = parts["picture"] + parts["picture: offset"]
    present = torch.as_tensor(data.images.present)  # a missing picture has zero features here
    # A score is a sum, and rounded as its largest parts are.
    atol = max(2e-3, 1e-5 * float(known.abs().max()))
    torch.testing.assert_close(both[:, N_ITEMS:][:, present], known[:, present], rtol=2e-3, atol=atol)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_purchases_make_the_score(similarity: str, aggregate: str) -> None:
    data = toy_data()
    model = small("visrank", data, similarity=similarity, aggregate=aggregate)
    assert isinstance(model, PurchaseParts)
    items = torch.arange(N_ITEMS)
    for user in range(N_USERS):
        found = model.purchase_similarity(user, items)
        assert found.shape == (N_ITEMS, len(data.interactions.of(user)))
        score = found.mean(1) if aggregate == "mean" else found.amax(1)
        torch.testing.assert_close(score, model.scorer().block(torch.tensor([user]))[0], rtol=1e-4, atol=1e-4)


# --- Runs, users, items


@pytest.mark.slow
def test_runs_share_their_data_and_are_opened_once(runs: Runs) -> None:
    first = runs.open("ft")
    assert runs.open("ft") is first and runs.open("bpr").dataset is first.dataset
    # Of the runs that see pictures the one that validates best comes first, and is what one sees first.
    order = [run.name for run in runs.best_first(list(runs.by_name.values()))]
    assert set(order[:-1]) == set(RUNS) - {"bpr"} and order[-1] == "bpr"
    values = [not_none(runs.by_name[name].record.validation.auc) for name in order[:-1]]
    assert values == sorted(values, reverse=True)
    assert runs.open("").run.name == order[0] == runs.best
    (group,) = runs.datasets.values()
    assert {run.name for run in group} == set(RUNS)
    with pytest.raises(InputError, match="unknown run 'mixd': did you mean 'mixed'"):
        runs.open("mixd")
    with pytest.raises(InputError, match="unknown run in"):
        Runs(runs.folder, ["nothing"])
    assert list(Runs(runs.folder, ["bpr"]).by_name) == ["bpr"]


def test_features_that_a_run_does_not_use_are_loaded_when_asked_for(folder: Path) -> None:
    runs = Runs(folder)
    opened = runs.open("bpr")
    answer(runs, State(run="bpr"))
    assert "features" not in opened.__dict__
    assert "By picture" in answer(runs, State(run="bpr", view="neighbours")).view
    assert opened.features is runs.open("ft").features


def test_the_run_before_fine_tuning_is_found(runs: Runs) -> None:
    assert runs.before_fine_tuning("ete") == "ete-before"
    assert not any(runs.before_fine_tuning(name) for name in RUNS if name != "ete")


def test_orders_of_users(runs: Runs) -> None:
    opened = runs.open("ft")
    lengths = opened.dataset.train.history_lengths
    assert (np.diff(lengths[user_order(opened, "longest history")]) <= 0).all()
    assert (np.diff(lengths[user_order(opened, "shortest history")]) >= 0).all()
    higher = opened.run.per_user.set_index("user")["exact/higher"]
    worst = higher[user_order(opened, "worst served")].to_numpy()
    assert (np.diff(worst) <= 0).all() and worst[0] > worst[-1]
    for by in USER_ORDERS:
        assert len(set(user_order(opened, by).tolist())) == len(user_order(opened, by))
    with pytest.raises(InputError, match="unknown order"):
        user_order(opened, "best")


def test_users_and_items_are_found_by_a_part_of_their_id(runs: Runs) -> None:
    dataset = runs.open("ft").dataset
    for index in (0, 13, dataset.n_items - 1):
        assert find_item(dataset, dataset.items[Columns.ITEM][index]) == index
    assert find_user(dataset, dataset.user_ids[5]) == 5
    assert find_user(dataset, dataset.user_ids[59][1:].upper()) == 59
    with pytest.raises(InputError, match="no user has 'nobody'"):
        find_user(dataset, "nobody")
    with pytest.raises(InputError, match="80 items match ''"):
        find_item(dataset, "")


# --- Lists, places and reasons


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("popularity", POPULARITY)
def test_rank_equals_brute_force(runs: Runs, seen: str, popularity: str) -> None:
    opened = runs.open("ft")
    dataset = opened.dataset
    category = dataset.items[Columns.CATEGORY][0]
    counts = Counter(dataset.train.items.tolist())
    low, high = POPULARITY[popularity]
    for user, wanted in ((0, ""), (7, category)):
        scores = opened.scorer.block(torch.tensor([user]))[0].tolist()
        owned = set(dataset.train.of(user).tolist())
        admitted = [
            item
            for item in range(dataset.n_items)
            if low <= counts[item] <= (10**9 if high is None else high)
            and (seen == "all" or (item in owned) == (seen == "bought"))
            and (not wanted or dataset.items[Columns.CATEGORY][item] == wanted)
        ]
        expected = sorted(admitted, key=lambda item: (-scores[item], item))
        found = rank(
            opened, user, State(seen=seen, popularity=popularity, where=((Columns.CATEGORY, wanted),) if wanted else ())
        )
        assert found.items.tolist() == expected
        assert [found.places[item] for item in expected] == list(range(1, len(expected) + 1))
        assert np.count_nonzero(found.places) == len(expected)


def test_ties_go_by_index_and_an_unknown_category_is_refused(runs: Runs) -> None:
    opened = runs.open("visrank")
    flat = Trained(_Flat(opened.dataset.n_items), opened.dataset, opened.features, opened.run, "Flat")
    assert rank(flat, 0, State(seen="all")).items.tolist() == list(range(opened.dataset.n_items))
    with pytest.raises(InputError, match="unknown category of wardrobe"):
        rank(opened, 0, State(where=(("category", "furniture"),)))


class _Flat(Recommender):
    """Every score is the same."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    def scorer(self, times: torch.Tensor | None = None) -> _Flat:
        return self

    def block(self, users: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(users), self.n_items)

    def pairs(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.ones(items.shape)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ft", {"id", "picture", "offset"}),
        ("ete", {"id", "picture", "offset"}),
        ("bpr", {"taste", "offset"}),
        ("mixed", {"popularity", "likeness to purchases"}),
        ("visrank", set()),
    ],
)
def test_parts_shown_are_the_score(runs: Runs, name: str, parts: set[str]) -> None:
    opened = runs.open(name)
    items = np.array([3, 50, 8])
    found = score_parts(opened, 4, items)
    assert set(found) == parts
    if parts:
        np.testing.assert_allclose(sum(found.values()), user_scores(opened, 4)[items], rtol=1e-4, atol=1e-5)


def galleries_of(view: str, runs: Runs, state: State) -> list[Gallery]:
    """The galleries among what a view shows."""
    return [each for each in VIEWS[view](runs, state) if isinstance(each, Gallery)]


def test_recommendations(runs: Runs) -> None:
    opened = runs.open("ft")
    for user in (0, 11):
        state = State(run="ft", user=opened.dataset.user_ids[user], number=6)
        (gallery,) = galleries_of("recommendations", runs, state)
        history, recommended = gallery.rows
        assert set(history.cells[i].item for i in range(len(history.cells))) <= set(opened.dataset.train.of(user))
        expected = best_items(opened.scorer, opened.dataset, [user], 6)[0][0].tolist()
        assert [cell.item for cell in recommended.cells[:6]] == expected
        held = int(opened.dataset.test.items[user])
        (marked,) = [cell for cell in recommended.cells if cell.mark == "test item"]
        assert marked.item == held
        scores = user_scores(opened, user)
        unseen = np.setdiff1d(np.arange(opened.dataset.n_items), opened.dataset.train.of(user))
        place = int((scores[unseen] > scores[held]).sum()) + 1
        assert f"number {place} of {len(unseen)}" in recommended.title
        for cell in recommended.cells:
            assert cell.score == pytest.approx(sum(value for _, value in cell.parts), abs=1e-4)


def test_visrank_shows_the_purchases_that_pull_items_up(runs: Runs) -> None:
    opened = runs.open("visrank")
    user = 3
    chosen = opened.dataset.items[Columns.ITEM][20]
    state = State(run="visrank", user=opened.dataset.user_ids[user], number=4, item=chosen)
    _, because = galleries_of("recommendations", runs, state)
    expected = [20, *best_items(opened.scorer, opened.dataset, [user], 4)[0][0].tolist()]
    assert [row.cells[0].item for row in because.rows] == list(dict.fromkeys(expected))
    assert opened.features is not None
    unit = opened.features.values / np.linalg.norm(opened.features.values, axis=1, keepdims=True)
    for row in because.rows:
        own = {int(j): float(unit[row.cells[0].item] @ unit[j]) for j in opened.dataset.train.of(user)}
        best = sorted(own, key=lambda j: -own[j])[:8]
        assert [cell.item for cell in row.cells[1:]] == best
        np.testing.assert_allclose([not_none(c.score) for c in row.cells[1:]], [own[j] for j in best], atol=1e-5)


def test_two_models(runs: Runs) -> None:
    state = State(run="ft", other="visrank", number=10)
    gallery = next(each for each in galleries_of("compare", runs, state) if "the first 10" in each.title)
    _, only_first, only_second, both = ([cell.item for cell in row.cells] for row in gallery.rows)
    user = int((runs.open("ft").dataset.test.items >= 0).argmax())
    a, b = (rank(runs.open(name), user, state) for name in ("ft", "visrank"))
    assert set(only_first) == set(a.items[:10].tolist()) - set(b.items[:10].tolist())
    assert set(only_second) == set(b.items[:10].tolist()) - set(a.items[:10].tolist())
    assert set(both) == set(b.items[:10].tolist()) & set(a.items[:10].tolist())
    for cell in gallery.rows[1].cells:
        assert cell.caption[-1] == f"number {a.places[cell.item]} ({b.places[cell.item]})"
    with pytest.raises(InputError, match="nothing to compare with yet"):
        galleries_of("compare", runs, State(run="ft"))


def test_neighbours_in_every_space(runs: Runs) -> None:
    opened = runs.open("ete")
    dataset = opened.dataset
    item = int(dataset.train.popularity.argmax())
    state = State(run="ete", other="bpr", item=dataset.items[Columns.ITEM][item], number=5)
    (gallery,) = galleries_of("neighbours", runs, state)
    query, by_picture, final, before, second, together = gallery.rows
    assert query.cells[0].item == item
    assert "before fine-tuning" in before.title and "BPR-MF" in second.title
    buyers = {i: set(np.flatnonzero([i in dataset.train.of(u) for u in range(dataset.n_users)])) for i in range(80)}

    def cosine(i: int) -> float:
        norm = (len(buyers[i]) * len(buyers[item])) ** 0.5
        return len(buyers[i] & buyers[item]) / norm if norm else 0.0

    expected = sorted((cosine(i) for i in range(80) if i != item), reverse=True)[:5]
    np.testing.assert_allclose([not_none(cell.score) for cell in together.cells], expected, atol=1e-6)
    for row, vectors in (
        (by_picture, opened.features),
        (final, opened.learned),
        (before, runs.open("ete-before").learned),
    ):
        values = np.asarray(getattr(vectors, "values", vectors) if row is by_picture else vectors, dtype=np.float64)
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        similarity = unit @ unit[item]
        similarity[item] = -2
        assert [cell.item for cell in row.cells] == np.argsort(-similarity, kind="stable")[:5].tolist()
    learned = runs.open("bpr").learned
    assert (
        learned is not None and learned.shape[1] == 9 and not learned[:, 8].any()
    )  # the item offsets count for nothing


def test_two_runs_on_different_data_are_not_compared(runs: Runs, tmp_path: Path) -> None:
    request = replace(REQUEST, dataset_options={"n_users": 40, "n_items": 40, "image_size": 32})
    dataset, _ = request.load(progress=False)
    train_run(dataset, request, tmp_path / "b" / "other-data", progress=False)
    shutil.copytree(runs.folder / "ft", tmp_path / "b" / "ft")
    both = Runs(tmp_path / "b")
    assert len(both.datasets) == 2
    with pytest.raises(InputError, match="other data"):
        galleries_of("compare", both, State(run="ft", other="other-data"))
    (gallery,) = galleries_of("recommendations", both, State(run="other-data"))
    assert not any(cell.parts for row in gallery.rows for cell in row.cells)
    by_picture = VIEWS["map"](both, State(run="other-data"))[1]  # a model without vectors of items has this map alone
    assert isinstance(by_picture, ItemMap) and "by picture" in by_picture.title


# --- Cold start


@pytest.mark.parametrize("name", ["ft", "ete", "visrank", "mixed"])
def test_a_new_picture_is_placed_as_brute_force_places_it(runs: Runs, picture: str, name: str) -> None:
    opened = runs.open(name)
    new = new_item(opened, picture)
    assert opened.features is not None and opened.dataset.images is not None
    np.testing.assert_array_equal(new.pixels, opened.dataset.images.pixels[7])
    np.testing.assert_allclose(new.feature.numpy(), opened.features.values[7], rtol=1e-2, atol=1e-3)
    assert new.scores is not None and new.places is not None
    for user in range(0, 60, 7):
        unseen = np.setdiff1d(np.arange(80), opened.dataset.train.of(user))
        scores = user_scores(opened, user)[unseen]
        # The picture is item 7's: where it scores as that item does, rounding may put it before or behind.
        near = np.isclose(scores, new.scores[user], rtol=1e-5, atol=1e-6)
        higher = (scores[~near] > new.scores[user]).sum()
        assert higher + 1 <= new.places[user] <= higher + near.sum() + 1 and near.sum() <= 1
    galleries = galleries_of("new picture", runs, State(run=name, picture=picture, number=3))
    by_picture = galleries[0].rows[1]
    assert by_picture.cells[0].item == 7 and by_picture.cells[0].score == pytest.approx(1, abs=1e-3)
    order = [int(row.title.split("number ")[1].replace(",", "")) for row in galleries[2].rows]
    assert order == sorted(new.places)[:5]


def test_a_model_of_ids_alone_says_so(runs: Runs, picture: str) -> None:
    galleries = galleries_of("new picture", runs, State(run="bpr", picture=picture))
    assert galleries[0].rows[1].cells[0].item == 7
    assert "BPR-MF cannot score an item by its picture" in galleries[-1].title
    assert not galleries_of("new picture", runs, State(run="bpr"))


SETS = {"words": "text", "look": "pictures"}


@pytest.fixture(scope="module")
def of_sets(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs on words and pictures, on pictures that have a name, on words alone, and on files of vectors.

    Of these one is of what the network makes of the pictures, at least of the first, decoded a little otherwise.
    """
    folder = tmp_path_factory.mktemp("sets")
    rng, images = np.random.default_rng(0), not_none(REQUEST.load_dataset(progress=False).images)
    made = extract_features(ImageStore.from_array(np.array(images.pixels[:16])), progress=False).values
    vectors = np.concatenate([made, rng.permuted(made[rng.integers(16, size=len(images) - 16)], axis=0)])
    vectors = vectors + rng.normal(size=vectors.shape) * 0.1 * made.std(axis=0)
    for name, each in {"encoded": vectors, "other": rng.permuted(vectors, axis=1), "narrow": vectors[:, :99]}.items():
        ids = REQUEST.load_dataset(progress=False).items["item"].tolist()
        np.savez(folder / f"{name}.npz", ids=ids, vectors=each)
    options = {"size": 64, "standardise": True, "unit_length": True, "components": 9}
    for name, model, sets in (
        ("both", "vbpr", SETS),
        ("look", "visrank", {"look": "pictures"}),
        ("words", "visrank", {"words": "text"}),
        ("ids", "bpr-mf", SETS),
        ("encoded", "visrank", {"clip": str(folder / "encoded.npz")}),
        ("other", "visrank", {"clip": str(folder / "other.npz")}),
        ("narrow", "visrank", {"clip": str(folder / "narrow.npz")}),
    ):
        parameters = {"epochs": 1} if model != "visrank" else {}
        known = {key: value for key, value in options.items() if key != "size" or "look" in sets}
        known = {} if name == "narrow" else known
        request = replace(REQUEST, model=model, parameters=parameters, feature_files=sets, feature_options=known)
        dataset, features = request.load(with_features=True, progress=False)
        train_run(dataset, request, folder / name, features=features, progress=False)
    return Runs(folder)


def test_neighbours_by_each_set_of_features(of_sets: Runs) -> None:
    opened = of_sets.open("both")
    item = str(opened.item_ids[7])
    (gallery,) = galleries_of("neighbours", of_sets, State(run="both", item=item, number=5))
    _, words, look, learned, _ = gallery.rows
    assert [words.title, look.title] == ["By words", "By look"]
    assert learned.title == f"As {opened.title} has learnt"
    for row, vectors in ((words, opened.feature_sets["words"]), (look, opened.feature_sets["look"])):
        cosines = np.array(vectors, dtype=np.float64) @ vectors[7]  # of unit length, so that these are cosines
        cosines /= np.linalg.norm(vectors, axis=1).clip(1e-9) * np.linalg.norm(vectors[7])
        cosines[7] = -2
        assert [cell.item for cell in row.cells] == np.argsort(-cosines, kind="stable")[:5].tolist()
    card = answer(of_sets, State(run="both", item=item)).html.partition('data-part="card"')[2]
    titles = ("Near by words", "Near by look", "Near as learnt")
    assert [card.index(title) for title in titles] == sorted(card.index(title) for title in titles)


def test_a_picture_is_searched_by_the_set_that_is_of_pictures(of_sets: Runs, picture: str) -> None:
    for name in ("both", "look", "ids"):
        opened = of_sets.open(name)
        new = new_item(opened, picture)
        # As its item's, which the options have prepared with all others.
        np.testing.assert_allclose(new.feature.numpy(), opened.feature_sets["look"][7], atol=2e-3)
        galleries = galleries_of("new picture", of_sets, State(run=name, picture=picture, number=3))
        row = galleries[0].rows[1]
        assert row.title == "Nearest by look" and row.cells[0].item == 7
    for name in ("look", "encoded"):  # its one set is all that the model needs
        assert new_item(of_sets.open(name), picture).scores is not None
    row = galleries_of("new picture", of_sets, State(run="encoded", picture=picture, number=3))[0].rows[1]
    assert row.title == "Nearest by clip" and row.cells[0].item == 7
    for name, lacks in (("both", "words"), ("ids", "id")):
        title = galleries_of("new picture", of_sets, State(run=name, picture=picture))[-1].title
        assert title.endswith(f"cannot score an item by its picture: it needs an item's {lacks}")
    # The words of an item of the catalogue are known, so that it is scored as a new one.
    opened = of_sets.open("both")
    known = item_anew(opened, 7)
    whole = torch.from_numpy(np.array(not_none(opened.features).values[7:8]))
    model: Any = opened.model
    row = model.embed_pictures(torch.zeros(1, 1, 1, 3), whole)
    expected = opened.scorer.extended(row).block(torch.arange(60))[:, -1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(not_none(known.scores), expected.detach(), rtol=1e-2, atol=1e-3)
    assert occlude(opened, 0, 7).score == pytest.approx(float(not_none(known.scores)[0]), rel=1e-3, abs=1e-4)


def test_without_a_set_of_pictures_one_sentence_says_so(of_sets: Runs, picture: str) -> None:
    for name, sets in (("words", "words"), ("other", "clip"), ("narrow", "clip")):
        for state in (State(run=name, view="new picture"), State(run=name, view="new picture", picture=picture)):
            shown = html.unescape(answer(of_sets, state).html)
            assert f"run {name} knows items by {sets} and computes none of it from pictures" in shown
            assert "data-upload" not in shown
    assert "data-upload" in answer(of_sets, State(run="both", view="new picture")).html


def test_an_item_is_taken_for_a_new_one(runs: Runs, picture: str) -> None:
    opened = runs.open("ft")
    ways = State(run="ft", picture=picture), State(run="ft", item=str(opened.item_ids[7]))
    for found, same in zip(*(galleries_of("new picture", runs, way) for way in ways), strict=True):
        assert found.items == same.items and found.title == same.title


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_upload_is_decoded_with_care(runs: Runs, tmp_path: Path) -> None:
    opened = runs.open("ft")
    with pytest.raises(InputError, match="broken"):
        read_picture(opened, b"\x89PNG no picture")
    with pytest.raises(InputError, match="MB"):
        read_picture(opened, bytes(65_000_000))
    bomb = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(bomb, "PNG")
    with pytest.raises(InputError, match="pixels are more than"):
        read_picture(opened, bomb.getvalue())
    photo = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(photo, "JPEG")
    assert read_picture(opened, photo.getvalue()).shape == (32, 32, 3)
    # What is kept is the picture in its own proportions, not the file, and only a name that was given finds it.
    name = keep_picture(photo.getvalue())
    with Image.open(picture_path(name)) as kept:
        assert kept.size == (300, 200) and kept.format == "PNG"
    assert new_item(opened, name).shown.shape == (200, 300, 3)
    for wrong in ("picture-000000000000", f"../pictures/{name}", "", "/etc/passwd"):
        with pytest.raises(InputError, match="give it again"):
            picture_path(wrong)


# --- The map


def test_projection_is_that_of_principal_components() -> None:
    from sklearn.decomposition import PCA

    values = np.random.default_rng(0).normal(size=(200, 7)) @ np.diag([5, 3, 1, 1, 1, 1, 1]) + 4
    found = project(torch.as_tensor(values))
    expected = PCA(2).fit_transform(values)
    for axis in range(2):
        inner = (found[:, axis] > 0) & (found[:, axis] < 1)
        assert inner.mean() > 0.97
        assert abs(np.corrcoef(found[inner, axis], expected[inner, axis])[0, 1]) > 0.99999
    assert ((found >= 0) & (found <= 1)).all() and (found == project(values)).all()
    with pytest.raises(InputError, match="at least 3 items"):
        project(values[:2])


def test_umap_or_how_to_get_it() -> None:
    values = np.random.default_rng(0).normal(size=(40, 5))
    try:
        import umap  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"imgrec\[umap\]"):
            project(values, "umap")
    else:
        found = project(values, "umap")
        assert found.shape == (40, 2) and ((found >= 0) & (found <= 1)).all()


def test_the_map_leads_to_the_other_maps(runs: Runs) -> None:
    """To that of the other space, and to UMAP where it can be made; a region of one map means nothing on another."""
    state = State(run="ft", view="map", region=(0.25, 0.0, 0.75, 0.5))
    links = re.findall(r'class="like-button" href="\?([^"]+)"', answer(runs, state).html)
    states = [State.at(html.unescape(link)) for link in links]
    maps = [(each.space, each.projection) for each in states]
    others = [("picture", "pca"), *([("learned", "umap")] if find_spec("umap") else [])]
    assert [each for each in maps if each != ("learned", "pca")] == others
    assert not any(each.region for each in states if each.space == "picture")
    assert "by picture" in answer(runs, states[0]).html


def test_each_set_of_features_has_a_map(of_sets: Runs) -> None:
    opened = of_sets.open("both")
    for name, vectors in opened.feature_sets.items():
        state = State(run="both", view="map", space=name)
        shown = VIEWS["map"](of_sets, state)[1]
        assert isinstance(shown, ItemMap) and shown.title.endswith(f"by {name}")
        np.testing.assert_array_equal(shown.positions, project(vectors))
        others = {"learned", "words", "look"} - {name}
        assert {change["space"] for _, change in other_maps(opened, state) if "space" in change} == others
    with pytest.raises(InputError, match=r"unknown map 'picture': choose one of: learned, look, words"):
        VIEWS["map"](of_sets, State(run="both", view="map", space="picture"))
    found = answer(of_sets, State(run="both", view="map", space="picture"))
    assert "has no map by picture." in found.html and found.state.space == "learned"


def test_map_holds_what_was_chosen(runs: Runs) -> None:
    opened = runs.open("ft")
    state = State(run="ft", region=(0.25, 0.0, 0.75, 0.5), number=4)
    shown, chosen = (next(p for p in VIEWS["map"](runs, state) if isinstance(p, kind)) for kind in (ItemMap, Gallery))
    assert isinstance(shown, ItemMap) and isinstance(chosen, Gallery)
    x, y = shown.positions.T
    owned = opened.dataset.train.of(0)
    inside = [i for i in range(80) if 0.25 <= x[i] <= 0.75 and y[i] <= 0.5 and i not in owned]
    assert sorted(shown.inside().tolist()) == inside and inside
    assert chosen.items == sorted(inside, key=lambda i: -user_scores(opened, 0)[i])[:4]
    # Alone it has a thumbnail for each of the 24 x 14 cells in which an item lies, named after it.
    cells = {(min(int(24 * x[i]), 23), min(int(14 * y[i]), 13)) for i in shown.shown}
    assert shown.html().count("<img ") == len(re.findall(r'<img [^>]*alt="[^"]', shown.html())) == len(cells)
    whole = [part for part in VIEWS["map"](runs, replace(state, region=())) if isinstance(part, ItemMap | Gallery)]
    assert len(whole) == 1 and isinstance(whole[0], ItemMap) and whole[0].inside().size == 0


def test_a_part_of_the_map_with_any_outline_filters_the_other_views(runs: Runs) -> None:
    """A triangle, whose inside three signs tell."""
    opened = runs.open("ft")
    corners = np.array([[0.1, 0.1], [0.9, 0.2], [0.4, 0.9]])
    region = tuple(corners.ravel().tolist())
    state = State(run="ft", region=region, seen="all", number=200)
    positions = positions_of(opened, state).astype(float)
    sides = []
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        sides.append((b - a)[0] * (positions - a)[:, 1] - (b - a)[1] * (positions - a)[:, 0] > 0)
    expected = np.flatnonzero(sides[0] & sides[1] & sides[2])
    assert 0 < len(expected) < 80
    assert sorted(rank(opened, 0, state).items.tolist()) == expected.tolist()
    chips = answer(runs, state).html
    assert "chosen on the map" in chips
    # Another model has learnt another map; the pictures are where they are.
    assert not any(each.region for each in links_of(chips) if each.run != "ft")
    pictures = answer(runs, replace(state, space="picture")).html
    assert any(each.region for each in links_of(pictures) if each.run not in ("ft", ""))


@pytest.mark.parametrize("colour", ["", "popularity", "score", "error", "category"])
def test_dots_are_coloured_by_what_they_say(runs: Runs, colour: str) -> None:
    opened = runs.open("ft")
    found = groups_of(opened, 3, colour)
    assert len(found.names) == len(found.colours) > found.codes.max() and len(set(found.colours)) == len(found.colours)
    table = opened.run.per_user
    for item in range(80):
        name = found.names[found.codes[item]]
        if colour == "category":
            value = opened.dataset.items["category"][item]
            assert name == value or (name == "all others" and value not in found.names)
        elif colour == "popularity":
            low, high = POPULARITY[name]
            assert low <= opened.popularity[item] and (high is None or opened.popularity[item] <= high)
        elif colour == "score":
            above = (user_scores(opened, 3) > user_scores(opened, 3)[item]).mean()
            quarter = ["highest", "third", "second", "lowest"][min(3, int(4 * above + 1e-9))]
            assert name.startswith(quarter)
        elif colour == "error":
            mine = table[table["item"] == item]
            if mine.empty:
                assert name == "no test item"
            else:
                share = ((mine["exact/higher"] + mine["exact/tied"] / 2) / mine["exact/candidates"]).mean()
                low = [0, 0.1, 0.25, 0.5][found.codes[item] - 1]
                assert low <= share < [0.1, 0.25, 0.5, 1.01][found.codes[item] - 1]
    with pytest.raises(InputError, match="colouring of the map"):
        groups_of(opened, 3, "colr")


def test_what_the_browser_is_told_of_the_map(runs: Runs) -> None:
    opened = runs.open("ft")
    state = State(run="ft", view="map", colour="category", where=(("category", "dresses"),), zoom=(0.0, 0.0, 0.5, 0.5))
    user = int(next(iter(opened.dataset.test.users)))
    data = points(opened, user, state)
    n = len(data) // 16
    xy, items = np.frombuffer(data, "<f4", 2 * n).reshape(2, n).T, np.frombuffer(data, "<i4", n, 8 * n)
    assert (opened.dataset.items["category"][items] == "dresses").all() and n
    assert (np.diff(opened.popularity[items]) <= 0).all()
    assert (xy == positions_of(opened, state)[items]).all()
    codes = np.frombuffer(data, "<i4", n, 12 * n)
    assert (codes == groups_of(opened, user, "category").codes[items]).all()
    told = pictures(opened, [int(items[0]), 10**6])
    assert list(told) == [str(items[0])] and told[str(items[0])][2] == opened.item_ids[items[0]]
    # The words of the map count what lies in each part of what is in view, and lead there.
    page = answer(runs, state).html
    counts = [int(number) for number in re.findall(r'<td>row \d, column \d</td><td class="number">(\d+)</td>', page)]
    edges = np.linspace(0, 0.5, 5), np.linspace(0, 0.5, 4)
    expected, _, _ = np.histogram2d(xy[:, 0], xy[:, 1], bins=edges)
    assert counts == [int(count) for count in expected.T.ravel() if count]
    assert {each.zoom for each in links_of(page) if each.zoom not in ((), state.zoom)}
    marks = json.loads(html.unescape(re.search(r'data-marks="([^"]+)"', page)[1]))  # type: ignore[index]
    bought = [mark for mark in marks if mark[2] == "bought"]
    assert len(bought) == len(opened.dataset.train.of(user)) and len(marks) > len(bought)


def test_map_escapes_names() -> None:
    evil = "<script>alert(1)</script>"
    store = np.zeros((3, 8, 8, 3), np.uint8)
    from imgrec_lib.data.images import ImageStore

    positions = np.array([[0, 0], [0.5, 0.5], [1, 1]])
    shown = ItemMap(evil, positions, np.arange(3), np.array([evil] * 3), ImageStore.from_array(store))
    assert "<script" not in shown.html() and html.escape(evil) in shown.html()
    live = replace(shown, live=Live("run=a", ("#000000",), ((0.0, 0.0, "bought", evil),)))
    assert "<script" not in live.html(link=str) and "data-marks" in live.html(link=str)


# --- State


@pytest.mark.parametrize(
    "wrong",
    [
        {"seen": "unseen"},
        {"popularity": "hot"},
        {"number": 0},
        {"region": [0, 1]},
        {"region": [0, 0, 1, 2]},
        {"projection": "x"},
    ],
)
def test_a_wrong_state_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        State(**wrong)  # type: ignore[arg-type]


STATES = st.builds(
    State,
    run=st.text(max_size=8),
    other=st.text(max_size=8),
    user=st.text(max_size=8),
    order=st.sampled_from(USER_ORDERS),
    search=st.text(max_size=8),
    where=st.dictionaries(st.text(max_size=5), st.text(min_size=1, max_size=5), max_size=3).map(
        lambda d: tuple(d.items())
    ),
    popularity=st.sampled_from(list(POPULARITY)),
    number=st.integers(1, 200),
    least=st.none() | st.floats(-9, 9),
    region=st.just(()) | st.just((0.25, 0.5, 0.75, 1.0)),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(STATES)
def test_an_address_is_the_state(state: State) -> None:
    assert State.at(state.address()) == state
    assert State.at("?" + state.address(number=7)) == replace(state, number=7)


def test_an_address_that_says_nothing_is_the_default() -> None:
    assert State().address() == "" and State.at("") == State() and State.at("user=&where.colour=") == State()
    with pytest.raises(InputError, match="unknown part of the explorer's address 'usr': did you mean 'user'"):
        State.at("usr=anna")
    with pytest.raises(InputError, match="number in the explorer's address is no number: 'many'"):
        State.at("number=many")


# --- The explorer as HTML


def items_of(text: str) -> list[int]:
    return [int(item) for item in re.findall(r'data-item="(-?\d+)"', text)]


def links_of(text: str) -> list[State]:
    return [State.at(html.unescape(link)) for link in re.findall(r'href="\?([^"]*)"', text)]


def test_another_model_keeps_everything_else(runs: Runs) -> None:
    opened = runs.open("ft")
    asked = State(
        run="ft",
        other="visrank",
        view="neighbours",
        user=str(opened.dataset.user_ids[9]),
        item=str(opened.item_ids[12]),
        where=(("category", str(opened.dataset.items[Columns.CATEGORY][4])),),
        number=7,
        seen="all",
    )
    found = answer(runs, asked)
    assert found.state == asked and items_of(found.html)
    runs_of_links = {state.run: state for state in links_of(found.html) if replace(state, run="ft") == asked}
    assert set(runs_of_links) == set(RUNS)
    assert answer(runs, runs_of_links["mixed"]).state == replace(asked, run="mixed")
    for view in VIEWS:
        assert replace(asked, view=view) in links_of(found.html)


def test_what_the_data_do_not_have_is_left_out_with_a_word(runs: Runs) -> None:
    asked = State(run="gone", other="gone too", user="nobody", item="nothing", view="x", where=(("colour", "none"),))
    found = answer(runs, asked)
    assert found.state == State(run=runs.best)
    assert found.html.count('class="note"') == 6 and 'role="alert"' not in found.html
    part = str(runs.open("ft").dataset.user_ids[59])[1:].upper()
    assert answer(runs, State(user=part)).state.user == runs.open("ft").dataset.user_ids[59]


def test_a_run_that_cannot_be_opened_leaves_the_list_of_runs(folder: Path, tmp_path: Path) -> None:
    for name in ("ft", "bpr", "visrank"):
        shutil.copytree(folder / name, tmp_path / name)
    best = Runs(tmp_path).best
    (tmp_path / best / "model.safetensors").unlink()
    runs = Runs(tmp_path)
    found = answer(runs, State())
    assert runs.best == best and "model.safetensors" in found.sentence and found.sentence in html.unescape(found.html)
    links = links_of(found.html)
    assert {link.run for link in links} == {"ft", "bpr", "visrank"} and not any(link.other for link in links)
    assert 'role="alert"' not in answer(runs, State(run="bpr")).html
    assert 'role="alert"' in Explorer(runs).html and "imgrec-runs" in Explorer(runs).html
    # Beside another run it is left out with a word, and a shared page says why it is not there.
    compared = answer(runs, State(run="bpr", other=best, view="compare"))
    assert compared.state.other == "" and "model.safetensors" in compared.html
    assert "model.safetensors" in shared_page(runs, State(run="bpr"))


def test_an_empty_view_is_no_error(runs: Runs) -> None:
    for view in ("compare", "new picture"):
        found = answer(runs, State(run="bpr", view=view))
        assert 'class="note"' in found.html and 'role="alert"' not in found.html
    assert 'class="note"' in answer(runs, State(run="bpr", view="what it saw")).html


def test_any_failure_is_a_sentence(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("second <b>line</b>")

    monkeypatch.setitem(VIEWS, "map", fails)
    found = answer(runs, State(view="map"))
    assert "RuntimeError: second &lt;b&gt;line" in found.html and 'role="alert"' in found.html
    assert 'role="alert"' not in answer(runs, State()).html


def test_the_card_says_all_that_is_known(runs: Runs) -> None:
    opened = runs.open("ft")
    item = int(opened.popularity.argmax())
    asked = State(run="ft", item=str(opened.item_ids[item]))
    card = answer(runs, asked).html.partition('data-part="card"')[2]
    text = html.unescape(re.sub(r"<[^>]+>", " ", card))
    for column in opened.dataset.items:
        assert str(opened.dataset.items[column][item]) in text
    buyers = [user for user in range(60) if item in opened.dataset.train.of(user)]
    assert f"Bought in training by {len(buyers)}:" in text
    ids = [str(opened.dataset.user_ids[user]) for user in buyers[:8]]
    users = [state.user for state in links_of(card) if state.user]
    assert users == ids
    near = search_neighbours(not_none(opened.features).values, [item], 6).items[0].tolist()
    assert items_of(card)[:6] == near


# --- Ask


def test_words_find_what_has_them_all() -> None:
    table = pd.DataFrame(
        {
            "item": ["0110-a", "0110-b", "x3", "x4"],
            "name": ["Evening dress", "Shirt", "Coat", "Skirt"],
            "colour": ["Black", "black", "red", "white"],
            "text": ["long", "to wear with a dress", 'a "quoted" OR thing*', None],
        }
    )
    index = Index(table)

    def found(text: str) -> list[int]:
        return index.items(text).tolist()

    assert found("black dress") == [0, 1]  # in the name it counts more than in a description
    assert found("DRE bla") == [0, 1] and found("0110") == [0, 1] and found("10-b") == [1]
    assert set(found("red dress")) == {0, 1, 2}  # nothing has both: either will do
    assert found('"quoted" OR (thing*') == [2] and found("") == [] and found("*") == [] and found("NEAR(") == []
    assert index.items("black", np.array([False, True, True, True])).tolist() == [1]
    assert index.like("drss") == ["dress"] and index.like("dress") == []


def test_hits_are_shown_with_pictures_and_users(runs: Runs) -> None:
    opened = runs.open("ft")
    name = str(opened.dataset.items["name"][5])
    found = answer(runs, State(run="ft", search=name)).html
    assert items_of(found.partition('class="hits"')[2])[0] in np.flatnonzero(opened.dataset.items["name"] == name)
    user = str(opened.dataset.user_ids[17])
    hits = answer(runs, State(run="ft", search=user)).html.partition('class="hits"')[2].partition("</div>")[0]
    assert [state.user for state in links_of(hits) if state.user] == [user]
    nothing = answer(runs, State(run="ft", search="<zzz>")).html
    assert "Nothing has “&lt;zzz&gt;”" in nothing and items_of(nothing)


def test_facets_are_the_columns_by_which_one_can_choose(runs: Runs) -> None:
    dataset = runs.open("ft").dataset
    found = facets(dataset)
    assert next(iter(found)) == "category" and "name" not in found and "item" not in found
    for column, counts in found.items():
        assert counts.to_dict() == Counter(dataset.items[column].astype(str))


# --- Users


def test_the_table_of_users_sorts_and_filters_by_any_metric(runs: Runs) -> None:
    opened = runs.open("ft")
    higher = opened.run.per_user.set_index("user")["exact/higher"]
    table = users_of(opened)
    assert (table["place"] == higher[table.index] + opened.run.per_user.set_index("user")["exact/tied"] // 2 + 1).all()

    def shown(**asked: Any) -> list[str]:
        text = answer(runs, State(run="ft", view="users", **asked)).view
        body = text.partition("<tbody>")[2].partition("</tbody>")[0]
        return [state.user for state in links_of(body)]

    ids = table["id"].tolist()
    assert shown(sort="-place") == table.sort_values("place", ascending=False, kind="stable")["id"].tolist()[:50]
    assert shown(sort="ndcg@10", page=2) == table.sort_values("ndcg@10", kind="stable")["id"].tolist()[50:]
    assert set(shown(sort="place", least=3, most=10)) == {ids[i] for i in np.flatnonzero(table["place"].between(3, 10))}
    assert shown(sort="no such column") == shown()


def test_wins_and_losses_are_counted(runs: Runs) -> None:
    first, second = runs.open("ft"), runs.open("visrank")
    found = compare_users(first, second, "auc")
    a, b = (opened.run.per_user.set_index("user") for opened in (first, second))
    # With one test item a user and the same candidates, the AUC is larger where fewer items are before it.
    before_a, before_b = (t["exact/higher"] + t["exact/tied"] / 2 for t in (a, b))
    assert found.whole["wins"] == (before_a < before_b).sum() and found.whole["losses"] == (before_a > before_b).sum()
    assert found.whole["users"] == len(a) == found.whole[["wins", "ties", "losses"]].sum()
    mean = not_none(first.run.metrics["exact"]["auc"]) - not_none(second.run.metrics["exact"]["auc"])
    assert found.whole["difference"] == pytest.approx(mean) and found.whole["low"] < mean < found.whole["high"]
    for kind in ("history", "popularity"):
        groups = found.groups.loc[kind]
        assert groups["users"].sum() == len(a) and groups["wins"].sum() == found.whole["wins"]
        weighted = (groups["difference"] * groups["users"]).sum() / groups["users"].sum()
        assert weighted == pytest.approx(mean)
    cold = found.groups.loc["popularity"].filter(like="cold", axis=0)["users"].sum()
    assert cold == (a["item_popularity"] == 0).sum()


def test_lists_of_another_program_are_compared_by_what_lists_tell(runs: Runs, tmp_path: Path) -> None:
    """Four items a user from another program: its AUC is unknown, and so is where an item stands that is not listed."""
    opened = runs.open("ft")
    shutil.copytree(runs.folder / "ft", tmp_path / "ft")
    lists = pd.DataFrame(
        [(user, opened.item_ids[(3 * n + place) % 80], place) for n, user in enumerate(opened.dataset.user_ids)
         for place in range(1, 41)],
        columns=["user", "item", "rank"],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare_lists(lists, opened.dataset, tmp_path / "other", title="Other", request=opened.run.request)
    both = Runs(tmp_path)
    other = both.open("other")
    assert users_of(other)["auc"].isna().all() and not users_of(other)["hr@10"].isna().any()
    held = opened.dataset.test.items[users_of(other).index]
    listed = [(user, item) in set(zip(lists["user"], lists["item"], strict=True)) for user, item in zip(
        users_of(other)["id"], opened.item_ids[held], strict=True)]  # fmt: skip
    assert (users_of(other)["place"].notna() == listed).all() and 0 < sum(listed) < 60
    found = answer(both, State(run="ft", other="other", view="compare"))
    assert "by NDCG@10" in found.view and 'role="alert"' not in found.html and ">AUC<" not in found.view
    assert 'role="alert"' not in answer(both, State(run="other", view="users", sort="-hr@10")).html
    assert items_of(answer(both, State(run="other")).html)


def test_a_group_of_users_is_shown(runs: Runs) -> None:
    found = compare_users(runs.open("ft"), runs.open("visrank"), "auc")
    kind, name = found.groups.index[0]
    group = found.values[found.values[kind] == name]
    most = (group["first"] - group["second"]).idxmax()
    shown = galleries_of("compare", runs, State(run="ft", other="visrank", group=f"{kind}: {name}"))
    better = next(gallery for gallery in shown if gallery.title.startswith("Served better by ImgRec-FT"))
    assert better.rows[0].cells[0].item == runs.open("ft").dataset.test.items[most]
    assert "unknown group of users" in answer(runs, State(run="ft", other="visrank", view="compare", group="x: y")).html


# --- What it saw


def test_a_part_of_the_map_is_a_group_of_users(runs: Runs) -> None:
    """Those whose test item lies in it; the lists of both runs stand beside each other."""
    region = (0.2, 0.2, 0.8, 0.8)
    state = State(run="ft", other="visrank", view="compare", region=region, group="map: chosen part", number=5)
    first, second = runs.open("ft"), runs.open("visrank")
    items = users_of(first)["item"]
    in_it = inside(positions_of(first, state)[items.to_numpy()], region)
    page = answer(runs, state).html
    row = re.search(r"test item in the chosen part of the map</a>(.*?)</tr>", page, re.S)
    assert row and f">{int(in_it.sum()):,}</td>" in row[1] and 0 < in_it.sum() < len(items)
    pairs = [part for part in VIEWS["compare"](runs, state) if isinstance(part, Beside)]
    wins = (users_of(first)["auc"] - users_of(second)["auc"])[in_it].sort_values(ascending=False, kind="stable")
    best = int(wins.index[0])
    for side, run in zip(pairs[0].parts, (first, second), strict=True):
        assert side.items == rank(run, best, state).items[:5].tolist()
    assert 'class="beside"' in page
    assert all(item in np.flatnonzero(inside(positions_of(first, state), region)) for item in pairs[0].parts[0].items)


def test_occlusion_finds_the_region_that_makes_the_score(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that looks at one corner alone, covering that corner is what takes the score away."""
    opened = runs.open("visrank")

    def corner(_: object, pixels: np.ndarray, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.as_tensor(pixels[:, -8:, -8:].astype(np.float32)).mean((1, 2, 3))
        return seen, seen[:, None]

    class Scorer:
        def extended(self, rows: torch.Tensor) -> _Rows:
            return _Rows(rows, opened.dataset.n_items)

    pixels = np.zeros((80, 32, 32, 3), np.uint8)
    pixels[:, -8:, -8:] = 250
    images = ImageStore.from_array(pixels)
    monkeypatch.setattr(occlusion_module, "embed", corner)
    seen = replace(opened, dataset=opened.dataset.with_images(images))
    seen.__dict__["scorer"] = Scorer()
    found = occlude(seen, 0, 3)
    assert found.score == pytest.approx(250)
    row, column = found.best
    right, bottom = found.boxes[row, column, 2:]
    assert right > 0.99 and bottom > 0.99 and found.covered == pytest.approx(found.score - found.drops.max())
    assert found.drops[0, 0] == 0 and found.drops[-1, -1] == found.drops.max() > 100
    assert found.place == 1 and found.covered_place == 1  # the others score nothing


class _Rows:
    def __init__(self, rows: torch.Tensor, n_items: int) -> None:
        self.scores = torch.cat([torch.zeros(n_items), rows[:, 0]])

    def block(self, users: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(users), -1)


def test_occlusion_of_a_real_network(runs: Runs) -> None:
    opened = runs.open("ft")
    found = occlude(opened, 2, 7)
    new = item_anew(opened, 7)
    assert found.score == pytest.approx(float(not_none(new.scores)[2]), abs=1e-4)
    assert found.drops.shape == (4, 4) and np.isfinite(found.drops).all() and found.drops.std() > 0
    assert "lies" in answer(runs, State(run="ft", view="what it saw", item=str(opened.item_ids[7]))).view


# --- Similar users, and pictures that words describe


@pytest.mark.parametrize("name", ["ft", "visrank"])
def test_similar_users_are_those_of_brute_force(runs: Runs, name: str) -> None:
    opened, user = runs.open(name), 7
    train = opened.dataset.train
    vectors = np.zeros((train.n_users, train.n_items))
    vectors[np.repeat(np.arange(train.n_users), train.history_lengths), train.items] = 1
    if name == "ft":
        vectors = (opened.scorer.users * opened.scorer.personal()).double().numpy()  # type: ignore[attr-defined]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit[user]
    cosine[user] = -2
    users, cosines, by = similar_users(opened, user, 8)
    assert by == ("learned" if name == "ft" else "purchases") and user not in users and len(users)
    np.testing.assert_allclose(cosines, np.sort(cosine)[::-1][: len(users)], atol=1e-5)
    np.testing.assert_allclose(cosine[users], cosines, atol=1e-5)
    page = answer(runs, State(run=name, view="similar users", user=str(opened.dataset.user_ids[user]))).html
    assert {str(opened.dataset.user_ids[u]) for u in users} <= {state.user for state in links_of(page)}


def test_words_find_the_pictures_that_they_describe(runs: Runs, tmp_path: Path) -> None:
    """By cosine with the words' vector, of what the filters admit; without an image-text encoder nothing is said."""
    plain = answer(runs, State(run="ft", search="a red dress"))
    assert by_meaning(runs.open("ft"), "a red dress") is None and "meaning" not in plain.html

    (tmp_path / "clip").mkdir()
    weights = str(small_open_clip(tmp_path / "clip", 32))
    options = {"n_users": 30, "n_items": 40, "image_size": 32}
    clip_of = {"backbone": "open_clip/someone/small", "weights": weights}
    asked = Request("visrank", dataset="wardrobe", dataset_options=options, **clip_of)  # type: ignore[arg-type]
    dataset, features = asked.load(progress=False)
    train_run(dataset, asked, tmp_path / "runs" / "clip", features=features, progress=False)
    clip = Runs(tmp_path / "runs")
    opened = clip.open("clip")
    words = backbone_of(opened).encode_text(["a red dress"])[0]
    assert opened.features is not None
    expected = torch.cosine_similarity(torch.as_tensor(np.array(opened.features.values)), words, dim=1)
    found = by_meaning(opened, "a red dress")
    assert found is not None
    np.testing.assert_allclose(found[1], expected.sort(descending=True).values, atol=1e-5)
    np.testing.assert_allclose(expected[found[0]], found[1], atol=1e-5)

    category = str(opened.dataset.items["category"][int(found[0][3])])
    page = answer(clip, State(search="a red dress", where=(("category", category),))).html
    hits = page[page.index("Nearest in meaning") : page.index("Close the search")]
    admitted = [int(item) for item in found[0] if opened.dataset.items["category"][int(item)] == category]
    assert items_of(hits) == admitted[:12]

    # Of several sets the pictures' counts, and the words' vector is standardised as the pictures' are.
    raw = np.array(opened.features.values)
    sets = {"look": "pictures", "words": "text"}
    asked = replace(asked, feature_files=sets, feature_options={"standardise": True})
    dataset, features = asked.load(progress=False)
    train_run(dataset, asked, tmp_path / "runs" / "both", features=features, progress=False)
    spread = np.where(raw.std(0) > 0, raw.std(0), 1)
    pictures, query = (torch.as_tensor((vectors - raw.mean(0)) / spread) for vectors in (raw, words.numpy()))
    found = by_meaning(Runs(tmp_path / "runs").open("both"), "a red dress")
    assert found is not None
    np.testing.assert_allclose(torch.cosine_similarity(pictures, query, dim=1)[found[0]], found[1], atol=1e-4)


# --- The widget, without a browser


def test_the_widget_follows_its_address(runs: Runs) -> None:
    page = Explorer(runs, State(run="ft"))
    assert items_of(page.html) == items_of(answer(runs, State(run="ft")).html)
    page.address = State(run="ft", number=3).address()
    assert page.state == State(run="ft", number=3) and page.state.run == "ft"
    assert items_of(page.html) == items_of(answer(runs, page.state).html)
    page.address = "usr=x"
    assert 'role="alert"' in page.html and "did you mean" in page.html


def test_the_last_view_stays_without_a_kernel(runs: Runs) -> None:
    page = Explorer(runs, State(run="ft"))
    page.address = State(run="ft", number=2, view="neighbours").address()
    static = page.static().data
    assert items_of(static) == [i for g in galleries_of("neighbours", runs, page.state) for i in g.items]
    assert "<form" not in static and "imgrec-saved" in static


# --- Share


def test_a_shared_page_has_every_run_and_each_picture_once(runs: Runs) -> None:
    state = State(run="ft", other="visrank", user=str(runs.open("ft").dataset.user_ids[9]))
    page = shared_page(runs, state)
    sections = dict(re.findall(r'<section data-run="([^"]+)"(.*?)</section>', page, re.S))
    assert list(sections)[:2] == ["ft", "visrank"] and len(sections) == 5
    for name, text in sections.items():
        wide = replace(state, run=name, number=40)
        assert items_of(text) == [i for g in galleries_of("recommendations", runs, wide) for i in g.items]
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert len(set(data["pictures"])) == len(data["pictures"]) and page.count("data:image/jpeg") == len(
        data["pictures"]
    )
    used = {int(number) for number in re.findall(r'data-picture="(\d+)"', page)}
    assert used == set(range(len(data["pictures"])))
    assert set(map(int, data["items"])) == set(items_of(page)) and not re.search(r"https?://", page)
