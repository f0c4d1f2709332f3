"""Pages in a real browser with the network off; tests that use it are skipped where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """A playwright browser; the test is skipped, with a reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'imgrec[browser]'")
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not path:
        pytest.skip("needs a browser: no chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextmanager
def offline_page(browser: Any, path: Path, scheme: str = "light", width: int = 1280) -> Iterator[tuple[Any, list[str]]]:
    """A local page without network, and the list of what it asked for beyond itself and of what went wrong.

    Args:
        browser: see `chromium`.
        path: the page.
        scheme: "light" or "dark".
        width: of the window, in CSS pixels.
    """
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    try:
        page = context.new_page()
        problems: list[str] = []
        address = path.resolve().as_uri()
        page.on("request", lambda r: None if r.url == address or r.url[:5] == "data:" else problems.append(r.url))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        yield page, problems
    finally:
        context.close()


def axe_violations(page: Any) -> list[str]:
    """What axe-core, which comes inside the Python package, finds wrong: rule, and the first elements it is about."""
    missing = "needs axe-core: pip install 'imgrec[browser]'"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=missing)
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in found
    ]
