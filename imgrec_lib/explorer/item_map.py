"""The catalogue as a map: where each item lies, and the map as HTML, with thumbnails where there is room for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.explorer.state import State
from imgrec_lib.extras import require
from imgrec_lib.gallery.thumbnails import thumbnail_uri
from imgrec_lib.options import Array, Count
from imgrec_lib.serving import Trained

STYLE = """\
.imgrec-map-title { margin: 1em 0 .4em; font: 13px/1.35 system-ui, sans-serif; color: inherit; }
.imgrec-map { position: relative; width: 960px; max-width: 100%; aspect-ratio: 12 / 7; overflow: hidden;
  border: 1px solid rgba(128, 128, 128, .4); border-radius: 6px; background: #fff; }
.imgrec-map svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.imgrec-map .thumbnail { position: absolute; width: 3.75%; transform: translate(-50%, -50%); margin: 0; }
.imgrec-map .thumbnail img { display: block; width: 100%; border-radius: 3px; }
.imgrec-map .region { stroke: #0b5cad; stroke-width: 2; fill: rgba(11, 92, 173, .12); }
"""
COLUMNS, ROWS = 24, 14

_MAP = Markup(
    '<style>{style}</style>\n<p class="imgrec-map-title">{title}</p>\n<div class="imgrec-map">'
    '<svg viewBox="0 0 960 560" preserveAspectRatio="none" aria-hidden="true">'
    '<path d="{dots}" stroke="#8b949e" stroke-width="3" stroke-linecap="round"/>{chosen}</svg>{thumbnails}</div>\n'
)
_LIVE = Markup(
    '<style>{style}</style>\n<p class="imgrec-map-title">{title}</p>\n<div class="imgrec-map" data-points="{points}" '
    'data-region="{region}" data-zoom="{zoom}" data-colours="{colours}" data-marks="{marks}"></div>\n'
)
_THUMBNAIL = Markup('<figure class="thumbnail" style="{style}" title="{alt}"><img src="{source}" alt="{alt}"></figure>')


def project(vectors: Annotated[Tensor | np.ndarray, Array(2)], method: str = "pca") -> np.ndarray:
    """Positions of items on a plane.

    Args:
        vectors: (n_items, d) floats.
        method: "pca", the first two principal components, or "umap" (by cosine; package umap-learn).

    Returns:
        (n_items, 2) float32 from 0 to 1; the outermost 0.5 % of each side lie on the edge.

    Raises:
        InputError: umap-learn is not installed, or there are too few items.
    """
    values = vectors.float() if isinstance(vectors, Tensor) else torch.from_numpy(np.array(vectors, dtype=np.float32))
    if len(values) < 3:
        raise InputError(f"a map needs at least 3 items, not {len(values)}.")
    flat = _umap(values.numpy()) if method == "umap" else _pca(values)
    low, high = np.quantile(flat, [0.005, 0.995], axis=0)
    return ((flat - low) / np.maximum(high - low, 1e-12)).clip(0, 1).astype(np.float32)


def _pca(values: Tensor) -> np.ndarray:
    centred = (values - values.mean(0)).double()
    _, directions = torch.linalg.eigh(centred.T @ centred)
    first = directions[:, -2:].flip(1)
    # A direction's sign is arbitrary: its largest coefficient is made positive.
    first = first * first.gather(0, first.abs().argmax(0, keepdim=True)).sign()
    flat = (centred @ first).numpy()
    return flat if flat.shape[1] == 2 else np.pad(flat, ((0, 0), (0, 1)))


def _umap(values: np.ndarray) -> np.ndarray:
    require("umap")
    from umap import UMAP

    neighbours = min(15, len(values) - 1)
    return UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1).fit_transform(values)


def spaces_of(opened: Trained) -> dict[str, Tensor | np.ndarray]:
    """(n_items, d) vectors of which there can be a map: what the model has "learned", then each set of features."""
    learned: dict[str, Tensor | np.ndarray] = {} if opened.learned is None else {"learned": opened.learned}
    return learned | {name: values for name, values in opened.feature_sets.items() if name not in learned}


def space_of(opened: Trained, state: State) -> str:
    """The space that the state's map shows; of a run that has learnt no vectors the first that there is.

    Raises:
        InputError: there is no such space, or none at all.
    """
    spaces = spaces_of(opened)
    if not spaces:
        raise InputError(f"{opened.title} has no vectors for items, and the data have no pictures: choose another run.")
    if state.space not in ("learned", *spaces):
        raise unknown_name("map", state.space, spaces)
    return state.space if state.space in spaces else next(iter(spaces))


def by_name(opened: Trained, space: str) -> str:
    """What a map is called: "by picture", or as the model sees items."""
    return f"as {opened.title} sees items" if space == "learned" else f"by {space}"


def positions_of(opened: Trained, state: State) -> np.ndarray:
    """(n_items, 2) float32 from 0 to 1: where items lie on the state's map, see `project`.

    Raises:
        InputError: see `space_of`, `project`.
    """
    return _positions(opened, space_of(opened, state), state.projection)


@lru_cache(8)
def _positions(opened: Trained, space: str, projection: str) -> np.ndarray:
    return project(spaces_of(opened)[space], projection)


def inside(positions: np.ndarray, region: tuple[float, ...]) -> np.ndarray:
    """Which positions lie in a region of the map.

    Args:
        positions: (n, 2) floats.
        region: see `State`.

    Returns:
        (n,) bool; the edge of a rectangle belongs to it.
    """
    if len(region) == 4:
        left, top, right, bottom = region
        x, y = positions.T
        return (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
    from matplotlib.path import Path  # only a map needs it, and the first page shall not wait for it

    return Path(np.reshape(region, (-1, 2))).contains_points(positions)


@dataclass(frozen=True)
class Live:
    """What the map in a browser needs beside the positions.

    Attributes:
        points: the address of the dots, see `imgrec_lib.explorer.dots.points`.
        colours: the colour of each group of dots, "#rrggbb".
        marks: items that stand out: their position, what they are ("bought", "recommended"), and what to call them.
    """

    points: str
    colours: tuple[str, ...]
    marks: tuple[tuple[float, float, str, str], ...]


@dataclass(frozen=True, eq=False)
class ItemMap:
    """A map of items, as HTML.

    Attributes:
        title: what it shows.
        positions: (n_items, 2) from 0 to 1, from the left and from the top.
        shown: indices of the items on it, the more important first: of those that meet in one of 24 x 14 cells the
            first has its thumbnail shown.
        names: (n_items,) what to call an item.
        images: the pictures.
        region: chosen part, see `State`.
        zoom: part in view, see `State`; the map that stands alone shows all.
        live: what a browser needs that can ask for more; None: the map can only stand alone.
    """

    title: str
    positions: np.ndarray
    shown: np.ndarray
    names: np.ndarray
    images: ImageStore | None
    region: tuple[float, ...] = ()
    zoom: tuple[float, ...] = ()
    live: Live | None = None

    def __repr__(self) -> str:
        return f"ItemMap({self.title!r}, {len(self.shown)} items)"

    def _repr_html_(self) -> str:
        return self.html()

    def inside(self) -> np.ndarray:
        """Indices of the items in the chosen region, in the order of `shown`."""
        if not self.region:
            return self.shown[:0]
        return self.shown[inside(self.positions[self.shown], self.region)]

    def html(self, size: Count = 96, *, style: bool = True, link: Callable[[int], str] | None = None) -> Markup:
        """HTML without any reference to the outside: the map as it stands alone.

        Where links lead on there is somebody to ask, and it is the place in which map.js draws the map.
        """
        if link is not None and self.live is not None:
            numbers = {name: " ".join(f"{x:.4f}" for x in getattr(self, name)) for name in ("region", "zoom")}
            return _LIVE.format(
                style=Markup(STYLE), title=self.title, points=self.live.points, **numbers,
                colours=" ".join(self.live.colours), marks=json.dumps(self.live.marks),
            )  # fmt: skip
        x, y = self.positions[self.shown].T
        # Dots that fall on one another are one: of a large catalogue most do.
        dots = np.unique(np.round(np.stack([960 * x, 560 * y], 1)).astype(int), axis=0)
        column, row = np.minimum((x * COLUMNS).astype(int), COLUMNS - 1), np.minimum((y * ROWS).astype(int), ROWS - 1)
        cells, first, counts = np.unique(row * COLUMNS + column, return_index=True, return_counts=True)
        thumbnails = []
        for cell, place, count in zip(cells.tolist(), first.tolist(), counts.tolist(), strict=True):
            item = int(self.shown[place])
            if self.images is None or not self.images.shows(item):
                continue
            j, i = divmod(cell, COLUMNS)
            others = f" and {count - 1:,} others near it" if count > 1 else ""
            where = f"left:{100 * (i + 0.5) / COLUMNS:.2f}%;top:{100 * (j + 0.5) / ROWS:.2f}%"
            alt, source = f"{self.names[item]}{others}", thumbnail_uri(self.images, item, 96)[0]
            thumbnails.append(_THUMBNAIL.format(style=where, alt=alt, source=source))
        chosen = Markup()
        if self.region:
            corners = self.region
            if len(corners) == 4:
                left, top, right, bottom = corners
                corners = (left, top, right, top, right, bottom, left, bottom)
            outline = " ".join(f"{960 * a:.0f},{560 * b:.0f}" for a, b in zip(corners[::2], corners[1::2], strict=True))
            chosen = Markup('<polygon class="region" points="{}"/>').format(outline)
        return _MAP.format(
            style=Markup(STYLE), title=self.title, dots="".join(f"M{a} {b}h0" for a, b in dots.tolist()),
            thumbnails=Markup().join(thumbnails), chosen=chosen,
        )  # fmt: skip
