"""The explorer in a real browser: its page by mouse and keyboard, its shared page without a network, its notebook."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
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
from browser import axe_violations, chromium, jupyterlab, offline_page, run_all_cells
from PIL import Image

from imgrec_lib.explorer import VIEWS, Runs, State
from imgrec_lib.gallery import Gallery
from imgrec_lib.notebooks import notebook_path
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run

OPTIONS = {"n_users": 60, "n_items": 80, "image_size": 32}
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
    """What `imgrec explore` prints for these runs."""
    command = [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "explore", str(folder / "runs")]
    command += ["--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
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


def test_a_busy_state_is_there_at_once(page: Any) -> None:
    page.route("**/answer*", lambda route: page.wait_for_timeout(300) or route.continue_())
    page.evaluate(
        """() => { const root = document.querySelector('.imgrec-explorer'); window.waited = null;
        const began = performance.now();
        new MutationObserver(() => { window.waited ??= performance.now() - began; }).observe(root, {attributes: true});
        document.querySelector("[aria-label='the user after']").click(); }"""
    )
    page.wait_for_function("window.waited !== null")
    assert page.evaluate("window.waited") < 100
    page.wait_for_selector(DONE)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width", "zoom"), [("light", 400, 1), ("dark", 1280, 2)])
def test_no_rule_of_accessibility_is_broken(page: Any, scheme: str, width: int, zoom: int) -> None:
    page.emulate_media(color_scheme=scheme)
    # A zoom of 200 % leaves a page half the pixels in each direction.
    page.set_viewport_size({"width": width // zoom, "height": 720 // zoom})
    item = shown(page)[0]
    for address in (f"item=item-{item:04d}&search=item", "view=users", "run=ft&other=visrank&view=compare"):
        page.goto(f"{page.url.split('?')[0]}?{address}")
        page.wait_for_selector(f"{DONE} section")
        assert axe_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#imgrec-filters > summary").click()
    assert axe_violations(page) == []


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
