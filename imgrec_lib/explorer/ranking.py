"""Who is recommended what, and why: lists, places and the parts of scores, without any page around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.explorer.item_map import inside, positions_of, spaces_of
from imgrec_lib.explorer.state import POPULARITY, ItemIndices, State, UserIndex
from imgrec_lib.models.base import AttributeAttention, InnerProduct, PurchaseParts, ScoreParts
from imgrec_lib.options import Count
from imgrec_lib.serving import Trained


@dataclass(frozen=True)
class Ranking:
    """A user's candidates in order.

    Attributes:
        items: (C,) int64, best first; of equal scores the lower index first.
        places: (n_items,) int64: place of each item in `items`, from 1; 0 for an item that is no candidate.
        scores: (n_items,) float32.
    """

    items: np.ndarray
    places: np.ndarray
    scores: np.ndarray


@lru_cache(64)
@torch.no_grad()
def user_scores(opened: Trained, user: int) -> np.ndarray:
    """(n_items,) float32: the scores of one user; those of the users asked for last are kept."""
    return opened.scorer.block(torch.tensor([user]))[0].float().numpy()


def candidates(opened: Trained, user: UserIndex, state: State) -> np.ndarray:
    """(n_items,) bool: the items that pass the state's filters.

    Raises:
        InputError: a column of the item table, or a value of one, that the dataset does not have.
    """
    mask = described(opened, state)
    if state.seen != "all":
        seen = np.zeros(len(mask), bool)
        seen[opened.dataset.train.of(user)] = True
        mask &= seen if state.seen == "bought" else ~seen
    return mask


def described(opened: Trained, state: State) -> np.ndarray:
    """(n_items,) bool: the items that are as popular, and as the item table says, as the state wants them.

    On the map, and where it shows none, all these are admitted; elsewhere those of its chosen region.

    Raises:
        InputError: see `candidates`.
    """
    low, high = POPULARITY[state.popularity]
    mask = opened.popularity >= low
    if high is not None:
        mask &= opened.popularity <= high
    table = opened.dataset.items
    for column, value in state.where:
        if column not in table:
            raise unknown_name(f"column of {opened.dataset.name}'s item table", column, map(str, table.columns))
        same = table[column].astype(str).to_numpy() == value
        if not same.any():
            raise unknown_name(f"{column} of {opened.dataset.name}", value, table[column].astype(str).unique().tolist())
        mask &= same
    if state.region and state.view != "map" and spaces_of(opened):
        mask &= inside(positions_of(opened, state), state.region)
    return mask


def rank(opened: Trained, user: UserIndex, state: State) -> Ranking:
    """Rank the items that pass the state's filters for one user; of lists from elsewhere those that are listed."""
    scores = user_scores(opened, user)
    admitted = np.flatnonzero(candidates(opened, user, state) & np.isfinite(scores))
    items = admitted[np.argsort(-scores[admitted], kind="stable")]
    places = np.zeros(len(scores), np.int64)
    places[items] = np.arange(1, len(items) + 1)
    return Ranking(items, places, scores)


def score_parts(opened: Trained, user: UserIndex, items: ItemIndices) -> dict[str, np.ndarray]:
    """What scores are made of, exactly: their sum is the score to rounding.

    The model says it itself (`ScoreParts`), or its score is an inner product with item offsets, which splits into
    the taste that is the user's own and the offset that is the same for all.

    Args:
        items: (C,) item indices.

    Returns:
        (C,) float32 each by name; empty where the score is no such sum.
    """
    users, chosen = torch.tensor([user]), torch.as_tensor(items)[None]
    if isinstance(opened.model, ScoreParts):
        try:
            return {name: part[0].numpy() for name, part in opened.model.contributions(users, chosen).items()}
        except InputError:
            return {}
    if isinstance(opened.scorer, InnerProduct):
        personal = opened.scorer.personal()
        if personal.any() and not personal.all():
            products = opened.scorer.users[user] * opened.scorer.items[chosen[0]]
            return {
                "taste": products[:, personal].sum(1).numpy(),
                "offset": products[:, ~personal].sum(1).numpy(),
            }
    return {}


def attended_attributes(opened: Trained, user: int, items: np.ndarray) -> list[str]:
    """The attribute of each item to which the user attends most, with its share, for a model that says so.

    Args:
        items: (C,) item indices.

    Returns:
        One text an item ("looks at neckline, 43 %"); an empty list for a model without attention.
    """
    if not isinstance(opened.model, AttributeAttention):
        return []
    shares = opened.model.attribute_attention(torch.tensor([user]), torch.as_tensor(items)[None])
    names, values = list(shares), torch.stack([share[0] for share in shares.values()], 1)
    best, most = values.argmax(1).tolist(), values.amax(1).tolist()
    return [f"looks at {names[a]}, {100 * share:.0f} %" for a, share in zip(best, most, strict=True)]


def closest_purchases(
    opened: Trained, user: UserIndex, items: ItemIndices, most: Count
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The purchases that pull items up, for a model that compares items with them (`PurchaseParts`).

    Args:
        items: (C,) item indices.
        most: purchases of each item.

    Returns:
        For each item the user's most similar training items, best first, and their similarities; an empty list for
        another kind of model.
    """
    if not isinstance(opened.model, PurchaseParts):
        return []
    history = opened.dataset.train.of(user)
    similarity = opened.model.purchase_similarity(user, torch.as_tensor(items)).numpy()
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
    return [(history[order], values[order]) for order, values in zip(best, similarity, strict=True)]
