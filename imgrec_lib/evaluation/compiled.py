"""What evaluation counts, keeps and sums up, compiled for the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from imgrec_lib.compiled import TINY, Array, compiled, dot, square, summing


@summing
def _compare_row(scores: Array, reference: float, least: float | None) -> tuple[Any, ...]:
    """How many of (n,) scores are above the reference, how many equal it, their sum, how many are above `least`.

    Numba compiles a loop of its own for None, without the last count.
    """
    # The counts have the width of the scores: wider counts would halve how many numbers are compared at once.
    higher, tied, total, over = np.int32(0), np.int32(0), scores.dtype.type(0), np.int32(0)
    for column in range(len(scores)):
        score = scores[column]
        higher = np.int32(higher + np.int32(score > reference))
        tied = np.int32(tied + np.int32(score == reference))
        total += score
        if least is not None:
            over = np.int32(over + np.int32(score > least))
    return higher, tied, total, over


@compiled
def compare(scores: Array, starts: Array, references: Array, above: Array, equal: Array, sums: Array) -> None:
    """Compare each row of scores with numbers of its own, and add up what is found.

    Args:
        scores: (B, n).
        starts: (B + 1,) int64: with row r are compared the references from starts[r] up to starts[r + 1], one or more.
        references: (P,), of the scores' type.
        above, equal: (P,) int64, to which the numbers of scores above the reference and equal to it are added.
        sums: (B,), of the scores' type, to which their sums are added.
    """
    for row in range(len(scores)):
        total = scores.dtype.type(0)
        for place in range(starts[row], starts[row + 1]):
            higher, tied, total, _ = _compare_row(scores[row], references[place], None)
            above[place] += higher
            equal[place] += tied
        sums[row] += total


@compiled
def compare_and_keep(
    scores: Array, starts: Array, references: Array, above: Array, equal: Array, sums: Array,
    first: int, users: Array, indptr: Array, owned: Array, items: Array, values: Array,
) -> None:  # fmt: skip
    """`compare` and, while a row is in the nearest cache, take its best items into the user's list.

    Of equal scores those that came first, or have the lower index, stay before the others.

    Args:
        scores: (B, n), of the items first, first + 1, ...
        starts, references, above, equal, sums: see `compare`.
        first: see `scores`.
        users: (B,) int64.
        indptr, owned: what each user may not have in the list, as in `Interactions`.
        items, values: (B, k) int64 and of the scores' type: the lists and their scores, descending; at the start -1 and
            -inf.
    """
    last = values.shape[1] - 1
    for row, user in enumerate(users):
        total, over = scores.dtype.type(0), np.int32(0)
        for place in range(starts[row], starts[row + 1]):
            higher, tied, total, over = _compare_row(scores[row], references[place], values[row, last])
            above[place] += higher
            equal[place] += tied
        sums[row] += total
        if over > 0:
            _keep(scores[row], first, owned[indptr[user] : indptr[user + 1]], items[row], values[row])


@compiled
def _keep(scores: Array, first: int, owned: Array, items: Array, values: Array) -> None:
    last = len(values) - 1
    least = values[last]
    # A few scores at once are looked at together: seldom is one of them among the best.
    for begin in range(0, len(scores), 32):
        part, over = scores[begin : begin + 32], np.int32(0)
        for column in range(len(part)):
            over = np.int32(over + np.int32(part[column] > least))
        if over == 0:
            continue
        for column in range(len(part)):
            score = part[column]
            if score > least:
                item = first + begin + column
                if not _holds(owned, item):
                    _insert(item, score, items, values)
                    least = values[last]


@compiled
def _holds(owned: Array, item: int) -> bool:
    place = np.searchsorted(owned, item)
    return bool(place < len(owned) and owned[place] == item)


@compiled
def _insert(item: int, score: float, items: Array, values: Array) -> None:
    place = len(values) - 1
    while place > 0 and values[place - 1] < score:
        values[place], items[place] = values[place - 1], items[place - 1]
        place -= 1
    values[place], items[place] = score, item


@summing
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
                    square = dot(values, values)
                    weights[item] = number(1) / np.sqrt(square) if square > 0 else number(0)
                weight = weights[item]
                for column in range(len(total)):
                    total[column] += values[column] * weight
                count += int(weight > 0)
                place += 1
            squares[row, at], numbers[row, at] = dot(total, total), count
    return squares, numbers


@compiled
def keep_best(
    scores: Array, first: int, users: Array, indptr: Array, owned: Array, items: Array, values: Array
) -> None:
    """Take the best items of a tile into each user's list: see `compare_and_keep`, whose arguments these are."""
    for row, user in enumerate(users):
        _keep(scores[row], first, owned[indptr[user] : indptr[user + 1]], items[row], values[row])


AHEAD = 16
"""Rows between the one that is multiplied and the one that is asked for from memory."""


def _typed_prefetch(typing: Any, table: Any, place: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [voidptr_t, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [voidptr_t], kind)
        builder.call(prefetch, [address, number(0), number(3), number(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(table, place), build


_prefetch: Any = intrinsic(_typed_prefetch)
"""Ask memory for what lies at a place of an array of bytes, maybe behind its end, and do not wait for it."""


@summing
def keep_best_products(
    user: Array, table: Array, codes: Array, steps: Array, slacks: Array,
    admissible: Array, owned: Array, items: Array, values: Array,
) -> None:  # fmt: skip
    """Take into a user's list the items whose vectors have the largest inner products with the user's.

    A product is computed in full only where the rounded vector does not rule out that it is among the best: a quarter
    of the table's memory is read, and the list is the same.

    Args:
        user: (d,) float32.
        table: (n, d) float32; `codes`, `steps` and `slacks` are those of `round_rows`.
        admissible: (n,) bool, the items that may be listed.
        owned: (o,) int64, ascending, those that may not.
        items, values: (k,) int64 and float32, see `compare_and_keep`.
    """
    length, tiny = np.sqrt(square(user)), len(user) * TINY
    for item in range(len(table)):
        # The catalogue has left the caches since the last request, and memory would be waited for row by row.
        for place in range(0, len(user), 64):
            _prefetch(codes, (item + AHEAD) * len(user) + place)
        about, step = np.float32(0), np.float64(steps[item])
        for column in range(len(user)):
            about += user[column] * np.float32(codes[item, column])
        most = about * step + length * slacks[item] + tiny * (1 + step)
        if most > values[-1] and admissible[item] and not _holds(owned, item):
            score = dot(user, table[item])
            if score > values[-1]:
                _insert(item, score, items, values)
