"""The best items of each user, found tile by tile: the catalogue is never sorted."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.ranking import TILE_ITEMS, Catalogue, at_once, check_finite, owned_rows, sort_keys
from imgrec_lib.models.base import InnerProduct, Scorer
from imgrec_lib.options import Array, Count, Indices

BLOCK_BYTES = 4 * 2**20
"""Size of a tile of scores on a CPU: still in a near cache when its best are looked for."""

FEW = 4
"""So many users, at most, are served one by one, by rounded vectors; for more a tile of the catalogue is read once."""

LARGEST = 2.0**126
"""An inner product that is no larger, and the sums on the way to it, are finite in float32."""


@torch.no_grad()
def top_items(
    scorer: Scorer,
    users: Indices,
    owned: Interactions,
    k: Count,
    *,
    admissible: Annotated[np.ndarray, Array(1, "b")] | None = None,
    user_ids: np.ndarray | None = None,
    device: Device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each user; of items with equal scores the one with the lower index comes first.

    Args:
        scorer: the scores.
        users: (B,) int64 user indices.
        owned: for every user of the scorer, the items that the list must not hold; its catalogue is the scorer's.
        k: length of the lists.
        admissible: (n_items,) bool, the items that a list may hold; None: all.
        user_ids: (n_users,) original ids, for messages.
        device: where the scorer lives.

    Returns:
        Items (B, k) int64, best first, and their scores (B, k) float32; -1 and -inf past the end of the list of a
        user who has fewer than k items left.

    Raises:
        InputError: a user or `k` is out of range, or a score is not finite.
    """
    users = np.asarray(users, np.int64)
    outside = (users < 0) | (users >= owned.n_users)
    if outside.any():
        raise InputError(f"user index {users[outside][0]} does not exist: choose from 0 to {owned.n_users - 1}.")
    ids = np.arange(owned.n_users) if user_ids is None else user_ids
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and len(users) <= FEW and isinstance(scorer, InnerProduct):
        found = _best_products(scorer, users, owned, admissible, k)
        if found is not None:
            return found
    # For few users, the calls for narrow tiles would take longer than the products.
    width = max(TILE_ITEMS, BLOCK_BYTES // (4 * max(len(users), 1)))
    catalogue = Catalogue(scorer, owned.n_items, ids, device, width)
    items, values = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    rows = max(1, BLOCK_BYTES // (4 * catalogue.width))

    @torch.no_grad()
    def fill(start: int) -> None:
        block = slice(start, start + rows)
        find = _best_on_cpu if on_cpu else _best
        items[block], values[block] = find(catalogue, users[block], owned, admissible, k)

    starts = range(0, len(users), rows)
    with at_once(catalogue, len(starts)) as apply:
        for _ in apply(fill, starts):
            pass
    return items, values


def _best_products(
    scorer: InnerProduct, users: np.ndarray, owned: Interactions, admissible: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """`top_items` of vectors, by their rounded ones; None where a score could be other than finite."""
    from imgrec_lib.evaluation import compiled

    table, rounded, length = scorer.rounded
    rows = scorer.users[torch.from_numpy(users)].detach().float().numpy()
    if not np.linalg.norm(rows.astype(np.float64)) * length < LARGEST:
        return None
    admissible = np.ones(len(table), bool) if admissible is None else admissible
    items, values = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    for user, row, *lists in zip(users, rows, items, values, strict=True):
        compiled.keep_best_products(row, table, *rounded, admissible, owned.of(user), *lists)
    return items, values


def _best_on_cpu(
    catalogue: Catalogue, users: np.ndarray, owned: Interactions, admissible: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    from imgrec_lib.evaluation import compiled

    index = torch.as_tensor(users)
    items, values = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    memory = torch.empty(len(users) * catalogue.width)
    for number in range(catalogue.n_tiles):
        scores = check_finite(catalogue.tile(index, number, memory).float(), users, catalogue.user_ids)
        first = number * catalogue.width
        if admissible is not None:
            scores = scores.masked_fill(torch.from_numpy(~admissible[first : first + scores.shape[1]]), -torch.inf)
        compiled.keep_best(scores.contiguous().numpy(), first, users, owned.indptr, owned.items, items, values)
    return items, values


def _best(
    catalogue: Catalogue, users: np.ndarray, owned: Interactions, admissible: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    index = torch.as_tensor(users, device=catalogue.device)
    parts = [catalogue.tile(index, number) for number in range(catalogue.n_tiles)]
    scores = check_finite(torch.cat(parts, 1).float(), users, catalogue.user_ids)
    row, item = (torch.as_tensor(each, device=catalogue.device) for each in owned_rows(owned, users))
    scores = scores.index_put((row, item), scores.new_tensor(-torch.inf))
    if admissible is not None:
        scores[:, torch.as_tensor(~admissible, device=catalogue.device)] = -torch.inf
    width = min(k, owned.n_items)
    best = sort_keys(scores).topk(width, dim=1).indices
    chosen = scores.gather(1, best)
    items, values = np.full((len(users), k), -1, np.int64), np.full((len(users), k), -np.inf, np.float32)
    items[:, :width] = torch.where(chosen == -torch.inf, -1, best).cpu().numpy()
    values[:, :width] = chosen.cpu().numpy()
    return items, values
