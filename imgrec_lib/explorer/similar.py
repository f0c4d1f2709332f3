"""Users who are like one another: as the model has learnt them, or by what they bought."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from markupsafe import Markup
from scipy import sparse

from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.explorer.shown import Shown, Text, history_row, user_name
from imgrec_lib.explorer.state import State, UserIndex
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Row
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.options import Count
from imgrec_lib.serving import Trained

SIMILAR = 8
"""Similar users that are shown."""
BOUGHT = 12
"""Purchases of each that are shown, the latest first."""


def similar_users(opened: Trained, user: UserIndex, k: Count) -> tuple[np.ndarray, np.ndarray, str]:
    """The users most like one, by the cosine of their vectors, or else of their sets of training items.

    Args:
        opened: the run.
        user: user index.
        k: how many, at most; by purchases only those who share one.

    Returns:
        User indices (n,) int64 and cosines (n,) float32, best first and of equal ones the lower index first, and by
        what they are alike: "learned" or "purchases".
    """
    if isinstance(opened.scorer, InnerProduct):
        personal = opened.scorer.personal()
        if personal.any():
            found = search_neighbours(opened.scorer.users * personal, [user], min(k, opened.dataset.n_users - 1))
            return found.items[0], found.similarity[0], "learned"
    bought = _purchases(opened)
    shared = np.asarray((bought @ bought[[user]].T).todense()).ravel()
    lengths = opened.dataset.train.history_lengths
    cosine = (shared / np.sqrt(np.maximum(lengths, 1) * max(float(lengths[user]), 1.0))).astype(np.float32)
    cosine[user] = 0
    best = np.argsort(-cosine, kind="stable")[:k]
    best = best[cosine[best] > 0]
    return best, cosine[best], "purchases"


@lru_cache(2)
def _purchases(opened: Trained) -> sparse.csr_matrix:
    """(n_users, n_items): 1 for each item that a user bought in training."""
    train = opened.dataset.train
    ones = np.ones(len(train), np.float32)
    found = sparse.csr_matrix((ones, train.items, train.indptr), (train.n_users, train.n_items))
    found.sum_duplicates()
    found.data[:] = 1
    return found


def people_like(opened: Trained, user: int, state: State) -> list[Shown]:
    """A user's purchases above those of similar users, and links to these."""
    users, cosines, by = similar_users(opened, user, SIMILAR)
    mine = history_row(opened, user, BOUGHT)
    rows = [Row(f"{user_name(opened, user)}: {mine.title.lower()}", mine.cells)]
    for other, cosine in zip(users.tolist(), cosines.tolist(), strict=True):
        theirs = history_row(opened, other, BOUGHT)
        title = f"{user_name(opened, other)}, similarity {cosine:.3f}: {theirs.title.lower()}"
        rows.append(Row(title, theirs.cells))
    how = f"as {opened.title} has learnt them" if by == "learned" else "by the purchases that they share"
    title = f"Similar users, {how}" if len(users) else "No user shares a purchase with this one"
    links = Markup(" ").join(
        Markup('<a class="like-button" href="?{}">{}</a>').format(
            state.address(user=str(opened.dataset.user_ids[other]), item=""), user_name(opened, other)
        )
        for other in users.tolist()
    )
    return [Gallery(title, tuple(rows), opened.dataset.images), Text(links)]
