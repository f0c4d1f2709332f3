"""What a model saw: which region of a photograph made a user's score, found by covering one region after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.new_item import embed
from imgrec_lib.explorer.state import ItemIndex, UserIndex
from imgrec_lib.models.base import Extensible
from imgrec_lib.serving import Trained

GRID = 4
"""Places of the cover in each direction. They overlap, and the network looks 17 times in all; 7 would take 50."""
COVER = 2 / 7
"""Side of the cover, by the side of the picture."""
AT_ONCE = 7
"""Covered pictures that go through the network at a time, so that memory stays small."""


@dataclass(frozen=True, eq=False)
class Occlusion:
    """How a user's score falls when regions of a picture are covered.

    Attributes:
        score: of the whole picture, as of an item that is known by its picture alone.
        drops: (GRID, GRID) float32: by how much the score falls with the cover at each place, from the top left;
            negative where the score rises.
        boxes: (GRID, GRID, 4) float: each place of the cover as left, top, right, bottom, from 0 to 1.
        best: row and column of the region whose cover lowers the score most.
        covered: the score with that region covered.
        place: where the whole picture ranks among the items that the user has not bought, from 1.
        covered_place: where it ranks with that region covered.
    """

    score: float
    drops: np.ndarray
    boxes: np.ndarray
    best: tuple[int, int]
    covered: float
    place: int
    covered_place: int


@lru_cache(64)
@torch.no_grad()
def occlude(opened: Trained, user: UserIndex, item: ItemIndex) -> Occlusion:
    """Cover a picture's regions with its mean colour, one after the other, and score each picture anew.

    Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, section 4.2, with one user's score in
    place of a class's probability. What is covered is what the network sees.

    Args:
        opened: a run whose model scores pictures.
        user: user index.
        item: item index; its id does not count, only its features.

    Raises:
        InputError: the item has no picture, the model sees none, or nobody knows its features of another picture.
    """
    rows = _seen(opened, item)
    assert isinstance(opened.scorer, Extensible)  # `embed` has made rows for it
    scores = opened.scorer.extended(rows).block(torch.tensor([user]))[0].float().numpy()
    known, seen = scores[: opened.dataset.n_items], scores[opened.dataset.n_items :]
    drops = (seen[0] - seen[1:]).reshape(GRID, GRID)
    best = tuple(int(x) for x in np.unravel_index(drops.argmax(), drops.shape))
    others = np.ones(len(known), bool)
    others[opened.dataset.train.of(user)] = False
    others[item] = False
    covered = float(seen[0] - drops[best])
    place, covered_place = (int((known[others] > score).sum()) + 1 for score in (seen[0], covered))
    return Occlusion(float(seen[0]), drops, _boxes(), (best[0], best[1]), covered, place, covered_place)


@lru_cache(64)
@torch.no_grad()
def _seen(opened: Trained, item: int) -> torch.Tensor:
    """(1 + GRID * GRID, k) float32: an item by its whole picture, then with the cover at each place; it takes long,
    and is the same for every user."""
    images = opened.dataset.images
    if images is None or not images.present[item]:
        raise InputError(f"item {opened.item_ids[item]} has no picture: there is nothing to cover.")
    pixels = np.asarray(images.pixels[item])
    pictures = np.stack([pixels, *(_covered(pixels, box) for box in _boxes().reshape(-1, 4))])
    rows = []
    for start in range(0, len(pictures), AT_ONCE):
        _, row = embed(opened, pictures[start : start + AT_ONCE], item)
        if row is None:
            raise InputError(f"{opened.title} scores no pictures: choose a model that sees them.")
        rows.append(row)
    return torch.cat(rows)


def _boxes() -> np.ndarray:
    """(GRID, GRID, 4): the cover from edge to edge, at even distances."""
    starts = np.linspace(0, 1 - COVER, GRID)
    top, left = np.meshgrid(starts, starts, indexing="ij")
    return np.stack([left, top, left + COVER, top + COVER], -1)


def _covered(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The picture with its mean colour in a box."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = (np.round(box * [width, height, width, height])).astype(int)
    covered = np.array(pixels)
    covered[top:bottom, left:right] = pixels.reshape(-1, 3).mean(0).round()
    return covered
