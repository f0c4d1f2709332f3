"""Make the pictures of docs/explore.md: each view of the explorer for the first user with a test item.

python tests/screenshots.py            # trains three small models, once: those of notebook 9
python tests/screenshots.py runs       # what make reproduce has made
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from browser import chromium, explored, offline_page
from PIL import Image, ImageColor

from imgrec_lib.explorer import Runs, State, example_runs, rank, shared_page, user_of
from imgrec_lib.gallery.html import PART_COLOURS

DOCS = Path(__file__).parent.parent / "docs"
MODELS = ("imgrec-ft", "bpr-mf", "visrank")
DONE = ".imgrec-explorer[aria-busy=false] section"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, help="folder of runs")
    folder = parser.parse_args().runs or example_runs(MODELS)
    runs = Runs(folder)
    seeing, other = (
        next(name for name, run in sorted(runs.by_name.items()) if run.record.model == model and not run.record.control)
        for model in MODELS[:2]
    )
    state = State(run=seeing)
    opened = runs.open(seeing)
    best = rank(opened, user_of(opened, state), state).items
    views: dict[str, dict[str, Any]] = {
        "explorer": {},
        "explorer-search": {"search": "dotted dress"},
        "explorer-card": {"item": str(opened.item_ids[best[0]])},
        "explorer-users": {"view": "users"},
        "explorer-compare": {"view": "compare", "other": other},
        "explorer-map": {"view": "map", "colour": "category", "zoom": (0.3, 0.35, 0.6, 0.65)},
        "explorer-saw": {"view": "what it saw"},
        "explorer-similar": {"view": "similar users"},
        "explorer-neighbours": {"view": "neighbours", "item": str(opened.item_ids[best[0]])},
        "explorer-new": {"view": "new picture", "item": str(opened.item_ids[best[0]])},
    }
    with chromium() as browser, explored(folder) as address, tempfile.TemporaryDirectory() as scratch:
        page = browser.new_page(viewport={"width": 1200, "height": 820}, color_scheme="light")
        page.set_default_timeout(300_000)
        page.goto(address)
        page.wait_for_selector(DONE)
        for name, changes in views.items():
            page.goto(f"{page.url.split('?')[0]}?{state.address(**changes)}")
            page.wait_for_selector(DONE)
            if name == "explorer-map":
                page.wait_for_selector("#imgrec-map .over img")
            keep(page.screenshot(), name)
        path = Path(scratch) / "shared.html"
        path.write_text(shared_page(runs, state), encoding="utf-8")
        with offline_page(browser, path, width=1200) as (shared, _):
            keep(shared.screenshot(clip={"x": 0, "y": 0, "width": 1200, "height": 820}), "explorer-shared")


def keep(picture: bytes, name: str) -> None:
    """Write a picture with a palette, which keeps the file below 200 kB, and say how large it is."""
    path = DOCS / f"{name}.png"
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    # Those of the bars and legends are too few pixels for a place of their own.
    colours = image.quantize(248, kmeans=2).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colours[: 3 * 248], *(part for name in PART_COLOURS for part in ImageColor.getrgb(name))])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
