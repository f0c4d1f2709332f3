"""The generated data of the benchmarks: Amazon Fashion's true size, and smaller rungs of it.

Nothing is downloaded. The data is made to cost what Amazon Fashion costs and to be learnable, so that libraries can be
compared by the time they take to the same validation AUC; it says nothing about which model is better.

- Popularity is skewed as fashion is: item i of a style is bought with a weight of rank ** -0.75, which leaves about
  half of the catalogue without a training interaction.
- An item has one of 64 styles; a user has three of them and follows them in three purchases of four.
- Features are max(0, style vector + noise): 2048 non-negative numbers, as a pooled ReLU layer gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import Files

from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.files import replacing, replacing_folder

N_USERS, N_ITEMS, N_PAIRS, N_FEATURES = 45_184, 166_270, 267_635, 2048
"""Amazon Fashion as published with DVBPR; the pairs are the training interactions."""

STYLES, TASTES, LOYALTY, SKEW = 64, 3, 0.75, 0.75


@dataclass(frozen=True)
class Rung:
    """One size of the generated data: `share` of the users, items and training pairs of Amazon Fashion."""

    name: str
    share: float

    @property
    def n_users(self) -> int:
        return round(N_USERS * self.share)

    @property
    def n_items(self) -> int:
        return round(N_ITEMS * self.share)

    @property
    def n_pairs(self) -> int:
        return round(N_PAIRS * self.share)


RUNGS = {rung.name: rung for rung in (Rung("1/64", 1 / 64), Rung("1/16", 1 / 16), Rung("1/4", 1 / 4), Rung("1", 1.0))}
"""The rungs by name."""


def prepare(rung: Rung, cache: Path) -> Files:
    """The rung's files, generated (deterministically) when they are not there."""
    target = Path(cache) / f"fashion-{rung.n_users}x{rung.n_items}x{rung.n_pairs}"
    if not target.is_dir():
        generator = np.random.Generator(np.random.PCG64(20220907))
        with replacing_folder(target) as folder:
            style = generator.integers(STYLES, size=rung.n_items)
            _write_interactions(folder, rung, style, generator)
            _write_features(folder / "features.npy", style, generator)
    return Files(target)


def open_dataset(files: Files) -> Dataset:
    """The rung as the library sees it; `files.features` are its memory-mapped features."""
    return Dataset(
        name=files.folder.name,
        user_ids=np.array([f"u{u}" for u in range(files.n_users)]),
        items=pd.DataFrame({Columns.ITEM: [f"i{i}" for i in range(files.n_items)]}),
        train=Interactions.from_pairs(files.train[:, 0], files.train[:, 1], files.n_users, files.n_items),
        validation=HeldOut(files.validation),
        test=HeldOut(files.test),
    )


class Tastes:
    """Draws what people buy: items of their own styles in most purchases, and popular items more often.

    Args:
        n_users: number of people.
        style: (n_items,) int64 style of each item.
        generator: draws the popularity of the items and the styles of the people here, and the purchases later.
    """

    def __init__(self, n_users: int, style: np.ndarray, generator: np.random.Generator) -> None:
        self.generator = generator
        weight = _shares((1.0 + generator.permutation(len(style))) ** -SKEW)
        self.by_style = np.argsort(style, kind="stable")
        self.cumulated = np.cumsum(weight[self.by_style])
        ends = np.searchsorted(style[self.by_style], np.arange(STYLES + 1))
        self.edges = np.concatenate([[0.0], self.cumulated])[ends]  # where each style's weight begins and ends
        self.own = generator.integers(STYLES, size=(n_users, TASTES))

    def draw(self, users: np.ndarray) -> np.ndarray:
        """(n,) int64 users -> (n,) int64: an item for each."""
        own = self.own[users, self.generator.integers(TASTES, size=len(users))]
        loyal = self.generator.random(len(users)) < LOYALTY
        low, high = np.where(loyal, self.edges[own], 0.0), np.where(loyal, self.edges[own + 1], self.cumulated[-1])
        at = np.searchsorted(self.cumulated, low + (high - low) * self.generator.random(len(users)), side="right")
        return self.by_style[np.minimum(at, len(self.by_style) - 1)]


def _write_interactions(folder: Path, rung: Rung, style: np.ndarray, generator: np.random.Generator) -> None:
    """Every user gets a test item, a validation item and at least one training item; the rest is geometric."""
    extra = rung.n_pairs - rung.n_users
    lengths = 3 + np.bincount(
        generator.choice(rung.n_users, extra, p=_shares(generator.exponential(size=rung.n_users))),
        minlength=rung.n_users,
    )
    tastes = Tastes(rung.n_users, style, generator)
    pairs = np.empty((0, 2), dtype=np.int64)
    missing = lengths
    while missing.any():  # pairs drawn twice are drawn again
        users = np.repeat(np.arange(rung.n_users), missing)
        drawn = np.stack([users, tastes.draw(users)], 1)
        pairs = np.concatenate([pairs, drawn])
        first = np.unique(pairs[:, 0] * rung.n_items + pairs[:, 1], return_index=True)[1]
        pairs = pairs[np.sort(first)]
        missing = lengths - np.bincount(pairs[:, 0], minlength=rung.n_users)
    order = np.argsort(pairs[:, 0], kind="stable")
    pairs = pairs[order]
    starts = np.cumsum(lengths) - lengths
    # A popular item sits early, for a pair drawn twice keeps its first place; held-out items are drawn among all.
    shift = generator.integers(lengths)
    position = np.arange(len(pairs)) - np.repeat(starts, lengths)
    position = (position + np.repeat(shift, lengths)) % np.repeat(lengths, lengths)
    np.save(folder / "test.npy", pairs[position == 0, 1])
    np.save(folder / "validation.npy", pairs[position == 1, 1])
    np.save(folder / "train.npy", pairs[position >= 2])


def _write_features(path: Path, style: np.ndarray, generator: np.random.Generator, chunk: int = 4096) -> None:
    centres = generator.standard_normal((STYLES, N_FEATURES), dtype=np.float32)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(style), N_FEATURES)}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(style), chunk):
            part = style[start : start + chunk]
            values = centres[part] + generator.standard_normal((len(part), N_FEATURES), dtype=np.float32)
            file.write(np.maximum(values, 0, out=values).tobytes())


def _shares(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()
