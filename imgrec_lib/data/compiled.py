"""The sampler's search for items that a user does not own, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from imgrec_lib.compiled import Array, compiled


@compiled
def items_not_owned(users: Array, ranks: Array, indptr: Array, items: Array) -> Array:
    """The items that are not a user's, by their rank among these.

    Args:
        users: (B,) int64.
        ranks: (B, n) int64, from 0.
        indptr, items: the users' items as in `Interactions`, ascending for each user.

    Returns:
        (B, n) int64: for rank r the r-th item, in ascending order, that the user does not own.
    """
    found = np.empty_like(ranks)
    for at, user in enumerate(users):
        begin, end = indptr[user], indptr[user + 1]
        for column, rank in enumerate(ranks[at]):
            low, high = begin, end  # of the user's items, those before `low` lie below the item looked for
            while low < high:
                middle = (low + high) // 2
                if items[middle] - (middle - begin) <= rank:
                    low = middle + 1
                else:
                    high = middle
            found[at, column] = rank + low - begin
    return found
