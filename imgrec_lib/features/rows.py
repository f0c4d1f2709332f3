"""Files with one row an item, of which those that an earlier file has are taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imgrec_lib.data.images import ImageStore

BLOCK_BYTES = 1 << 26
"""Of rows that are copied at a time."""


def earlier_rows(
    images: ImageStore, place: Callable[[str], Path], shape: tuple[int, ...], dtype: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """What an earlier store of pictures has left that the new one can use; None where there is nothing.

    Args:
        images: the new store.
        place: where the `.npy` file lies that was made of the store with that fingerprint.
        shape: (n_items, ...) of the new file.
        dtype: of both.

    Returns:
        The earlier file, memory-mapped, and (n_items,) int64 the row there of each item, -1 where its picture is new.
    """
    for earlier in images.earlier:
        try:
            values = np.lib.format.open_memmap(place(earlier.fingerprint), mode="r")
        except (OSError, ValueError):
            continue
        fits = values.shape[1:] == shape[1:] and values.dtype == np.dtype(dtype)
        if fits and earlier.rows.max(initial=-1) < len(values) and (earlier.rows >= 0).any():
            return values, earlier.rows
    return None


def write_rows(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    earlier: tuple[np.ndarray, np.ndarray] | None,
    compute: Callable[[np.ndarray], Iterator[np.ndarray]],
) -> None:
    """Write a `.npy` file whose rows are taken over where that is possible, and computed where not.

    Args:
        path: the file.
        shape: (n_items, ...).
        dtype: of the file, such as "<f4".
        earlier: see `earlier_rows`.
        compute: gives the rows of some items, (n,) int64 and ascending, in their order, some at a time.
    """
    missing, row_bytes = np.arange(shape[0]), int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    # Written as a stream, not through a memory map, for which a full disk is a fatal signal.
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        start = file.tell()
        if earlier is not None:
            values, rows = earlier
            missing = np.flatnonzero(rows < 0)
            for part in np.array_split(rows, -(-len(rows) * row_bytes // BLOCK_BYTES)):
                # Of a row that is missing something is written too, and overwritten below.
                file.write(values[np.maximum(part, 0)].tobytes())
        done = 0
        for block in compute(missing):
            for item, row in zip(missing[done : done + len(block)], block, strict=True):
                file.seek(start + int(item) * row_bytes)
                file.write(np.ascontiguousarray(row, dtype=dtype).tobytes())
            done += len(block)
