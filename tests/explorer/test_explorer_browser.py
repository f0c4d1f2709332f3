"""The explorer in a real JupyterLab: by mouse, by keyboard and by file, on what the page says of itself."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import papermill
import pytest
import yaml
from browser import chromium, jupyterlab, run_all_cells
from PIL import Image

from imgrec_lib.explorer import NOTEBOOK, VIEWS, Runs, State, report, state_of
from imgrec_lib.gallery import Gallery
from imgrec_lib.notebooks import notebook_path
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run

OPTIONS = {"n_users": 60, "n_items": 80, "image_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs and notebook 09 set to show them."""
    folder = tmp_path_factory.mktemp("lab")
    asked = Request("visrank", dataset="wardrobe", dataset_options=OPTIONS, feature_options={"size": 64})
    dataset, features = asked.load(progress=False)
    for name, model, parameters in (("ft", "imgrec-ft", {"epochs": 2, "factors": 8}), ("visrank", "visrank", {})):
        request = replace(asked, model=model, parameters=parameters)
        train_run(dataset, request, folder / "runs" / name, features=features, progress=False)
    papermill.execute_notebook(
        str(notebook_path(NOTEBOOK)),
        str(folder / "explore.ipynb"),
        parameters={"runs": str(folder / "runs"), "run": "ft", "frozen": str(folder / "frozen")},
        prepare_only=True,
        progress_bar=False,
    )
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    with chromium() as browser, jupyterlab(folder) as address:
        page = browser.new_page(viewport={"width": 1500, "height": 1500})
        page.set_default_timeout(60_000)
        page.goto(address.format("explore.ipynb"))
        run_all_cells(page)
        page.wait_for_selector(".imgrec-explorer [role=status][data-view='Recommendations']", timeout=120_000)
        yield page
        if "EXPLORER_SCREENSHOTS" in os.environ:
            page.screenshot(path=Path(os.environ["EXPLORER_SCREENSHOTS"]) / "last.png")


def shown(page: Any, within: str = "") -> list[int]:
    """The items of the pictures in the explorer."""
    figures = page.locator(f".imgrec-explorer section {within} figure[data-item]")
    return [int(item) for item in figures.evaluate_all("all => all.map(each => each.dataset.item)")]


def expected(runs: Runs, view: str, state: State) -> list[int]:
    return [item for each in VIEWS[view].show(runs, state) if isinstance(each, Gallery) for item in each.items]


def view(page: Any, name: str) -> None:
    page.locator(".imgrec-view button", has_text=name).click()
    page.wait_for_selector(f".imgrec-explorer section[data-view='{name}']")


def picture_of(page: Any, name: str) -> None:
    """Keep a screenshot, where someone wants to look."""
    if "EXPLORER_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["EXPLORER_SCREENSHOTS"]) / f"{name}.png")


def test_the_explorer_by_mouse_keyboard_and_file(page: Any, folder: Path, tmp_path: Path) -> None:
    runs = Runs(folder / "runs")
    dataset = runs.open("ft").dataset
    status = page.locator(".imgrec-explorer [role=status]")

    # As it opens: what the library's functions say, with pictures that are there and have a text.
    assert shown(page) == expected(runs, "Recommendations", State(run="ft"))
    pictures = page.locator(".imgrec-explorer section img")
    assert pictures.evaluate_all("all => all.every(each => each.naturalWidth > 0 && each.alt.length > 2)")
    picture_of(page, "recommendations")

    # Choose a user by id.
    user = str(dataset.user_ids[17])
    page.locator(".imgrec-user input").fill(user)
    page.locator(".imgrec-user input").press("Enter")
    page.wait_for_selector(f"[role=status][data-user='{user}']")
    assert shown(page) == expected(runs, "Recommendations", State(run="ft", user=user))

    # Move sliders by keyboard: the number of results, then the user.
    handle = page.locator(".imgrec-number [role=slider]")
    handle.focus()
    for _ in range(3):
        handle.press("ArrowLeft")
    state = State(run="ft", user=user, number=17)
    wanted = expected(runs, "Recommendations", state)
    page.wait_for_function("n => document.querySelectorAll('section figure[data-item]').length === n", arg=len(wanted))
    assert shown(page) == wanted
    page.locator(".imgrec-position [role=slider]").press("ArrowRight")
    after = str(dataset.user_ids[18])
    page.wait_for_selector(f"[role=status][data-user='{after}']")

    # A mistake is a sentence in the page, and no traceback.
    page.locator(".imgrec-user input").fill("nobody")
    page.locator(".imgrec-user input").press("Enter")
    page.wait_for_selector(".imgrec-explorer [role=alert]")
    assert "no user has 'nobody'" in page.locator(".imgrec-explorer [role=alert]").inner_text()
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    page.locator(".imgrec-user input").fill(user)
    page.locator(".imgrec-user input").press("Enter")
    page.wait_for_selector(f"[role=status][data-user='{user}']")

    # Choose a picture by keyboard; its neighbours.
    figure = page.locator(".imgrec-explorer section figure[data-item]").nth(2)
    item = int(figure.get_attribute("data-item"))
    figure.focus()
    figure.press("Enter")
    page.wait_for_selector(f"figure[data-item='{item}'][aria-pressed=true]")
    view(page, "Neighbours")
    state = State(run="ft", user=user, number=17, item=str(dataset.items["item"][item]))
    assert shown(page) == expected(runs, "Neighbours", state)
    picture_of(page, "neighbours")

    # Two models.
    page.locator(".imgrec-view button", has_text="Two models").click()
    page.wait_for_selector(".imgrec-explorer [role=alert]")
    page.locator(".imgrec-other select").select_option(index=1)
    page.wait_for_selector("section[data-view='Two models']")
    state = State(run="ft", other="visrank", user=user, number=17)
    assert shown(page) == expected(runs, "Two models", state)
    picture_of(page, "two-models")

    # Upload: first what is no picture, then one of the catalogue's, which is then its own nearest.
    page.locator(".imgrec-view button", has_text="New picture").click()
    page.wait_for_selector(".imgrec-explorer [role=alert]:has-text('upload')")
    upload(page, "no.png", b"no picture at all")
    page.wait_for_selector(".imgrec-explorer [role=alert]:has-text('broken')")
    assert dataset.images is not None
    content = io.BytesIO()
    Image.fromarray(np.asarray(dataset.images.pixels[33])).save(content, "PNG")
    upload(page, "yes.png", content.getvalue())
    page.wait_for_selector("section[data-view='New picture'] figure[data-item='-1']")
    assert shown(page)[:2] == [-1, 33]
    picture_of(page, "new-picture")

    # The map: a thumbnail by keyboard, then a rectangle by mouse.
    view(page, "Map")
    page.locator(".imgrec-map [data-region]").first.press("Enter")
    page.wait_for_selector("section[data-view='Map'] figure[data-item]")
    box = page.locator(".imgrec-map").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_function("() => document.querySelectorAll('section figure[data-item]').length > 5")
    picture_of(page, "map")
    on_map = shown(page)

    # Freeze: the file holds what is shown, and the report that the command makes shows the same.
    page.locator(".imgrec-freeze").click()
    parameters = Path(page.locator("[data-parameters]").get_attribute("data-parameters"))
    picture_of(page, "frozen")
    state = state_of(yaml.safe_load(parameters.read_text()))
    assert (state.user, state.number, state.other) == (user, 17, "visrank")
    assert expected(runs, "Map", state) == on_map
    command = page.locator(".imgrec-explorer pre[data-command]").inner_text()
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=240)
    static = parameters.with_suffix(".html").read_text(encoding="utf-8")
    everything = [
        item for each in report(runs, state).values() for gallery in each if isinstance(gallery, Gallery)
        for item in gallery.items
    ]  # fmt: skip
    assert [int(item) for item in re.findall(r'data-item="(-?\d+)"', static)] == everything
    assert status.get_attribute("data-run") == "ft"


def upload(page: Any, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator(".imgrec-upload").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})
