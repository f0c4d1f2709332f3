"""Nearest items in any space, visual or learned, over the whole catalogue: exact, or approximate at a known recall."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.errors import InputError

ITEMS_AT_ONCE = 16384
"""Vectors that are read, normalised and searched at once: bounds memory, memory-mapped vectors included."""

SPARE = 16
"""Neighbours asked for beyond the k wanted, so that ties at the end of the list are seen."""

RECALL_QUERIES = 256
"""Queries, spread over those asked, whose exact neighbours are also searched to measure an approximate search."""


@dataclass(frozen=True)
class Neighbours:
    """What a search has found.

    Attributes:
        items: (Q, k) int64, best first; -1 where an approximate search found fewer.
        similarity: (Q, k) float32 cosines; -inf where the item is -1.
        recall: share of the true k nearest that were found: 1 for an exact search, else measured on a sample of the
            queries.
    """

    items: np.ndarray
    similarity: np.ndarray
    recall: float = 1.0


def search_neighbours(
    vectors: Tensor | np.ndarray,
    queries: Sequence[int] | np.ndarray,
    k: int,
    *,
    exclude_self: bool = True,
    probes: int = 0,
) -> Neighbours:
    """The items whose vectors have the largest cosine with those of the query items, by faiss.

    Of equal cosines the lower index comes first; a zero vector has cosine 0 with everything.

    Args:
        vectors: (n_items, d) floats; may be memory-mapped.
        queries: (Q,) item indices.
        k: neighbours wanted; fewer where the catalogue is smaller.
        exclude_self: leave the query itself out.
        probes: 0 for an exact search. Else the catalogue is divided into sqrt(n_items) cells by k-means, and only the
            `probes` cells nearest to a query are searched (faiss IndexIVFFlat): faster by about sqrt(n_items) / probes
            once the cells are made, for a recall that the result states.

    Raises:
        InputError: a query that is no item, k below 1, or a negative number of probes.
    """
    chosen, n_items = np.asarray(queries, dtype=np.int64).reshape(-1), len(vectors)
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}.")
    if probes < 0:
        raise InputError(f"probes must be 0 (exact search) or the number of cells to search, not {probes}.")
    outside = (chosen < 0) | (chosen >= n_items)
    if outside.any():
        raise InputError(f"item index {chosen[outside][0]} does not exist: choose from 0 to {n_items - 1}.")
    k = min(k, n_items - exclude_self)
    if k < 1 or not len(chosen):
        shape = (len(chosen), max(k, 0))
        return Neighbours(np.zeros(shape, np.int64), np.zeros(shape, np.float32))
    own = chosen if exclude_self else np.full(len(chosen), -1)
    if not probes:
        return Neighbours(*_exact(vectors, chosen, own, k))
    items, similarity = _approximate(vectors, chosen, own, k, probes)
    sample = np.unique(np.linspace(0, len(chosen) - 1, min(RECALL_QUERIES, len(chosen))).astype(int))
    true = _exact(vectors, chosen[sample], own[sample], k)[0]
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(items[sample], true, strict=True))
    return Neighbours(items, similarity, hits / true.size)


def nearest_to(vectors: Tensor | np.ndarray, query: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`search_neighbours` for one vector that is no item's.

    Args:
        vectors: (n_items, d) floats; may be memory-mapped.
        query: (d,) floats.
        k: neighbours wanted; fewer where the catalogue is smaller.

    Returns:
        Items (k,) int64 and cosines (k,) float32, best first.
    """
    wanted = torch.nn.functional.normalize(query.detach().cpu().float(), dim=0).numpy()
    similarity = np.concatenate([block @ wanted for _, block in _blocks(vectors)])
    items = np.argsort(-similarity, kind="stable")[:k]
    return items, similarity[items]


def _exact(vectors: Tensor | np.ndarray, chosen: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    faiss = _faiss()
    query = _unit_rows(vectors, chosen)
    found, values = np.empty((len(chosen), 0), np.int64), np.empty((len(chosen), 0), np.float32)
    wanted = k + 1 + SPARE
    for start, block in _blocks(vectors):
        value, item = faiss.knn(query, block, min(wanted, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        found, values = _best(np.hstack([found, item + start]), np.hstack([values, value]), wanted)
    if found.shape[1] == wanted < len(vectors):
        # A tie that reaches the end of what was asked for may go on behind it: such lists are made from all items.
        for row in np.flatnonzero(values[:, -1] >= values[:, k]):
            every = np.concatenate([query[row : row + 1] @ block.T for _, block in _blocks(vectors)], 1)
            found[row], values[row] = (a[0] for a in _best(np.arange(len(vectors))[None], every, wanted))
    return _without(found, values, own, k)


def _approximate(
    vectors: Tensor | np.ndarray, chosen: np.ndarray, own: np.ndarray, k: int, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    faiss = _faiss()
    cells = max(1, math.isqrt(len(vectors)))
    width = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 0, 1, 64
    spread = np.linspace(0, len(vectors) - 1, min(len(vectors), 64 * cells)).astype(np.int64)
    index.train(_unit_rows(vectors, spread))
    for _, block in _blocks(vectors):
        index.add(block)
    index.nprobe = min(probes, cells)
    values, found = index.search(_unit_rows(vectors, chosen), min(k + 1, len(vectors)))
    values[found < 0] = -np.inf
    return _without(*_best(found, values, k + 1), own, k)


def _without(found: np.ndarray, values: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of each list, `own` left out."""
    keep = (found != own[:, None]) | (found < 0)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    items, similarity = np.take_along_axis(found, order, 1), np.take_along_axis(values, order, 1)
    gone = ~np.take_along_axis(keep, order, 1)  # an approximate list may have nothing in its place
    return np.where(gone, -1, items), np.where(gone, -np.inf, similarity).astype(np.float32)


def _best(found: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row, of equal values the lower index first."""
    order = np.lexsort((found, -values), axis=1)[:, :k]
    return np.take_along_axis(found, order, 1), np.take_along_axis(values, order, 1)


def _blocks(vectors: Tensor | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors), ITEMS_AT_ONCE):
        yield start, _unit_rows(vectors, slice(start, start + ITEMS_AT_ONCE))


def _unit_rows(vectors: Tensor | np.ndarray, items: np.ndarray | slice) -> np.ndarray:
    """Rows as contiguous float32 of length 1; rows of zeros stay."""
    if isinstance(vectors, Tensor):
        chosen = items if isinstance(items, slice) else torch.from_numpy(items).to(vectors.device)
        rows = vectors.detach()[chosen].float().cpu()
    else:
        rows = torch.from_numpy(np.array(vectors[items], dtype=np.float32))
    return torch.nn.functional.normalize(rows, dim=1).numpy()


def _faiss():  # type: ignore[no-untyped-def]
    """faiss, on as many threads as PyTorch; imported only by those who search, after PyTorch and its OpenMP."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
