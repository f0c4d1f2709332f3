"""Features of items that have several pictures: those of all of them, pooled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.features.extraction import Features, extract_features, feature_options
from imgrec_lib.files import cache_folder, cached, fingerprint, replacing
from imgrec_lib.options import Option, options_of

ROWS = 4096
"""Items whose features are in memory at a time."""


def picture_features(
    dataset: Dataset,
    *,
    several_pictures: Literal["mean", "max", "first"] = "mean",
    cache: str | Path | None = None,
    **options: Any,
) -> Features:
    """`extract_features` of a dataset's pictures; of items that have several, of all of them.

    Args:
        dataset: a dataset with pictures.
        several_pictures: what an item with several pictures gets: the "mean" of their features, the "max" of each
            dimension, or the features of the "first" alone. Pictures that are missing or broken take no part.
        cache: the cache folder; by default `default_cache()`.
        options: see `extract_features`.

    Returns:
        The features, memory-mapped. Where no item has several pictures they are those of `extract_features`.

    Raises:
        InputError: the dataset has no pictures; see also `extract_features`.

    Example:
        >>> from imgrec_lib import load_dataset
        >>> from imgrec_lib.features import picture_features
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> picture_features(dataset, size=32, progress=False).values.shape
        (50, 1280)
    """
    if dataset.images is None:
        raise InputError(f"dataset {dataset.name!r} has no pictures: load it with its images.")
    first = extract_features(dataset.images, cache=cache, **options)
    further = dataset.further_pictures
    if further is None or several_pictures == "first":
        return first
    others = extract_features(further.images, cache=cache, **options)
    key = fingerprint(first.fingerprint, others.fingerprint, further.items, several_pictures)
    present, shown, how = dataset.images.present, further.images.present, several_pictures

    def make(temporary: Path) -> None:
        # Written as a stream, not through a memory map, for which a full disk is a fatal signal.
        with open(temporary, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": first.values.shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(present), ROWS):
                low, high = further.items.searchsorted([start, start + ROWS])
                used = shown[low:high]
                own, rows = present[start : start + ROWS], further.items[low:high][used] - start
                values = _pooled(first.values[start : start + ROWS], own, others.values[low:high][used], rows, how)
                file.write(values.astype("<f4").tobytes())

    path = cached(cache_folder(cache, "features") / f"several-{key}.npy", make, writer=replacing)
    values = np.lib.format.open_memmap(path, mode="r")
    description = first.description | {"several_pictures": how, "further_pictures": further.images.fingerprint}
    return replace(first, values=values, description=description, fingerprint=key)


def _pooled(first: np.ndarray, present: np.ndarray, more: np.ndarray, rows: np.ndarray, how: str) -> np.ndarray:
    """Features of some items, pooled: (n, d) float32.

    Args:
        first: (n, d) features of their first pictures, of which (n,) `present` says whether they are there.
        more: (m, d) features of further pictures, of items `rows`, ascending.
        how: "mean" or "max".
    """
    count = present + np.bincount(rows, minlength=len(first))
    # What stands for a missing first picture is left out of what is pooled, and kept where there is no other.
    kept = (present | (count == 0))[:, None]
    if how == "max":
        values = np.where(kept, first, -np.inf)
        np.maximum.at(values, rows, more)
        return values
    values = np.where(kept, first, 0).astype(np.float64)
    np.add.at(values, rows, more)
    return values / np.maximum(count, 1)[:, None]


def picture_feature_options() -> dict[str, Option]:
    """The options of `picture_features` that say what the features are, and where they are kept."""
    return feature_options() | {"several_pictures": options_of(picture_features)["several_pictures"]}
