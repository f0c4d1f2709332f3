"""What a model recommends to all users together: metrics of their lists, whatever the held-out items are.

A list holds the k best of the items that may be recommended to a user, best first, of equal scores the item with the
lower index first, and -1 past the end where there are fewer. Means are over the users whose list has an item, or a
pair of items where pairs are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.errors import InputError

LIST_METRICS = ("coverage", "gini", "novelty", "popularity", "category_diversity", "visual_diversity")
"""The metrics of lists, by the name that stands before the @."""


def coverage(lists: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that occurs in some list.

    Args:
        lists: (n_users, k) int64 items, -1 past the end.
        n_items: size of the catalogue.
    """
    return float((_occurrences(lists, n_items) > 0).mean())


def gini(lists: np.ndarray, n_items: int) -> float | None:
    """Gini coefficient of how often each item of the catalogue is recommended.

    0 where all are recommended equally often, near 1 where few items fill all lists (Fleder and Hosanagar 2009,
    Blockbuster Culture's Next Rise or Fall).

    Args:
        lists, n_items: see `coverage`.

    Returns:
        The coefficient, items that are never recommended included; None where nothing is recommended.
    """
    times = np.sort(_occurrences(lists, n_items))
    if not times.any():
        return None
    return float((2 * np.arange(1, n_items + 1) - n_items - 1) @ times / (n_items * times.sum()))


def novelty(lists: np.ndarray, popularity: np.ndarray, n_users: int) -> np.ndarray:
    """Mean self-information of each list's items, -log2 of the share of users who have the item in training.

    Mean inverse user frequency (Zhou et al. 2010, Solving the apparent diversity-accuracy dilemma; Castells, Hurley and
    Vargas 2015). An item that nobody has counts as one that a single user has.

    Args:
        lists: see `coverage`.
        popularity: (n_items,) int64 training interactions of each item.
        n_users: number of users.

    Returns:
        (n_users,) float64 in bits; NaN for an empty list.
    """
    return _mean_of(lists, np.log2(n_users / np.maximum(popularity, 1)))


def mean_popularity(lists: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Mean number of training interactions of each list's items; arguments and result as in `novelty`."""
    return _mean_of(lists, popularity.astype(np.float64))


def category_diversity(lists: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Share of each list's pairs of items that differ in category: intra-list diversity (Ziegler et al. 2005).

    Args:
        lists: see `coverage`.
        categories: (n_items,) int64.

    Returns:
        (n_users,) float64; NaN for a list without a pair.
    """
    of, different = categories[lists], np.zeros(len(lists))
    for apart in range(1, lists.shape[1]):
        present = lists[:, apart:] >= 0
        different += ((of[:, apart:] != of[:, :-apart]) & present).sum(1)
    length = (lists >= 0).sum(1)
    return _ratio(different, length * (length - 1) / 2)


def visual_diversity(lists: np.ndarray, features: np.ndarray, cutoffs: Sequence[int]) -> list[np.ndarray]:
    """Mean cosine distance of each list's pairs of pictures, 1 - cosine of their features.

    Args:
        lists: see `coverage`.
        features: (n_items, n_features) float32; rows of zeros, of items without a picture, are left out. May be
            memory-mapped.
        cutoffs: ascending numbers k of first items that are taken as lists.

    Returns:
        For each cut-off (n_users,) float64; NaN for a list without a pair of pictures.
    """
    from imgrec_lib.evaluation import compiled

    values = np.asarray(features, np.float32)  # a memory-mapped file stays one
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        parts = np.array_split(lists, threads)
        sums = pool.map(lambda part: compiled.sums_of_lists(part, values, np.asarray(cutoffs)), parts)
        squares, pictures = (np.concatenate(each) for each in zip(*sums, strict=True))
    # The square of a sum of n unit vectors is n + 2 * (sum of the cosines of their pairs).
    pairs = pictures * (pictures - 1) / 2
    return [_ratio(n - (s - p) / 2, n) for s, p, n in zip(squares.T, pictures.T, pairs.T, strict=True)]


def list_metrics(
    lists: np.ndarray,
    train: Interactions,
    cutoffs: Sequence[int],
    categories: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> dict[str, float | None]:
    """Every metric of the lists of all users.

    Args:
        lists: (n_users, k) int64 items, -1 past the end.
        train: the training interactions.
        cutoffs: how many of the first items are taken as lists; none above k.
        categories: (n_items,) int64, or None.
        features: (n_items, n_features) float32 visual features, or None.

    Returns:
        For each cut-off k: "coverage@k", "gini@k", and means over users "novelty@k", "popularity@k",
        "category_diversity@k" and "visual_diversity@k"; None where there are no categories or features, or no list.

    Raises:
        InputError: the features have another number of rows than the catalogue has items.
    """
    if features is not None and len(features) != train.n_items:
        raise InputError(
            f"the features have {len(features)} rows but the catalogue has {train.n_items} items: "
            "extract them again for this dataset."
        )
    popularity, ascending = train.popularity, sorted(cutoffs)
    looks = {}
    if features is not None:
        looks = dict(zip(ascending, visual_diversity(lists, features, ascending), strict=True))
    found: dict[str, float | None] = {}
    for k in cutoffs:
        first = lists[:, :k]
        found |= {
            f"coverage@{k}": coverage(first, train.n_items),
            f"gini@{k}": gini(first, train.n_items),
            f"novelty@{k}": _mean(novelty(first, popularity, train.n_users)),
            f"popularity@{k}": _mean(mean_popularity(first, popularity)),
            f"category_diversity@{k}": None if categories is None else _mean(category_diversity(first, categories)),
            f"visual_diversity@{k}": _mean(looks[k]) if looks else None,
        }
    return found


def _occurrences(lists: np.ndarray, n_items: int) -> np.ndarray:
    return np.bincount(lists[lists >= 0], minlength=n_items)


def _mean_of(lists: np.ndarray, values: np.ndarray) -> np.ndarray:
    present = lists >= 0
    return _ratio(np.where(present, values[lists], 0).sum(1), present.sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
