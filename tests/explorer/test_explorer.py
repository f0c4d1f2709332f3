"""The explorer without a browser: lists, reasons and places against brute force; a frozen view against a live one."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conformance import CARDS, randomised, small
from narrow import not_none
from PIL import Image
from toy import N_ITEMS, N_USERS, best_items, toy_data

from imgrec_lib.data.dataset import Columns
from imgrec_lib.errors import InputError
from imgrec_lib.explorer import (
    NOTEBOOK,
    POPULARITY,
    SEEN,
    USER_ORDERS,
    VIEWS,
    Explorer,
    ItemMap,
    Runs,
    State,
    find_item,
    find_user,
    freeze,
    keep_picture,
    new_item,
    project,
    rank,
    read_picture,
    report,
    score_parts,
    state_of,
    user_order,
)
from imgrec_lib.explorer import views as views_module
from imgrec_lib.explorer.ranking import user_scores
from imgrec_lib.gallery import Gallery
from imgrec_lib.models.base import (
    AttributeAttention,
    Extensible,
    PictureEmbedding,
    PurchaseParts,
    Recommender,
    ScoreParts,
)
from imgrec_lib.notebooks import notebook_parameters, notebook_path
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run
from imgrec_lib.serving import Trained

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
def picture(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of item 7, as a file."""
    images = runs.open("ft").dataset.images
    assert images is not None
    return keep_picture(np.asarray(images.pixels[7]), tmp_path_factory.mktemp("pictures"))


# --- What models say of their scores


EXPLAINED = [name for name, card in CARDS.items() if hasattr(card.build, "contributions")]
SEEING = [name for name, card in CARDS.items() if hasattr(card.build, "embed_pictures")]


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
    if name == "two-tower":  # a new item has no id, not an average one
        assert isinstance(model, ScoreParts)
        parts = model.contributions(users, torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS))
        known = parts["picture"] + parts["picture: offset"]
    present = torch.as_tensor(data.images.present)  # a missing picture has zero features here
    torch.testing.assert_close(both[:, N_ITEMS:][:, present], known[:, present], rtol=2e-3, atol=2e-3)


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


def test_runs_share_their_data_and_are_opened_once(runs: Runs) -> None:
    first = runs.open("ft")
    assert runs.open("ft") is first and runs.open("bpr").dataset is first.dataset
    assert runs.open("").run.name == next(iter(runs.by_name))
    (group,) = runs.datasets.values()
    assert {run.name for run in group} == set(RUNS)
    with pytest.raises(InputError, match="unknown run 'mixd': did you mean 'mixed'"):
        runs.open("mixd")
    with pytest.raises(InputError, match="unknown run in"):
        Runs(runs.folder, ["nothing"])
    assert list(Runs(runs.folder, ["bpr"]).by_name) == ["bpr"]


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
        found = rank(opened, user, State(seen=seen, popularity=popularity, category=wanted))
        assert found.items.tolist() == expected
        assert [found.places[item] for item in expected] == list(range(1, len(expected) + 1))
        assert np.count_nonzero(found.places) == len(expected)


def test_ties_go_by_index_and_an_unknown_category_is_refused(runs: Runs) -> None:
    opened = runs.open("visrank")
    flat = Trained(_Flat(opened.dataset.n_items), opened.dataset, opened.features, opened.run, "Flat")
    assert rank(flat, 0, State(seen="all")).items.tolist() == list(range(opened.dataset.n_items))
    with pytest.raises(InputError, match="unknown category of wardrobe"):
        rank(opened, 0, State(category="furniture"))


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
    """What a view shows that shows galleries alone."""
    shown = list(VIEWS[view].show(runs, state))
    galleries = [each for each in shown if isinstance(each, Gallery)]
    assert galleries == shown
    return galleries


def test_recommendations(runs: Runs) -> None:
    opened = runs.open("ft")
    for user in (0, 11):
        state = State(run="ft", user=opened.dataset.user_ids[user], number=6)
        (gallery,) = galleries_of("Recommendations", runs, state)
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
    _, because = galleries_of("Recommendations", runs, state)
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
    (gallery,) = galleries_of("Two models", runs, state)
    _, only_first, only_second, both = ([cell.item for cell in row.cells] for row in gallery.rows)
    user = int((runs.open("ft").dataset.test.items >= 0).argmax())
    a, b = (rank(runs.open(name), user, state) for name in ("ft", "visrank"))
    assert set(only_first) == set(a.items[:10].tolist()) - set(b.items[:10].tolist())
    assert set(only_second) == set(b.items[:10].tolist()) - set(a.items[:10].tolist())
    assert set(both) == set(b.items[:10].tolist()) & set(a.items[:10].tolist())
    for cell in gallery.rows[1].cells:
        assert cell.caption[-1] == f"number {a.places[cell.item]} ({b.places[cell.item]})"
    with pytest.raises(InputError, match="need a second run"):
        galleries_of("Two models", runs, State(run="ft"))


def test_neighbours_in_every_space(runs: Runs) -> None:
    opened = runs.open("ete")
    dataset = opened.dataset
    item = int(dataset.train.popularity.argmax())
    state = State(run="ete", other="bpr", item=dataset.items[Columns.ITEM][item], number=5)
    (gallery,) = galleries_of("Neighbours", runs, state)
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
        galleries_of("Two models", both, State(run="ft", other="other-data"))
    (gallery,) = galleries_of("Recommendations", both, State(run="other-data"))
    assert not any(cell.parts for row in gallery.rows for cell in row.cells)
    with pytest.raises(InputError, match="no vectors"):
        VIEWS["Map"].show(both, State(run="other-data"))


# --- Cold start


@pytest.mark.parametrize("name", ["ft", "ete", "visrank", "mixed"])
def test_a_new_picture_is_placed_as_brute_force_places_it(runs: Runs, picture: Path, name: str) -> None:
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
    galleries = galleries_of("New picture", runs, State(run=name, picture=str(picture), number=3))
    by_picture = galleries[0].rows[1]
    assert by_picture.cells[0].item == 7 and by_picture.cells[0].score == pytest.approx(1, abs=1e-3)
    order = [int(row.title.split("number ")[1].replace(",", "")) for row in galleries[2].rows]
    assert order == sorted(new.places)[:5]


def test_a_model_of_ids_alone_says_so(runs: Runs, picture: Path) -> None:
    galleries = galleries_of("New picture", runs, State(run="bpr", picture=str(picture)))
    assert galleries[0].rows[1].cells[0].item == 7
    assert "BPR-MF cannot score an item by its picture" in galleries[-1].title
    with pytest.raises(InputError, match="upload a photograph first"):
        galleries_of("New picture", runs, State(run="bpr"))


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
    pixels = read_picture(opened, photo.getvalue())
    assert pixels.shape == (32, 32, 3)
    kept = keep_picture(pixels, tmp_path)
    assert kept.suffix == ".png"
    np.testing.assert_array_equal(read_picture(opened, kept), pixels)


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


def test_map_holds_what_was_chosen(runs: Runs) -> None:
    opened = runs.open("ft")
    state = State(run="ft", region=(0.25, 0.0, 0.75, 0.5), number=4)
    shown, chosen = VIEWS["Map"].show(runs, state)
    assert isinstance(shown, ItemMap) and isinstance(chosen, Gallery)
    x, y = shown.positions.T
    owned = opened.dataset.train.of(0)
    inside = [i for i in range(80) if 0.25 <= x[i] <= 0.75 and y[i] <= 0.5 and i not in owned]
    assert sorted(shown.inside().tolist()) == inside and inside
    assert chosen.items == sorted(inside, key=lambda i: -user_scores(opened, 0)[i])[:4]
    text = shown.html()
    regions = [tuple(map(float, r.split())) for r in re.findall(r'data-region="([^"]+)"', text)]
    assert regions and len(set(regions)) == len(regions)
    for left, top, right, bottom in regions:
        in_cell = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        assert in_cell[shown.shown].any()
    assert text.count("<img ") == text.count(' alt="') == len(regions)
    (whole,) = VIEWS["Map"].show(runs, replace(state, region=()))
    assert isinstance(whole, ItemMap) and whole.inside().size == 0


def test_map_escapes_names() -> None:
    evil = "<script>alert(1)</script>"
    store = np.zeros((3, 8, 8, 3), np.uint8)
    from imgrec_lib.data.images import ImageStore

    positions = np.array([[0, 0], [0.5, 0.5], [1, 1]])
    shown = ItemMap(evil, positions, np.arange(3), np.array([evil] * 3), ImageStore.from_array(store))
    assert "<script" not in shown.html() and html.escape(evil) in shown.html()


# --- State and freezing


@pytest.mark.parametrize(
    "wrong",
    [
        {"seen": "unseen"},
        {"popularity": "hot"},
        {"number": 0},
        {"region": [0, 1]},
        {"region": [0, 0, 1, 2]},
        {"space": "x"},
    ],
)
def test_a_wrong_state_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        State(**wrong)  # type: ignore[arg-type]


def test_the_state_is_the_notebooks_parameters() -> None:
    parameters = notebook_parameters(NOTEBOOK)
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert state_of(defaults) == State()
    assert set(parameters) - set(State.__dataclass_fields__) == {"runs", "root", "only", "static", "frozen"}


def test_a_frozen_view_becomes_a_report_with_the_same_pictures(runs: Runs, picture: Path, tmp_path: Path) -> None:
    dataset = runs.open("ft").dataset
    state = State(
        run="ft",
        other="visrank",
        user=str(dataset.user_ids[9]),
        number=7,
        category=str(dataset.items[Columns.CATEGORY][4]),
        seen="all",
        picture=str(picture),
        region=(0.2, 0.2, 0.9, 0.9),
    )
    frozen = freeze(state, runs.folder, notebook_path(NOTEBOOK), tmp_path / "kept here")
    parameters = yaml.safe_load(frozen.parameters.read_text())
    kept = Path(parameters["picture"])
    assert kept.parent == tmp_path / "kept here" and kept.read_bytes() == picture.read_bytes()
    assert state_of(parameters) == replace(state, picture=str(kept))
    subprocess.run(frozen.command, shell=True, check=True, capture_output=True, timeout=240)
    page = frozen.page.read_text(encoding="utf-8")
    expected = [
        each.items for galleries in report(runs, state).values() for each in galleries if isinstance(each, Gallery)
    ]
    assert [int(item) for item in re.findall(r'data-item="(-?\d+)"', page)] == [i for items in expected for i in items]
    assert 'class="imgrec-map"' in page and "application/vnd.jupyter.widget" not in page
    assert freeze(state_of(parameters), runs.folder, notebook_path(NOTEBOOK), tmp_path / "again").command


# --- The page, without a browser


@pytest.fixture
def page(runs: Runs, tmp_path: Path) -> Explorer:
    return Explorer(runs, State(run="ft"), notebook_path(NOTEBOOK), tmp_path)


def items_of(page: Explorer) -> list[int]:
    return [int(item) for item in re.findall(r'data-item="(-?\d+)"', page.pictures.html)]


def test_the_page_shows_the_state(page: Explorer, runs: Runs) -> None:
    assert items_of(page) == galleries_of("Recommendations", runs, State(run="ft"))[0].items
    page.controls["order"].value = "worst served"
    opened = runs.open("ft")
    worst_served = user_order(opened, "worst served")
    worst = str(opened.dataset.user_ids[worst_served[0]])
    assert page.state.user == worst and page.controls["user"].value == worst
    page.controls["position"].value = 4
    assert page.state.user == opened.dataset.user_ids[worst_served[3]]
    assert f'data-user="{page.state.user}"' in page.status.value
    page.controls["number"].value = 5
    assert items_of(page) == galleries_of("Recommendations", runs, page.state)[0].items
    page.controls["view"].value = "Two models"
    assert 'role="alert"' in page.alert.value and "second run" in page.alert.value and not page.pictures.html
    page.controls["other"].value = "visrank"
    assert not page.alert.value
    assert items_of(page) == galleries_of("Two models", runs, page.state)[0].items
    page.controls["view"].value = "Neighbours"
    page.pictures.chosen = 12
    assert page.state.item == opened.dataset.items[Columns.ITEM][12] and items_of(page)[0] == 12
    page.controls["view"].value = "Map"
    page.pictures.region = [0.0, 0.0, 1.0, 1.0]
    assert page.state.region == (0, 0, 1, 1) and len(items_of(page)) == 5


def test_a_photograph_is_uploaded_and_an_item_taken(page: Explorer, runs: Runs, tmp_path: Path) -> None:
    page.controls["view"].value = "New picture"
    assert "upload a photograph" in page.alert.value
    page.controls["upload"].value = [_upload(b"not a picture")]
    assert "broken" in page.alert.value and "Traceback" not in page.alert.value
    photo = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(photo, "JPEG")
    page.controls["upload"].value = [_upload(photo.getvalue())]
    assert not page.alert.value and items_of(page)[0] == -1
    page.controls["item"].value = runs.open("ft").dataset.items[Columns.ITEM][7]
    page.controls["take"].click()
    assert items_of(page)[:2] == [-1, 7]
    page.controls["freeze"].click()
    (written,) = tmp_path.glob("*.yaml")
    assert str(written) in page.frozen.value and "papermill" in page.frozen.value
    assert state_of(yaml.safe_load(written.read_text())).user == page.state.user


def _upload(content: bytes) -> dict[str, object]:
    return {
        "name": "x.jpg",
        "type": "image/jpeg",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.now(UTC),
    }


def test_what_has_not_changed_is_not_made_again(page: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name, view in VIEWS.items():

        def counted(*arguments: object, view: views_module.View = view, name: str = name) -> object:
            calls.append(name)
            return view.show(*arguments)  # type: ignore[arg-type]

        monkeypatch.setitem(views_module.VIEWS, name, replace(view, show=counted))  # type: ignore[arg-type]
    page.controls["space"].value = "picture"
    page.controls["projection"].value = "pca"
    page.controls["other"].value = "bpr"
    assert calls == []
    page.controls["number"].value = 4
    assert calls == ["Recommendations"]
    page.controls["view"].value = "Map"
    assert calls == ["Recommendations", "Map"]


def test_any_failure_is_a_sentence(page: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("first line\nsecond <b>line</b>")

    monkeypatch.setitem(views_module.VIEWS, "Map", replace(VIEWS["Map"], show=fails))  # type: ignore[arg-type]
    page.controls["view"].value = "Map"
    assert "RuntimeError: first line second &lt;b&gt;line" in page.alert.value
    page.controls["user"].value = "nobody"
    assert "no user has 'nobody'" in html.unescape(page.alert.value)
    page.controls["view"].value = "Recommendations"
    assert not page.alert.value and items_of(page)


def test_the_page_carries_a_static_face(page: Explorer) -> None:
    assert page.pictures.html in page._repr_mimebundle_()["text/html"]


def test_a_change_of_dataset_leads_to_its_runs(runs: Runs, tmp_path: Path) -> None:
    request = replace(REQUEST, dataset_options={"n_users": 40, "n_items": 40, "image_size": 32})
    dataset, _ = request.load(progress=False)
    train_run(dataset, request, tmp_path / "other-data", progress=False)
    shutil.copytree(runs.folder / "ft", tmp_path / "ft")
    page = Explorer(Runs(tmp_path), State(run="ft", user=""), notebook_path(NOTEBOOK), tmp_path)
    first, second = page.controls["dataset"].options
    page.controls["dataset"].value = second if page.controls["dataset"].value == first else first
    assert page.state.run == "other-data" and not page.alert.value
    assert [value for _, value in page.controls["run"].options] == ["other-data"]
