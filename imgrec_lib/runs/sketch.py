"""A few numbers of each item's features, by which a run knows again what it was trained on, whoever rounds it."""

from __future__ import annotations

import numpy as np

WIDTH = 8
TOLERANCE = 0.25
"""How far an item's features may have moved, as a share of the spread between items: 32 bits move them by millionths,
bfloat16 by 0.03 to 0.09 (median of items, networks with trained and random weights, with and without options)."""
MOST_MOVED = 0.1
"""Share of items that may have moved further where one side is bfloat16: standardised, a few of its items do."""


def sketch(values: np.ndarray) -> np.ndarray:
    """Random projections, between which distances are on average those between the features.

    The signs of Achlioptas, "Database-friendly random projections" (2003), are the same on every machine.

    Args:
        values: (n_items, n_features) float32.

    Returns:
        (n_items, `WIDTH`) float32.
    """
    bits = np.asarray(np.random.PCG64(0).random_raw(values.shape[1]))[:, None] >> np.arange(WIDTH, dtype=np.uint64)
    signs = 2 * (bits & np.uint64(1)).astype(np.float32) - 1
    return values @ signs / np.float32(np.sqrt(WIDTH))


def moved(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Which items have other features than then, by sketches of (n_items, `WIDTH`): (n_items,) bool."""
    spread = np.sqrt(then.var(axis=0, dtype=np.float64).sum())
    rounding = 1e-6 * np.abs(then).max(initial=0)  # where all items are alike
    return np.asarray(np.linalg.norm(then - now, axis=1) > TOLERANCE * spread + rounding)
