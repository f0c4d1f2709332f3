"""The catalogue as a map: every item a dot, thumbnails where there is room for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.extras import require
from imgrec_lib.gallery.thumbnails import thumbnail_uri

STYLE = """\
.imgrec-map-title { margin: 1em 0 .4em; font: 13px/1.35 system-ui, sans-serif; color: inherit; }
.imgrec-map { position: relative; width: 960px; max-width: 100%; aspect-ratio: 12 / 7; overflow: hidden;
  border: 1px solid rgba(128, 128, 128, .4); border-radius: 6px; background: #fff; touch-action: none;
  cursor: crosshair; }
.imgrec-map svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.imgrec-map .thumbnail { position: absolute; width: 3.75%; transform: translate(-50%, -50%); margin: 0; }
.imgrec-map .thumbnail img { display: block; width: 100%; border-radius: 3px; }
.imgrec-map .thumbnail:focus-visible, .imgrec-map .thumbnail:hover { outline: 3px solid #0b5cad; z-index: 1; }
.imgrec-map .frame, .imgrec-map .region { position: absolute; box-sizing: border-box; border: 2px solid #0b5cad;
  background: rgba(11, 92, 173, .12); pointer-events: none; }
"""
COLUMNS, ROWS = 24, 14

_MAP = Markup(
    '<style>{style}</style>\n<p class="imgrec-map-title">{title}</p>\n<div class="imgrec-map" data-map="{number}">'
    '<svg viewBox="0 0 960 560" preserveAspectRatio="none" aria-hidden="true">'
    '<path d="{dots}" stroke="#8b949e" stroke-width="3" stroke-linecap="round"/></svg>{thumbnails}{chosen}</div>\n'
)
_THUMBNAIL = Markup(
    '<figure class="thumbnail" tabindex="0" role="button" aria-label="{alt}" data-region="{region}" style="{style}" '
    'title="{alt}"><img src="{source}" alt="">'
    "</figure>"
)


def project(vectors: Tensor | np.ndarray, method: str = "pca") -> np.ndarray:
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
    """

    title: str
    positions: np.ndarray
    shown: np.ndarray
    names: np.ndarray
    images: ImageStore | None
    region: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"ItemMap({self.title!r}, {len(self.shown)} items)"

    def _repr_html_(self) -> str:
        return self.html()

    def inside(self) -> np.ndarray:
        """Indices of the items in the chosen region, in the order of `shown`."""
        if not self.region:
            return self.shown[:0]
        left, top, right, bottom = self.region
        x, y = self.positions[self.shown].T
        return self.shown[(left <= x) & (x <= right) & (top <= y) & (y <= bottom)]

    def html(self, size: int = 96, *, style: bool = True, link: Callable[[int], str] | None = None) -> Markup:
        """HTML without any reference to the outside; a thumbnail carries its cell as `data-region`."""
        x, y = self.positions[self.shown].T
        dots = "".join(f"M{960 * a:.0f} {560 * b:.0f}h0" for a, b in zip(x, y, strict=True))
        column, row = np.minimum((x * COLUMNS).astype(int), COLUMNS - 1), np.minimum((y * ROWS).astype(int), ROWS - 1)
        cells, first, counts = np.unique(row * COLUMNS + column, return_index=True, return_counts=True)
        thumbnails = []
        for cell, place, count in zip(cells.tolist(), first.tolist(), counts.tolist(), strict=True):
            item = int(self.shown[place])
            if self.images is None or not self.images.present[item]:
                continue
            j, i = divmod(cell, COLUMNS)
            region = " ".join(f"{value:.4f}" for value in (i / COLUMNS, j / ROWS, (i + 1) / COLUMNS, (j + 1) / ROWS))
            others = f" and {count - 1:,} others near it" if count > 1 else ""
            where = f"left:{100 * (i + 0.5) / COLUMNS:.2f}%;top:{100 * (j + 0.5) / ROWS:.2f}%"
            alt, source = f"{self.names[item]}{others}", thumbnail_uri(self.images, item, 96)[0]
            thumbnails.append(_THUMBNAIL.format(region=region, style=where, alt=alt, source=source))
        chosen = Markup()
        if self.region:
            left, top, right, bottom = (100 * value for value in self.region)
            box = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
            chosen = Markup('<div class="region" style="{}"></div>').format(box)
        return _MAP.format(
            style=Markup(STYLE),
            title=self.title,
            number=len(self.shown),
            dots=dots,
            thumbnails=Markup().join(thumbnails),
            chosen=chosen,
        )
