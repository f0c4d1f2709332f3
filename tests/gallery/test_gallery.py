"""Galleries: the neighbours in them against brute force, and what each of the three faces must hold."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import not_none
from PIL import Image

from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions, describe_item
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.storing import cached_images
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.gallery import Cell, Gallery, Row, neighbour_gallery, recommendation_gallery, side_by_side
from imgrec_lib.gallery.live import LiveGallery
from imgrec_lib.gallery.png import sheet_size
from imgrec_lib.gallery.thumbnails import thumbnail
from imgrec_lib.models.base import InnerProduct

N_USERS, N_ITEMS = 4, 9
HISTORIES = ([0, 1, 2], [3], [4, 5], [0, 6, 7, 8])
VALIDATION, TEST = [3, 0, 6, -1], [4, 1, 7, -1]
EVIL = "<script>alert(\"x\")</script> & 'more'"


@pytest.fixture
def dataset() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (N_ITEMS, 20, 20, 3), dtype=np.uint8)
    users = np.repeat(np.arange(N_USERS), [len(h) for h in HISTORIES])
    items = np.concatenate(HISTORIES)
    return Dataset(
        name="shop",
        user_ids=np.array(["ann", EVIL, "bob", "eve"]),
        items=pd.DataFrame(
            {
                Columns.ITEM: [f"i{i}" for i in range(N_ITEMS)],
                Columns.NAME: ["red shirt", EVIL, "hat", *[f"thing {i}" for i in range(3, N_ITEMS - 1)], None],
                Columns.CATEGORY: ["tops", "<b>evil</b>", "headwear"] + ["goods"] * (N_ITEMS - 3),
            }
        ),
        train=Interactions.from_pairs(users, items, N_USERS, N_ITEMS, times=np.arange(len(items)) + 100),
        validation=HeldOut(np.array(VALIDATION)),
        test=HeldOut(np.array(TEST)),
        images=ImageStore.from_array(pixels, np.arange(N_ITEMS) != 5),
    )


class Elements(HTMLParser):
    """All start tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_neighbour_gallery(dataset: Dataset) -> None:
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 4))
    shown = neighbour_gallery(dataset, vectors, [2, 0], k=3)
    found = search_neighbours(vectors, [2, 0], 3)
    assert [row.title for row in shown.rows] == ["hat", "red shirt"]
    for row, query, near, cosines in zip(shown.rows, [2, 0], found.items, found.similarity, strict=True):
        assert row.cells[0].item == query and row.cells[0].mark == "query" and row.cells[0].score is None
        assert [cell.item for cell in row.cells[1:]] == near.tolist()
        assert [cell.score for cell in row.cells[1:]] == cosines.tolist()
    with pytest.raises(InputError, match="8 vectors for the 9 items"):
        neighbour_gallery(dataset, vectors[:8], [0])


def test_side_by_side_alternates_rows(dataset: Dataset) -> None:
    rng = np.random.default_rng(1)
    a, b = (
        neighbour_gallery(dataset, rng.normal(size=(N_ITEMS, 4)), [2, 0], 3, title) for title in ("first", "second")
    )
    both = side_by_side("Both", a, b)
    assert [row.title for row in both.rows] == [
        "hat: first", "hat: second", "red shirt: first", "red shirt: second",
    ]  # fmt: skip
    assert both.rows[1].cells == b.rows[0].cells and both.images is dataset.images


def test_recommendation_gallery(dataset: Dataset) -> None:
    rng = np.random.default_rng(2)
    users, items = rng.normal(size=(N_USERS, 3)).astype(np.float32), rng.normal(size=(N_ITEMS, 3)).astype(np.float32)
    scores = users @ items.T
    shown = recommendation_gallery(dataset, InnerProduct(torch.tensor(users), torch.tensor(items)), [0, 1, 2, 3], k=3)
    assert len(shown.rows) == 8
    for user in range(N_USERS):
        history, recommended = shown.rows[2 * user : 2 * user + 2]
        # The latest three purchases; the times ascend with the position in the history.
        assert [cell.item for cell in history.cells] == HISTORIES[user][::-1][:3]
        unseen = sorted(set(range(N_ITEMS)) - set(HISTORIES[user]), key=lambda i: -scores[user, i])
        first = recommended.cells[:3]
        assert [cell.item for cell in first] == unseen[:3]
        np.testing.assert_allclose([not_none(cell.score) for cell in first], scores[user, unseen[:3]], rtol=1e-5)
        marks = {cell.item: cell.mark for cell in recommended.cells if cell.mark}
        if TEST[user] < 0:
            assert "test item" not in recommended.title and not marks and len(recommended.cells) == 3
            continue
        place = unseen.index(TEST[user]) + 1
        assert f"test item is number {place} of {len(unseen)}" in recommended.title
        assert marks[TEST[user]] == "test item"
        assert len(recommended.cells) == (3 if place <= 3 else 4)
        assert recommended.cells[min(place, 4) - 1].item == TEST[user]
        assert (VALIDATION[user] in marks) == (VALIDATION[user] in unseen[:3])
    assert shown.rows[6].title == "User eve bought 4 items, 3 of them shown"


def test_place_of_the_test_item_follows_the_list_when_scores_tie(dataset: Dataset) -> None:
    flat = InnerProduct(torch.ones(N_USERS, 1), torch.ones(N_ITEMS, 1))
    row = recommendation_gallery(dataset, flat, [2], k=7).rows[1]
    place = [cell.item for cell in row.cells].index(TEST[2]) + 1
    assert f"number {place} of 7" in row.title


def test_html_escapes_and_describes(dataset: Dataset) -> None:
    shown = recommendation_gallery(dataset, InnerProduct(torch.ones(N_USERS, 1), torch.ones(N_ITEMS, 1)), [0, 1], k=8)
    text = shown.html(50)
    assert "<script" not in text and "<b>evil" not in text
    elements = Elements(text)
    assert any(EVIL in piece for piece in elements.text)
    assert any(f"User {EVIL} bought" in piece for piece in elements.text)
    pictures = elements.of("img")
    cells = [cell for row in shown.rows for cell in row.cells]
    assert len(pictures) == sum(cell.item != 5 for cell in cells)
    assert [p["alt"] for p in pictures] == [cell.alt for cell in cells if cell.item != 5]
    assert "red shirt, tops" in {p["alt"] for p in pictures}
    assert "i8" in {p["alt"].split(",")[0] for p in pictures if p["alt"]}
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in pictures if p["src"])
    assert "(no picture)" in text
    assert not re.search(r"https?://", text)


def test_a_category_is_said_once(dataset: Dataset) -> None:
    named = {
        ("maxi dress (dresses)", "dresses"): ("maxi dress",),
        ("pumps (women's shoes)", "women's shoes"): ("pumps (women's shoes)",),
        ("Jade trousers", "Trousers"): ("Jade trousers",),
        ("a red dress", "Dress"): ("a red dress",),
        ("Claudine", "Trousers"): ("Claudine", "Trousers"),
    }
    for number, (name, category) in enumerate(named):
        dataset.items.loc[number, [Columns.NAME, Columns.CATEGORY]] = name, category
    assert [describe_item(dataset, number) for number in range(len(named))] == list(named.values())


def test_alternative_text_says_all_that_the_cell_says() -> None:
    assert Cell(3, ("Red shirt", "tops"), 0.93456, "test item").alt == "Red shirt, tops, score 0.935, test item"
    assert Cell(3, ("Red shirt",)).alt == "Red shirt"


def test_html_holds_the_pictures_themselves(dataset: Dataset) -> None:
    text = Gallery("One", (Row("row", (Cell(2, ("hat",)),)),), dataset.images).html(10)
    data = Elements(text).of("img")[0]["src"]
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))) as image:
        assert image.size == (20, 20)
        assert dataset.images is not None
        difference = np.asarray(image, float).mean((0, 1)) - dataset.images.pixels[2].mean((0, 1))
    assert np.abs(difference).max() < 6


@pytest.fixture
def tall(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """Pictures of which one is twice as tall as wide and one twice as wide as tall, stored as squares."""
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / "tall.png", tmp_path / "wide.png", tmp_path / "missing.png"]
    Image.new("RGB", (60, 120), "red").save(paths[0])
    Image.new("RGB", (120, 60), "blue").save(paths[1])
    with pytest.warns(UserWarning, match="1 of 3"):
        return cached_images("tall", paths, ["a", "b", "c"], size=16, progress=False)


def sizes_in(text: str) -> list[tuple[int, int]]:
    found = []
    for source in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text):
        with Image.open(io.BytesIO(base64.b64decode(source))) as image:
            found.append(image.size)
    return found


def test_pictures_keep_their_proportions(tall: ImageStore, tmp_path: Path) -> None:
    assert tall.pixels.shape == (3, 16, 16, 3)
    cells = tuple(Cell(item, (name,)) for item, name in enumerate(["tall", "wide", "missing"]))
    shown = Gallery("Own", (Row("row", cells),), tall)
    text = shown.html(40)
    assert sizes_in(text) == [(40, 80), (80, 40)]
    # All frames have the height of the tallest picture, but at most one and a half times the width.
    assert re.findall(r"width:40px;height:(\d+)px", text) == ["60"] * 3
    with Image.open(shown.png(tmp_path / "own.png", 40)) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    for column, ratio, colour in ((0, 2.0, (255, 0, 0)), (1, 0.5, (0, 0, 255))):
        left = 16 + column * 50
        rows, columns = np.nonzero(np.abs(pixels[:, left : left + 40] - colour).max(-1) < 40)
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(ratio, rel=0.15)


def test_a_thumbnail_is_made_once_and_outlives_its_file(tall: ImageStore, tmp_path: Path) -> None:
    first = thumbnail(tall, 0, 50)
    (kept,) = (tmp_path / "cache" / "thumbnails").rglob("0.jpg")
    assert kept.read_bytes() == first
    (tmp_path / "tall.png").unlink()
    thumbnail.cache_clear()
    assert thumbnail(tall, 0, 50) == first
    # In a size that nobody has made before the stored square stands in, not enlarged.
    with Image.open(io.BytesIO(thumbnail(tall, 0, 48))) as image:
        assert image.size == (16, 16)


def test_no_line_holds_one_picture_alone(dataset: Dataset) -> None:
    cells = tuple(Cell(item, (f"item {item}",)) for item in range(4))
    text = Gallery("Four", (Row("row", cells),), dataset.images).html()
    assert [each.count("<figure") for each in re.findall(r"<li>.*?</li>", text, re.S)] == [1, 1, 2]


def test_a_picture_leads_where_it_is_told_to(dataset: Dataset) -> None:
    cells = (Cell(2, ("hat",)), Cell(-1, ("yours",), picture=np.zeros((9, 9, 3), np.uint8)))
    shown = Gallery("Links", (Row("row", cells),), dataset.images)
    assert Elements(shown.html(link=lambda item: f"?item={item}&x=<")).of("a") == [{"href": "?item=2&x=<"}]
    assert not Elements(shown.html()).of("a")


def test_style_can_be_left_to_the_page(dataset: Dataset) -> None:
    shown = neighbour_gallery(dataset, np.eye(N_ITEMS), [0], 2)
    assert "<style>" in shown._repr_html_() and "<style>" not in shown.html(style=False)


def test_without_images_text_stands_in_their_place(dataset: Dataset, tmp_path: Path) -> None:
    bare = Gallery("Bare", (Row("row", (Cell(0, ("red shirt", "tops"), 0.5, "query"),)),), None)
    elements = Elements(bare.html())
    assert not elements.of("img") and "red shirt" in elements.text
    with Image.open(bare.png(tmp_path / "bare.png")) as image:
        assert image.size == sheet_size(bare.rows)


@pytest.mark.parametrize("size", [32, 80])
def test_contact_sheet(dataset: Dataset, tmp_path: Path, size: int) -> None:
    shown = neighbour_gallery(dataset, np.random.default_rng(0).normal(size=(N_ITEMS, 4)), [1, 4], 5)
    path = shown.png(tmp_path / "sheets" / "sheet.png", size)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == sheet_size(shown.rows, dataset.images, size)
        assert image.width == 2 * 16 + 6 * (size + 10) - 10
        # The query's picture stands in the first column.
        assert dataset.images is not None
        drawn = np.asarray(image.convert("RGB"))
        expected = np.asarray(dataset.images.thumbnail(1, size))[3:-3, 3:-3]
        column = drawn[:, 16 + 3 : 16 + size - 3]
        assert any((column[y : y + len(expected)] == expected).all() for y in range(image.height - len(expected)))


def test_contact_sheet_of_odd_content(tmp_path: Path) -> None:
    odd = Gallery("x" * 500, (Row("", ()), Row("Ünïcode, 日本", (Cell(0, (EVIL * 3, ""), 1.0, "m" * 99),))), None)
    with Image.open(odd.png(tmp_path / "odd.png")) as image:
        assert image.size == sheet_size(odd.rows)


def test_widget_follows_its_slider(dataset: Dataset) -> None:
    shown = neighbour_gallery(dataset, np.eye(N_ITEMS), [0], 2)
    slider, view = LiveGallery(shown).children
    assert view.html == shown.html(96)
    slider.value = 64
    assert view.html == shown.html(64) != shown.html(96)


def test_widget_carries_its_static_face(dataset: Dataset) -> None:
    shown = neighbour_gallery(dataset, np.eye(N_ITEMS), [0], 2)
    bundle = LiveGallery(shown)._repr_mimebundle_()
    assert bundle["text/html"] == shown.html()
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_every_cell_says_which_item_it_is(dataset: Dataset) -> None:
    shown = neighbour_gallery(dataset, np.eye(N_ITEMS), [0, 5], 2)
    figures = Elements(shown.html()).of("figure")
    assert [int(figure["data-item"] or "") for figure in figures] == shown.items
    assert [figure.get("data-mark", "") for figure in figures] == [c.mark for row in shown.rows for c in row.cells]


def test_parts_of_a_score_are_shown_and_said(dataset: Dataset, tmp_path: Path) -> None:
    cell = Cell(0, ("red shirt",), 0.25, parts=(("id", -0.25), ("picture & more", 0.5)))
    assert cell.alt == "red shirt, score 0.250, id -0.250, picture & more +0.500"
    shown = Gallery("Why", (Row("row", (cell,)),), dataset.images)
    text = shown.html()
    # One bar: the axis stands at a third, a quarter lowers to its left, and a half raises to its right.
    bars = re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%;background:(#\w+)">', text)
    assert [(left, width) for left, width, _ in bars] == [("0.0", "33.3"), ("33.3", "66.7")]
    legend = re.findall(r'<span><i style="background:(#\w+)"></i>([^<]+)</span>', text)
    assert legend == [(bars[0][2], "id"), (bars[1][2], "picture &amp; more")] and bars[0][2] != bars[1][2]
    with Image.open(shown.png(tmp_path / "why.png")) as image:
        assert image.size == sheet_size(shown.rows)


def test_a_picture_of_no_item_is_shown(dataset: Dataset, tmp_path: Path) -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    shown = Gallery("New", (Row("row", (Cell(-1, ("yours",), picture=red),)),), dataset.images)
    data = Elements(shown.html(10)).of("img")[0]["src"]
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))) as image:
        assert np.abs(np.asarray(image, float).mean((0, 1)) - [255, 0, 0]).max() < 6
    with Image.open(shown.png(tmp_path / "new.png", 32)) as sheet:
        assert (np.asarray(sheet.convert("RGB")) == [255, 0, 0]).all(-1).sum() > 25 * 25


def test_repr_is_short(dataset: Dataset) -> None:
    assert repr(neighbour_gallery(dataset, np.eye(N_ITEMS), [0, 1], 2)) == "Gallery('Nearest items', 2 rows, 6 items)"
