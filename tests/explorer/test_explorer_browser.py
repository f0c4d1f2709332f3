"""The explorer in a real browser: its page by mouse and keyboard, its shared page without a network, its notebook."""

from __future__ import annotations

import io
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import papermill
import pytest
from browser import axe_violations, chromium, explored, jupyterlab, offline_page, run_all_cells
from clips import small_open_clip
from narrow import not_none
from PIL import Image

from imgrec_lib.data.dataset import describe_item
from imgrec_lib.explorer import VIEWS, Runs, State, similar_users, user_of
from imgrec_lib.explorer.item_map import positions_of
from imgrec_lib.explorer.meaning import by_meaning
from imgrec_lib.explorer.ranking import candidates
from imgrec_lib.gallery import Gallery
from imgrec_lib.notebooks import notebook_path
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run

OPTIONS = {"n_users": 60, "n_items": 80, "image_size": 32}
MAP = "run=ft&view=map&colour=category&region=0.1+0.1+0.9+0.2+0.4+0.9"
WHOLE = (-0.014, -0.014, 1.014, 1.014)
"""What is in view of the whole map: a dot on its edge is seen whole."""
DONE = ".imgrec-explorer[aria-busy=false]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs."""
    folder = tmp_path_factory.mktemp("explorer")
    asked = Request("visrank", dataset="wardrobe", dataset_options=OPTIONS, feature_options={"size": 64})
    dataset, features = asked.load(progress=False)
    for name, model, parameters in (("ft", "imgrec-ft", {"epochs": 2, "factors": 8}), ("visrank", "visrank", {})):
        request = replace(asked, model=model, parameters=parameters)
        train_run(dataset, request, folder / "runs" / name, features=features, progress=False)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with explored(folder / "runs") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(120_000)  # other work may share the machine
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.wait_for_selector(f"{DONE} section")
    yield page
    assert not problems
    page.close()


def shown(page: Any, within: str = "section") -> list[int]:
    """The items of the pictures that are shown."""
    figures = page.locator(f".imgrec-explorer {within} figure[data-item]")
    return [int(item) for item in figures.evaluate_all("all => all.map(each => each.dataset.item)")]


def expected(runs: Runs, state: State) -> list[int]:
    return [item for each in VIEWS[state.view](runs, state) if isinstance(each, Gallery) for item in each.items]


def state_of(page: Any) -> State:
    return State.at(urlsplit(page.url).query)


def settle(page: Any, condition: str) -> None:
    """Wait for an answer, which the condition on the page's address recognises."""
    page.wait_for_function(f"() => {condition} && document.querySelector('{DONE}')")


def test_nobody_else_sees_the_page(address: str) -> None:
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    for path in ("/", "/answer", "/share", "/page.js", "/?token=wrong"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://{parts.netloc}{path}")
    other = urllib.request.Request(address, headers={"Host": "example.com"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(other)


def test_the_page_by_mouse_keyboard_and_file(page: Any, folder: Path, tmp_path: Path) -> None:
    runs = Runs(folder / "runs")
    opened = runs.open("ft")
    assert "token" not in page.url and state_of(page) == State(run=runs.best)
    assert shown(page) == expected(runs, state_of(page))
    pictures = page.locator("section img")
    assert pictures.evaluate_all("all => all.every(each => each.naturalWidth > 0 && each.alt.length > 2)")
    # A whole picture of what is recommended is in view at once.
    box = page.locator("section ul").nth(1).locator("img").first.bounding_box()
    assert box["y"] + box["height"] <= 720

    # The next user, by keyboard; then another model, found in the list of runs: the user stays.
    page.locator("[aria-label='the user after']").press("Enter")
    settle(page, "location.search.includes('user=')")
    user = state_of(page).user
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "the user after"
    page.locator("#imgrec-runs > summary").press("Enter")
    page.locator("[data-narrow]").fill("imgrec")
    row = page.locator("#imgrec-run-rows tr:not(.group):visible")
    assert row.count() == 2 and "ImgRec-FT" in row.last.inner_text()
    row.last.locator("a").first.click()
    settle(page, "location.search.includes('run=ft')")
    state = State(run="ft", user=user)
    assert state_of(page) == state and shown(page) == expected(runs, state)

    # A picture opens its item's card; back closes it, forward and a reload bring it again.
    figure = page.locator("section figure[data-item]").nth(8)
    item = str(opened.item_ids[int(figure.get_attribute("data-item"))])
    figure.locator("a").press("Enter")
    page.wait_for_selector("aside h2")
    assert state_of(page) == replace(state, item=item)
    page.go_back()
    page.wait_for_selector("aside", state="detached")
    page.go_forward()
    page.wait_for_selector("aside h2")
    page.reload()
    page.wait_for_selector("aside h2")
    assert item in page.locator("aside dl").last.inner_text() and shown(page) == expected(runs, state_of(page))
    near = page.locator("aside figure a").first
    near.click()
    settle(page, f"!location.search.includes('{item}')")
    page.locator("aside .actions a", has_text="Close").click()
    page.wait_for_selector("aside", state="detached")

    # A filter by a column of the item table, and its end.
    page.locator("#imgrec-filters > summary").click()
    page.locator("select[name='where.category']").select_option(index=1)
    page.wait_for_selector(".chip")
    state = state_of(page)
    assert state.where and shown(page) == expected(runs, state)
    page.keyboard.press("Escape")
    page.locator(".chip").click()
    page.wait_for_selector(".chip", state="detached")

    # Typing shows hits with pictures, and the box keeps the focus.
    name = str(opened.dataset.items["name"][5])
    page.locator("input[name=search]").press_sequentially(name)
    settle(page, "document.querySelector('.hits .title')?.textContent.includes('" + name[-5:] + "')")
    assert opened.dataset.items["name"][shown(page, ".hits")[0]] == name
    assert page.evaluate("document.activeElement.name") == "search"
    page.locator("input[name=search]").fill("")
    page.wait_for_selector(".hits", state="detached")

    # A photograph: first what is none, then one of the catalogue's, which is then its own nearest.
    page.locator("nav a", has_text="New picture").click()
    page.wait_for_selector("[data-upload]")
    content = io.BytesIO()
    assert opened.dataset.images is not None
    Image.fromarray(np.asarray(opened.dataset.images.pixels[33])).save(content, "PNG")
    page.locator("[data-upload]").set_input_files(
        {"name": "yes.png", "mimeType": "image/png", "buffer": content.getvalue()}
    )
    page.wait_for_selector("figure[data-item='-1']")
    assert shown(page)[:2] == [-1, 33]
    page.locator("[data-upload]").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"nothing"})
    page.wait_for_selector("[role=alert]:has-text('choose a JPEG')")


def test_the_map_is_travelled_by_mouse_and_keyboard(page: Any, folder: Path) -> None:
    runs = Runs(folder / "runs")
    opened = runs.open("ft")
    page.goto(f"{page.url.split('?')[0]}?run=ft&view=map&colour=category")
    page.wait_for_selector("#imgrec-map .over .mark")
    assert int(page.locator("#imgrec-map").get_attribute("data-in-view")) == int(
        candidates(opened, user_of(opened, state_of(page)), state_of(page)).sum()
    )
    # It is drawn by deck.gl, from this server, and needs no eval; the pictures of so few items are there at once.
    assert page.evaluate("document.querySelector('#imgrec-map canvas').getContext('webgl2') !== null")
    images = page.locator("#imgrec-map .over img")
    assert images.count() > 10 and images.evaluate_all("all => all.every(each => each.naturalWidth > 0 && each.alt)")
    box = page.locator("#imgrec-map").bounding_box()

    def at(item: int) -> tuple[float, float]:
        left, top, right, bottom = state_of(page).zoom or WHOLE
        x, y = positions_of(opened, state_of(page))[item]
        return (
            box["x"] + float(box["width"] * (x - left) / (right - left)),
            box["y"] + float(box["height"] * (y - top) / (bottom - top)),
        )

    # Hover shows the picture and the name of the dot beneath, a click its card.
    middle = next(int(i) for i in images.evaluate_all("all => all.map(e => e.dataset.item)") if inner(opened, int(i)))
    page.mouse.move(*at(middle))
    page.wait_for_selector("#imgrec-map .tip img")
    assert describe_item(opened.dataset, middle)[0] in page.locator("#imgrec-map .tip").inner_text()
    page.mouse.click(*at(middle))
    page.wait_for_selector("aside h2")
    assert state_of(page).item == str(opened.item_ids[middle])
    page.locator("aside .actions a", has_text="Close").click()
    page.wait_for_selector("aside", state="detached")

    # By keyboard: what is in view stands in the address, survives a reload, and the focus stays.
    page.locator("#imgrec-map").focus()
    page.keyboard.press("+")
    settle(page, "location.search.includes('zoom=')")
    assert np.allclose(state_of(page).zoom, (0.25, 0.25, 0.75, 0.75), atol=0.02)
    page.wait_for_function("document.activeElement.id === 'imgrec-map'")
    page.keyboard.press("ArrowRight")
    settle(page, "location.search.includes('zoom=0.37') || location.search.includes('zoom=0.36')")
    page.reload()
    page.wait_for_selector("#imgrec-map[data-in-view]")
    assert np.allclose(state_of(page).zoom, (0.375, 0.25, 0.875, 0.75), atol=0.02)
    page.locator("#imgrec-map").press("0")
    settle(page, "!location.search.includes('zoom=')")

    # The buttons stand above the map, not on it, and keep the focus.
    page.get_by_role("button", name="Zoom in").press("Enter")
    settle(page, "location.search.includes('zoom=')")
    page.wait_for_function("document.activeElement.innerText === 'Zoom in'")
    assert page.locator(".map-tools").bounding_box()["y"] < page.locator("#imgrec-map").bounding_box()["y"] - 20
    page.get_by_role("button", name="Whole map").click()
    settle(page, "!location.search.includes('zoom=')")

    # A lasso chooses what lies in it, in every view.
    page.get_by_role("button", name="Lasso").click()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 200, y - 150)
    page.mouse.down()
    for dx, dy in ((200, -150), (200, 150), (-200, 150), (-200, -140)):
        page.mouse.move(x + dx, y + dy, steps=6)
    page.mouse.up()
    settle(page, "location.search.includes('region=')")
    state = state_of(page)
    assert len(state.region) > 4 and shown(page) == expected(runs, state)
    page.get_by_role("link", name="Recommend these alone").click()
    settle(page, "!location.search.includes('view=map')")
    assert state_of(page).region == state.region and shown(page) == expected(runs, state_of(page))


def inner(opened: Any, item: int) -> bool:
    """Whether an item lies well within the map."""
    x, y = positions_of(opened, State())[item]
    return bool(0.1 < x < 0.9 and 0.1 < y < 0.9)


def test_similar_users_by_keyboard_alone(page: Any, folder: Path) -> None:
    runs = Runs(folder / "runs")
    for name, how in (("ft", "as ImgRec-FT has learnt them"), ("visrank", "by the purchases that they share")):
        page.goto(f"{page.url.split('?')[0]}?run={name}")
        page.wait_for_selector(f"{DONE} section")
        tab_to(page, "Similar users")
        settle(page, "location.search.includes('similar')")
        assert shown(page) == expected(runs, state_of(page)) and how in page.locator("section").inner_text()
        opened = runs.open(name)
        users, cosines, _ = similar_users(opened, user_of(opened, state_of(page)), 8)
        assert f"similarity {cosines[0]:.3f}" in page.locator("section").inner_text()
        # The first of them, reached by the tab key; the view stays, and is theirs.
        first = str(opened.dataset.user_ids[users[0]])
        tab_to(page, f"User {first}")
        settle(page, f"location.search.includes('{first}')")
        assert state_of(page) == State(run=name, user=first, view="similar users")
        assert shown(page) == expected(runs, state_of(page))
        assert axe_violations(page) == []


def tab_to(page: Any, text: str) -> None:
    """Go to what has a text by the tab key, and press Enter there."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText?.trim()") == text:
            return page.keyboard.press("Enter")
    raise AssertionError(f"the tab key does not reach {text!r}")


@pytest.mark.slow
def test_search_by_meaning_by_keyboard_alone(browser: Any, tmp_path: Path) -> None:
    """Where an image-text encoder made the features, the pictures that words describe are hits, too."""
    (tmp_path / "clip").mkdir()
    weights = str(small_open_clip(tmp_path / "clip", 32))
    asked = Request(
        "visrank", dataset="wardrobe", dataset_options=OPTIONS, backbone="open_clip/someone/small", weights=weights
    )
    dataset, features = asked.load(progress=False)
    train_run(dataset, asked, tmp_path / "runs" / "clip", features=features, progress=False)
    opened = Runs(tmp_path / "runs").open("")
    words = "wedding ceremony"  # no item has one of these
    found = not_none(by_meaning(opened, words))[0]
    with explored(tmp_path / "runs") as address:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector(f"{DONE} section")
        page.keyboard.press("Tab")
        for _ in range(20):
            if page.evaluate("document.activeElement.name") == "search":
                break
            page.keyboard.press("Tab")
        page.keyboard.type(words)
        settle(page, "document.querySelector('.hits')?.innerText.includes('ceremony”, by cosine')")
        assert shown(page, ".hits") == found[:12].tolist()
        assert axe_violations(page) == []
        # The first hit's card is two steps of the tab key away.
        item = str(opened.item_ids[found[0]])
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.hits figure')?.dataset.item") == str(found[0]):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("aside h2")
        assert state_of(page).item == item and state_of(page).search == words
        page.close()


def test_a_busy_state_is_there_at_once(page: Any) -> None:
    page.route("**/answer*", lambda route: page.wait_for_timeout(2500) or route.continue_())
    page.evaluate(
        """() => { const root = document.querySelector('.imgrec-explorer'); window.waited = null;
        const began = performance.now();
        new MutationObserver(() => { window.waited ??= performance.now() - began; }).observe(root, {attributes: true});
        document.querySelector("[aria-label='the user after']").click(); }"""
    )
    page.wait_for_function("window.waited !== null")
    assert page.evaluate("window.waited") < 100
    # What takes long is said to those who see, too.
    page.wait_for_selector("[data-said]:not(.unseen):has-text('is kept for the next')")
    page.wait_for_selector(DONE)
    assert page.locator("[data-said].unseen").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width", "zoom"), [("light", 400, 1), ("dark", 1280, 2)])
def test_no_rule_of_accessibility_is_broken(page: Any, scheme: str, width: int, zoom: int) -> None:
    page.emulate_media(color_scheme=scheme)
    # A zoom of 200 % leaves a page half the pixels in each direction.
    page.set_viewport_size({"width": width // zoom, "height": 720 // zoom})
    item = shown(page)[0]
    for address in (f"item=item-{item:04d}&search=item", "view=users", "run=ft&other=visrank&view=compare", MAP):
        page.goto(f"{page.url.split('?')[0]}?{address}")
        page.wait_for_selector(f"{DONE} section")
        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#imgrec-filters > summary").click()
    assert axe_violations(page) == []
    page.emulate_media(media="print")
    assert page.locator(".bar").is_hidden() and page.locator("section").is_visible()


def test_a_shared_page_filters_sorts_and_goes_from_run_to_run(
    browser: Any, page: Any, folder: Path, tmp_path: Path
) -> None:
    runs = Runs(folder / "runs")
    with page.expect_download() as download:
        page.locator("[data-share]").click()
    path = tmp_path / "shared.html"
    download.value.save_as(path)
    for scheme in ("light", "dark"):
        with offline_page(browser, path, scheme) as (shared, problems):
            for run in ("visrank", "ft"):
                shared.locator("select[name=run]").select_option(run)
                whole = expected(runs, State(run=run, number=40))
                assert shown(shared, "section:not([hidden])") == whole
            assert axe_violations(shared) == [] and not problems
    with offline_page(browser, path) as (shared, problems):
        shared.locator("select[name='where.category']").select_option(index=1)
        category = shared.locator("select[name='where.category']").input_value()
        table = runs.open("ft").dataset.items
        visible = shared.locator("section:not([hidden]) figure:visible")
        items = [int(each) for each in visible.evaluate_all("all => all.map(each => each.dataset.item)")]
        assert items and {str(table["category"][item]) for item in items} == {category}
        shared.locator("select[name='where.category']").select_option("")
        shared.locator("select[name=sort]").select_option("name")
        listed = shared.locator("section:not([hidden]) ul").nth(1).locator("figure")
        names = [table["name"][int(each)] for each in listed.evaluate_all("all => all.map(e => e.dataset.item)")]
        assert names == sorted(names) and len(names) > 20 and not problems


@pytest.mark.slow
def test_the_notebook_shows_the_same_and_keeps_its_last_view(browser: Any, folder: Path) -> None:
    runs = Runs(folder / "runs")
    papermill.execute_notebook(
        str(notebook_path("09_explore")),
        str(folder / "explore.ipynb"),
        parameters={"runs": str(folder / "runs"), "address": "run=ft"},
        prepare_only=True,
        progress_bar=False,
    )
    with jupyterlab(folder) as address:
        page = browser.new_page(viewport={"width": 1500, "height": 1200})
        page.set_default_timeout(60_000)
        page.goto(address.format("explore.ipynb"))
        run_all_cells(page)
        page.wait_for_selector(f"{DONE} section", timeout=120_000)
        assert shown(page) == expected(runs, State(run="ft"))
        page.locator(".imgrec-explorer nav a", has_text="Neighbours").click()
        page.wait_for_selector("section[data-view='neighbours']")
        wanted = expected(runs, State(run="ft", view="neighbours"))
        assert shown(page) == wanted
        # Beside the living widget its last view does not show; it is in the notebook all the same.
        kept = page.locator(".imgrec-saved")
        page.wait_for_function("n => document.querySelectorAll('.imgrec-saved figure').length === n", arg=len(wanted))
        assert not kept.is_visible()
        assert [int(each) for each in re.findall(r'data-item="(-?\d+)"', kept.inner_html())] == wanted
        if "EXPLORER_SCREENSHOTS" in os.environ:
            page.screenshot(path=Path(os.environ["EXPLORER_SCREENSHOTS"]) / "notebook.png")
