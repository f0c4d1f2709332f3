"""The steps of the optimisers that train tables by row, compiled for the CPU.

Tables are C-contiguous and of one floating-point type; n is a table's length, k its width. What a loop changes, it
changes in place.
"""

from __future__ import annotations

import numpy as np

from imgrec_lib.compiled import Array, compiled, distinct


@compiled
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

    Raises:
        IndexError: there is no such row.
    """
    number = values.dtype.type
    for row in index:
        if not 0 <= row < len(updated):
            raise IndexError("a look-up asks for a row that its table does not have")
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


@compiled
def adam_step(
    index: Array, gradient: Array, values: Array, mean: Array, square: Array, updated: Array, now: int,
    lr: float, b1: float, b2: float, eps: float,
) -> None:  # fmt: skip
    """Adam's step number `now` on the rows that have a gradient, all of which are up to date.

    Args:
        index: (m,) int64 rows.
        gradient: (m, k): their gradients, of which those of the same row add up.
        values, mean, square, updated: see `settle`.
        now: the number of the step, from 1.
        lr, b1, b2, eps: Adam's settings.
    """
    number = values.dtype.type
    rows, totals = _added_up(index, gradient)
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


@compiled
def adagrad_step(index: Array, gradient: Array, values: Array, square: Array, lr: float, eps: float) -> None:
    """Adagrad's step on the rows that have a gradient; `square` is the (n, k) sum of squares, else see `adam_step`."""
    number = values.dtype.type
    rows, totals = _added_up(index, gradient)
    rate, added = number(lr), number(eps)
    for at, row in enumerate(rows):
        for column in range(values.shape[1]):
            slope = totals[at, column]
            power = square[row, column] + slope * slope
            square[row, column] = power
            values[row, column] -= rate * slope / (np.sqrt(power) + added)


@compiled
def _added_up(index: Array, gradient: Array) -> tuple[Array, Array]:
    """The different rows of `index`, and the sums of their gradients."""
    rows, places = distinct(index)
    totals = np.zeros((len(rows), gradient.shape[1]), gradient.dtype)
    for at, place in enumerate(places):
        totals[place] += gradient[at]
    return rows, totals
