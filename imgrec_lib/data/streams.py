"""Large tables of interactions, read block by block: what is kept of a column of text is a number a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.dataset

from imgrec_lib.data.formats import (
    JSON_ENDINGS,
    EmptyTable,
    TextForm,
    columns_of,
    damage_told,
    json_records,
    opened,
    read_text,
    refuse_repeated,
    table_kind,
)
from imgrec_lib.errors import tell, unknown_name
from imgrec_lib.files import Spool

BLOCK = 1 << 24
"""Bytes that are read at a time."""
RECORDS = 50_000
"""JSON objects that are read at a time."""
ROWS = 1 << 21
"""Texts that are numbered at a time: the more, the seldomer the table of the known ones is made."""


def stream_table(
    path: Path,
    columns: Sequence[str],
    numbers: str | None = None,
    *,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Some columns of a table in any of the forms of `formats.read_table`, without ever holding it as a whole.

    Args:
        path: the file, or the folder of Parquet files.
        columns: the columns to read.
        numbers: that one of them which holds numbers if it can.
        names: the names of all columns, for delimited text without a header.
        encoding: see `read_table`.
        progress: whether to show a progress bar, where the file is text.

    Returns:
        Each column as a categorical of texts, null where a cell is empty; `numbers` as float64 where every cell holds
        one. The columns lie in files without a name, memory-mapped.

    Raises:
        InputError: the file is missing, empty or damaged, or lacks a column.
    """
    known = names or columns_of(path, encoding)
    refuse_repeated(known, path)
    for column in columns:
        if column not in known:
            raise unknown_name(f"column of {path}", column, known)
    kind = table_kind(path)

    def read(form: TextForm | None = None) -> pd.DataFrame:
        for numeric in dict.fromkeys((numbers, None)):
            try:
                return _collected(blocks(form, numeric), columns, numeric)
            except pa.ArrowException as error:
                if "invalid UTF8" in str(error):
                    raise UnicodeError from None
                if numeric is None:
                    raise
        raise AssertionError("the last reading has returned or raised")

    def blocks(form: TextForm | None, numeric: str | None) -> Iterator[Mapping[str, Any]]:
        types = {column: pa.float64() if column == numeric else pa.string() for column in columns}
        if form is not None:
            yield from _blocks_of_text(path, form, types, names, progress)
        elif kind == ".parquet":
            for batch in pyarrow.dataset.dataset(path).to_batches(columns=list(columns)):
                yield {column: batch[column].cast(types[column]) for column in columns}
        else:
            records = json_records(path, progress)
            while some := list(islice(records, RECORDS)):
                yield {column: _of_records(some, column, types[column]) for column in columns}

    with damage_told(path, pa.ArrowException, UnicodeError):
        text = kind != ".parquet" and kind not in JSON_ENDINGS
        table = read_text(path, encoding, read) if text else read()
    if table.empty:
        raise EmptyTable(f"{path} is empty: it has no rows.")
    return table


def _blocks_of_text(
    path: Path, form: TextForm, types: Mapping[str, pa.DataType], names: Sequence[str] | None, progress: bool
) -> Iterator[Mapping[str, pa.Array]]:
    encoding = "utf8" if form.encoding == "utf-8-sig" else form.encoding  # Arrow's own, without a detour over Python
    skipped, rows = form.skipped + (names is None), 0
    with opened(path, progress) as file:
        counted = _CountedLines(file)
        for block in pa.csv.open_csv(
            counted,
            pa.csv.ReadOptions(
                block_size=BLOCK, column_names=names or form.names, skip_rows=skipped, encoding=encoding
            ),
            pa.csv.ParseOptions(delimiter=form.separator),
            pa.csv.ConvertOptions(include_columns=list(types), column_types=dict(types)),
        ):
            rows += len(block)
            yield block
    if counted.breaks > skipped + rows:
        with opened(path) as file:
            swallowed = sum(1 for line in file if line.strip(b"\0\r\n")) - skipped - rows
        if swallowed > 0:
            tell(
                f"{path} has {swallowed:,} lines more than rows: a quotation mark is not closed, by which rows became "
                "part of a cell, or a text has several lines; close it, or take the marks away."
            )


class _CountedLines:
    """A file that is read once, and how many line breaks were in it."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.breaks = file, 0

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.breaks += content.count(b"\n")
        return content


def _of_records(records: Sequence[Mapping[str, Any]], column: str, kind: pa.DataType) -> pa.Array:
    values = [record.get(column) for record in records]
    if kind == pa.string():
        values = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return pa.array(values, kind)


def _collected(blocks: Iterator[Mapping[str, pa.Array]], columns: Sequence[str], numeric: str | None) -> pd.DataFrame:
    with ExitStack() as stack:
        spools = {column: stack.enter_context(Spool()) for column in columns}
        texts = {column: _Texts(spool) for column, spool in spools.items() if column != numeric}
        for block in blocks:
            for column in columns:
                if column == numeric:
                    spools[column].append(block[column].to_numpy(zero_copy_only=False))
                else:
                    texts[column].append(block[column])
        categories = {column: each.ended() for column, each in texts.items()}
        table: dict[str, Any] = {column: spool.array() for column, spool in spools.items()}
    for column, distinct in categories.items():
        table[column] = pd.Categorical.from_codes(table[column].astype(np.int32, copy=False), distinct)
    return pd.DataFrame(table, copy=False)


class _Texts:
    """A column of text, of which a number a row is written: its text's in the order of appearance, -1 for none."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.known = spool, pa.array([], pa.string())
        self.waiting: list[pa.Array] = []

    def append(self, values: pa.Array) -> None:
        self.waiting.append(values)
        if sum(map(len, self.waiting)) >= ROWS:
            self._number()

    def ended(self) -> pd.Index:
        """The different texts, after all rows were written."""
        self._number()
        return pd.Index(self.known.to_pylist(), dtype=object)

    def _number(self) -> None:
        encoded = pa.chunked_array(self.waiting, pa.string()).combine_chunks().dictionary_encode()
        self.waiting = []
        distinct = encoded.dictionary
        numbers = pa.compute.index_in(distinct, self.known).fill_null(-1).to_numpy(zero_copy_only=False).copy()
        new = (numbers < 0) & (pa.compute.binary_length(distinct).to_numpy() > 0)
        numbers[new] = len(self.known) + np.arange(new.sum())
        self.known = pa.concat_arrays([self.known, distinct.filter(pa.array(new))])
        # Where a cell is null the last number is taken, which stands for none.
        places = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
        self.spool.append(np.append(numbers, -1).astype(np.int32)[places])
