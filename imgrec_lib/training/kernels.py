"""Loops over rows of tables, compiled by Numba: as PyTorch operations each would be a dozen, on few numbers each.

All arrays are C-contiguous, of one floating-point type, and changed in place; n is the table's length, k its width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call and keep the result beside this file or, failing that, in the user's cache."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:  # neither can be written
        return njit(function, nogil=True, error_model="numpy")


@_compiled
def settle(
    index: Array, values: Array, mean: Array, square: Array, updated: Array, now: int, first: int, sums: Array,
    lr: float, b1: float, b2: float, eps: float,
) -> None:  # fmt: skip
    """Let rows make the steps without gradient that they owe since they were last up to date: see `RowAdam`.

    Args:
        index: (m,) int64 rows, in any order, repeated or not.
        values, mean, square: (n, k) table and its moments.
        updated: (n,) int64, the step up to which each row is up to date.
        now: the present step.
        first: the step to which the first row of `sums` belongs.
        sums: (now - first or more, 2) float64: W and E / eps of `RowAdam` by step of the last update.
        lr, b1, b2, eps: Adam's settings.
    """
    number = values.dtype.type
    for row in index:
        since = updated[row]
        if since == now:
            continue
        updated[row] = now
        weight, epsilon = sums[since - first]
        rate, added = number(lr * weight), number(eps * epsilon / max(weight, 1e-30))
        fading, shrinking, least = number(b1 ** (now - since)), number(b2 ** (now - since)), number(1e-30)
        for column in range(values.shape[1]):
            # A row that has never moved moves by exactly 0.
            root = max(np.sqrt(square[row, column]) + added, least)
            values[row, column] -= rate * mean[row, column] / root
            mean[row, column] *= fading
            square[row, column] *= shrinking


@_compiled
def adam_step(
    index: Array, gradient: Array, values: Array, mean: Array, square: Array, updated: Array, place: Array, now: int,
    lr: float, b1: float, b2: float, eps: float,
) -> None:  # fmt: skip
    """Adam's step number `now` on the rows that have a gradient, all of which are up to date.

    Args:
        index: (m,) int64 rows.
        gradient: (m, k): their gradients, of which those of the same row add up.
        values, mean, square, updated: see `settle`.
        place: (n,) int64, all -1, before and after.
        now: the number of the step, from 1.
        lr, b1, b2, eps: Adam's settings.
    """
    number = values.dtype.type
    rows, totals = _added_up(index, gradient, place)
    rate, correction = number(lr / (1 - b1**now)), number((1 - b2**now) ** -0.5)
    old1, old2, new1, new2, added = number(b1), number(b2), number(1 - b1), number(1 - b2), number(eps)
    for at, row in enumerate(rows):
        updated[row] = now
        for column in range(values.shape[1]):
            slope = totals[at, column]
            moment = old1 * mean[row, column] + new1 * slope
            power = old2 * square[row, column] + new2 * slope * slope
            mean[row, column] = moment
            square[row, column] = power
            values[row, column] -= rate * moment / (np.sqrt(power) * correction + added)


@_compiled
def adagrad_step(
    index: Array, gradient: Array, values: Array, square: Array, place: Array, lr: float, eps: float
) -> None:
    """Adagrad's step on the rows that have a gradient; `square` is the (n, k) sum of squares, else see `adam_step`."""
    number = values.dtype.type
    rows, totals = _added_up(index, gradient, place)
    rate, added = number(lr), number(eps)
    for at, row in enumerate(rows):
        for column in range(values.shape[1]):
            slope = totals[at, column]
            power = square[row, column] + slope * slope
            square[row, column] = power
            values[row, column] -= rate * slope / (np.sqrt(power) + added)


@_compiled
def _added_up(index: Array, gradient: Array, place: Array) -> tuple[Array, Array]:
    """The different rows of `index` in the order of their first occurrence, and the sums of their gradients."""
    rows, totals, found = np.empty_like(index), np.zeros_like(gradient), 0
    for at, row in enumerate(index):
        if place[row] < 0:
            place[row] = found
            rows[found] = row
            found += 1
        totals[place[row]] += gradient[at]
    place[rows[:found]] = -1
    return rows[:found], totals[:found]
