"""Loops compiled by Numba, for the CPU: as PyTorch operations each would be a dozen, on few numbers each.

Import this module where a loop is called, not at the top of a file: Numba takes half a second, and most of the library
does without.

Tables are C-contiguous and of one floating-point type; n is a table's length, k its width. What a loop changes, it
changes in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray

SPREAD = np.uint64(11400714819323198485)
"""2 ** 64 / golden ratio, for Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4)."""


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile at the first call and keep the result beside this file or, failing that, in the user's cache."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy", **options)
    except RuntimeError:  # neither can be written
        return njit(function, nogil=True, error_model="numpy", **options)


def _summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile so that terms of a sum may be added in another order, many at once."""
    return _compiled(function, fastmath={"reassoc", "contract"})


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


@_compiled
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


@_compiled
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


@_compiled
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


@_compiled
def _added_up(index: Array, gradient: Array) -> tuple[Array, Array]:
    """The different rows of `index`, and the sums of their gradients."""
    rows, places = distinct(index)
    totals = np.zeros((len(rows), gradient.shape[1]), gradient.dtype)
    for at, place in enumerate(places):
        totals[place] += gradient[at]
    return rows, totals


@_compiled
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


@_summing
def _dot(a: Array, b: Array) -> float:
    total = a.dtype.type(0)
    for column in range(len(a)):
        total += a[column] * b[column]
    return total


@_compiled
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
        margin = _dot(user_table[user], item_table[item]) + item_bias[item] - 1
        for trial, item in enumerate(trials[at]):
            if _dot(user_table[user], item_table[item]) + item_bias[item] > margin:
                key = user * len(item_table) + item
                place = np.searchsorted(owned, key)
                if place == len(owned) or owned[place] != key:
                    found[at] = trial
                    break
    return found


@_compiled
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
            scores[at, column] = _dot(users[row], items[item])
    return scores


@_summing
def _compare_row(scores: Array, reference: float, least: float) -> tuple[Any, ...]:
    """How many of (n,) scores are above the reference, how many equal it, their sum, how many are above `least`."""
    # Counts as narrow as the scores, lest they halve the numbers that are compared at once.
    higher, tied, total, over = np.int32(0), np.int32(0), scores.dtype.type(0), np.int32(0)
    for column in range(len(scores)):
        score = scores[column]
        higher = np.int32(higher + np.int32(score > reference))
        tied = np.int32(tied + np.int32(score == reference))
        total += score
        over = np.int32(over + np.int32(score > least))
    return higher, tied, total, over


@_compiled
def compare(scores: Array, references: Array, above: Array, equal: Array, sums: Array) -> None:
    """Compare each row of scores with a number of its own, and add up what is found.

    Args:
        scores: (B, n).
        references: (B,), of the same type.
        above, equal: (B,) int64, to which the numbers of scores above the reference and equal to it are added.
        sums: (B,), of the scores' type, to which their sums are added.
    """
    for row in range(len(scores)):
        higher, tied, total, _ = _compare_row(scores[row], references[row], np.inf)
        above[row] += higher
        equal[row] += tied
        sums[row] += total


@_compiled
def compare_and_keep(
    scores: Array, references: Array, above: Array, equal: Array, sums: Array,
    first: int, users: Array, indptr: Array, owned: Array, items: Array, values: Array,
) -> None:  # fmt: skip
    """`compare` and, while a row is in the nearest cache, take its best items into the user's list.

    Of equal scores those that came first, or have the lower index, stay before the others.

    Args:
        scores: (B, n), of the items first, first + 1, ...
        references, above, equal, sums: see `compare`.
        first: see `scores`.
        users: (B,) int64.
        indptr, owned: what each user may not have in the list, as in `Interactions`.
        items, values: (B, k) int64 and of the scores' type: the lists and their scores, descending; at the start -1 and
            -inf.
    """
    last = values.shape[1] - 1
    for row, user in enumerate(users):
        higher, tied, total, over = _compare_row(scores[row], references[row], values[row, last])
        above[row] += higher
        equal[row] += tied
        sums[row] += total
        if over > 0:
            _keep(scores[row], first, owned[indptr[user] : indptr[user + 1]], items[row], values[row])


@_compiled
def _keep(scores: Array, first: int, owned: Array, items: Array, values: Array) -> None:
    last = len(values) - 1
    # A few scores at once are looked at together: seldom is one of them among the best.
    for begin in range(0, len(scores), 32):
        part, least, over = scores[begin : begin + 32], values[last], np.int32(0)
        for column in range(len(part)):
            over = np.int32(over + np.int32(part[column] > least))
        if over == 0:
            continue
        for column in range(len(part)):
            score, item = part[column], first + begin + column
            if score > values[last]:
                place = np.searchsorted(owned, item)
                if place < len(owned) and owned[place] == item:
                    continue
                place = np.int64(last)
                while place > 0 and values[place - 1] < score:
                    values[place], items[place] = values[place - 1], items[place - 1]
                    place -= 1
                values[place], items[place] = score, item


@_summing
def sums_of_lists(lists: Array, features: Array, cutoffs: Array) -> tuple[Array, Array]:
    """Squared length of the sum of each list's feature vectors, each divided by its length; rows of zeros do not count.

    Args:
        lists: (B, k) int64 items, -1 past the end.
        features: (n, d) float32.
        cutoffs: (c,) int64, ascending: how many of the first items are summed.

    Returns:
        (B, c) float64 squared lengths, and (B, c) int64 numbers of vectors.
    """
    number = features.dtype.type
    squares, numbers = np.zeros((len(lists), len(cutoffs))), np.zeros((len(lists), len(cutoffs)), np.int64)
    weights = np.full(len(features), number(-1))  # 1 / length of the rows that were met
    total = np.empty(features.shape[1], features.dtype)
    for row in range(len(lists)):
        total[:] = 0
        count, place = 0, 0
        for at, cutoff in enumerate(cutoffs):
            while place < min(cutoff, lists.shape[1]) and lists[row, place] >= 0:
                item = lists[row, place]
                values = features[item]
                if weights[item] < 0:
                    square = _dot(values, values)
                    weights[item] = number(1) / np.sqrt(square) if square > 0 else number(0)
                weight = weights[item]
                for column in range(len(total)):
                    total[column] += values[column] * weight
                count += int(weight > 0)
                place += 1
            squares[row, at], numbers[row, at] = _dot(total, total), count
    return squares, numbers
