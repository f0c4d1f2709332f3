"""WARP's search for an item that violates the margin, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from imgrec_lib.compiled import Array, compiled, dot


@compiled
def first_violators(
    users: Array, positives: Array, trials: Array, owned: Array, user_table: Array, item_table: Array, item_bias: Array
) -> Array:
    """The first trial that scores above its positive less 1 and is not owned; the number of trials where none is.

    Args:
        users, positives: (B,) int64.
        trials: (B, T) int64 items.
        owned: ascending int64, user * n_items + item of everything that users own.
        user_table, item_table: (n, k).
        item_bias: (n_items,).

    Returns:
        (B,) int64.
    """
    found = np.full(len(users), trials.shape[1])
    for at, user in enumerate(users):
        item = positives[at]
        margin = dot(user_table[user], item_table[item]) + item_bias[item] - 1
        for trial, item in enumerate(trials[at]):
            if dot(user_table[user], item_table[item]) + item_bias[item] > margin:
                key = user * len(item_table) + item
                place = np.searchsorted(owned, key)
                if place == len(owned) or owned[place] != key:
                    found[at] = trial
                    break
    return found
