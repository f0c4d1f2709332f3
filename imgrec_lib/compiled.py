"""Loops that Numba compiles for the CPU. PyTorch would need a dozen operations on few numbers for each of them.

This module says how a loop is compiled, and holds the loops that several packages share; every other loop stands beside
the code that calls it. A module of loops is imported where a loop is called, not at the top of a file: Numba takes half
a second to import, and most of the library does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray

SPREAD = np.uint64(11400714819323198485)
"""2 ** 64 / golden ratio, for Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4)."""

TINY = 2.0**-125
"""Twice the smallest normal number of float32: what a product may lose that is smaller still."""

LEAST = 2.0**-100
"""A row of no larger numbers is rounded to zeros."""


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile at the first call; the result is kept beside the function's file or else in the user's cache."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy", **options)
    except RuntimeError:  # neither can be written
        return njit(function, nogil=True, error_model="numpy", **options)


def summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile so that terms of a sum may be added in another order, many at once."""
    return compiled(function, fastmath={"reassoc", "contract"})


@compiled
def distinct(index: Array) -> tuple[Array, Array]:
    """Each value once, and where each is among them.

    Args:
        index: (m,) int64.

    Returns:
        (d,) int64 different values in the order of their first occurrence, and (m,) int64 places: `different[places]`
        is `index`.
    """
    bits = 1
    while 2**bits < 2 * len(index):
        bits += 1
    # A hash table with open addressing, which stays in the nearest cache as an array over all rows does not.
    slots = np.full(2**bits, -1)
    different, places, found = np.empty_like(index), np.empty_like(index), 0
    for at, value in enumerate(index):
        slot = np.int64((np.uint64(value) * SPREAD) >> np.uint64(64 - bits))
        while slots[slot] >= 0 and different[slots[slot]] != value:
            slot = (slot + 1) % len(slots)
        if slots[slot] < 0:
            slots[slot], different[found] = found, value
            found += 1
        places[at] = slots[slot]
    return different[:found].copy(), places


@summing
def dot(a: Array, b: Array) -> float:
    """The inner product of two (k,) vectors."""
    total = a.dtype.type(0)
    for column in range(len(a)):
        total += a[column] * b[column]
    return total


@compiled
def pair_scores(users: Array, items: Array, rows: Array, lists: Array) -> Array:
    """Inner products of users with items of their own.

    Args:
        users, items: (n_users, k) and (n_items, k).
        rows, lists: (B,) and (B, C) int64.

    Returns:
        (B, C), of the tables' type.

    Raises:
        IndexError: there is no such user or item.
    """
    scores = np.empty(lists.shape, users.dtype)
    for at, row in enumerate(rows):
        for column, item in enumerate(lists[at]):
            if not (0 <= row < len(users) and 0 <= item < len(items)):
                raise IndexError("there is no such user or item")
            scores[at, column] = dot(users[row], items[item])
    return scores


@summing
def square(a: Array) -> float:
    """The squared length of a (k,) vector, in float64."""
    total = 0.0
    for column in range(len(a)):
        total += np.float64(a[column]) ** 2
    return total


@compiled
def round_rows(table: Array) -> tuple[Array, Array, Array, float]:
    """The rows of a table in a quarter of its memory, and how far they are off.

    Args:
        table: (n, k) float32.

    Returns:
        (n, k) int8 codes and (n,) float32 steps: row i is about `steps[i] * codes[i]`. (n,) float32 slacks: for any u,
        `dot(u, row i)` exceeds `steps[i]` times the inner product of u and `codes[i]`, which is summed up in float32
        too, by at most |u| * slacks[i], and `TINY * (1 + steps[i])` for each of the k terms. The length of all rows
        together, which is finite where every number is.
    """
    n, k = table.shape
    codes, steps, slacks = np.zeros((n, k), np.int8), np.zeros(n, np.float32), np.empty(n, np.float32)
    total, rest = 0.0, np.empty(k)
    for row in range(n):
        largest = np.float32(0)
        for column in range(k):
            largest = max(largest, abs(table[row, column]))
        if largest > LEAST:
            steps[row] = largest / np.float32(127)
        step = np.float64(steps[row])
        per_step = 1 / step if step > 0 else 0.0
        for column in range(k):
            code = np.rint(table[row, column] * per_step)
            codes[row, column], rest[column] = np.int8(code), table[row, column] - step * code
        # Rounding takes from each of the two products at most k * 2 ** -24 of |u| times its row's length (Higham,
        # Accuracy and Stability of Numerical Algorithms, 3.1), in whatever order terms are added; a row of codes is no
        # longer than the row and the rest. Twice that covers the rounding of these numbers, too.
        size, off = square(table[row]), np.sqrt(square(rest))
        slacks[row] = off + (k + 2) * 2.0**-23 * (2 * np.sqrt(size) + off) + TINY
        total += size
    return codes, steps, slacks, np.sqrt(total)
