"""Galleries of a dataset: items with their nearest neighbours, users with what they bought and are recommended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Dataset, describe_item, latest_items
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import top_items
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.models.base import Scorer
from imgrec_lib.options import Count


def neighbour_gallery(
    dataset: Dataset,
    vectors: Tensor | np.ndarray,
    items: Sequence[int],
    k: Count = 8,
    title: str = "Nearest items",
) -> Gallery:
    """Items and their nearest neighbours in any space: visual features, learned embeddings.

    Args:
        dataset: gives names and pictures.
        vectors: (n_items, d) floats.
        items: the items to start from, one row each.
        k: neighbours of each.
        title: names the space.

    Raises:
        InputError: see `search_neighbours`; or the vectors are not one for each item.
    """
    if len(vectors) != dataset.n_items:
        raise InputError(
            f"there are {len(vectors)} vectors for the {dataset.n_items} items of {dataset.name!r}: give one each."
        )
    found = search_neighbours(vectors, items, k)
    rows = []
    for item, neighbours, values in zip(items, found.items.tolist(), found.similarity.tolist(), strict=True):
        cells = [Cell(n, describe_item(dataset, n), value) for n, value in zip(neighbours, values, strict=True)]
        query = Cell(int(item), describe_item(dataset, int(item)), mark="query")
        rows.append(Row(query.caption[0], (query, *cells)))
    return Gallery(title, tuple(rows), dataset.images)


def side_by_side(title: str, *galleries: Gallery) -> Gallery:
    """Galleries with the same rows as one: first rows together, then second rows; each row says whose it is."""
    rows = [
        Row(f"{row.title}: {gallery.title}", row.cells)
        for group in zip(*(gallery.rows for gallery in galleries), strict=True)
        for gallery, row in zip(galleries, group, strict=True)
    ]
    return Gallery(title, tuple(rows), galleries[0].images if galleries else None)


def recommendation_gallery(
    dataset: Dataset, scorer: Scorer, users: Sequence[int], k: Count = 8, title: str = "Recommendations"
) -> Gallery:
    """What users bought and what a model recommends to them, with the places of the held-out test items.

    The list is over all items but the user's training items. A test item is marked in the list, or follows it.

    Args:
        dataset: gives histories, names and pictures.
        scorer: the scores, on the CPU.
        users: user indices, two rows each.
        k: items a row; of a longer history the latest are shown, or the first without timestamps.
        title: the gallery's title.

    Raises:
        InputError: see `top_items`.
    """
    chosen, scores = top_items(
        scorer, np.asarray(users), dataset.train, min(k, dataset.n_items), user_ids=dataset.user_ids
    )
    rows = []
    for user, items, values in zip(users, chosen, scores, strict=True):
        history, tested = dataset.train.of(user), dataset.test.of(user)
        held = dict.fromkeys(dataset.validation.of(user), "validation item") | dict.fromkeys(tested, "test item")
        name = f"User {dataset.user_ids[user]}"
        rows.append(
            Row(
                f"{name} bought {len(history)} {'item' if len(history) == 1 else 'items'}"
                + (f", {k} of them shown" if len(history) > k else ""),
                tuple(Cell(int(i), describe_item(dataset, int(i))) for i in latest_items(dataset, user)[:k]),
            )
        )
        cells = [
            Cell(int(i), describe_item(dataset, int(i)), float(value), held.get(int(i), ""))
            for i, value in zip(items, values, strict=True)
            if i >= 0
        ]
        heading = f"{name} is recommended"
        places = []
        for test in tested.tolist():
            place, score = _place(scorer, user, test, history)
            places.append(f"{place:,}")
            if test not in items:
                cells.append(Cell(test, describe_item(dataset, test), score, "test item"))
        if places:
            test_items = "the test item is" if len(places) == 1 else "the test items are"
            heading += f"; {test_items} number {', '.join(places)} of {dataset.n_items - len(history):,}"
        rows.append(Row(heading, tuple(cells)))
    return Gallery(title, tuple(rows), dataset.images)


@torch.no_grad()
def _place(scorer: Scorer, user: int, item: int, history: np.ndarray) -> tuple[int, float]:
    """Place of an item in the user's whole list (from 1, ties by index as in `recommend`) and its score."""
    scores = scorer.block(torch.tensor([user]))[0].float().cpu()
    score = float(scores[item])
    scores[torch.from_numpy(history)] = -torch.inf
    before = int((scores > score).sum()) + int((scores[:item] == score).sum())
    return before + 1, score
