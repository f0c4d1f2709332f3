"""Large tables of interactions, read block by block: what is kept of a column of text is a number a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from tqdm.utils import CallbackIOWrapper

from imgrec_lib.data.columns import rows_in_words
from imgrec_lib.data.formats import COMPRESSED
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.progress import progress_bar

BLOCK = 1 << 24
"""Bytes that are read at a time."""
LINES = 50_000
"""Lines of JSON that are read at a time."""
MILLISECONDS_FROM = 1e11
"""Numbers from here on are milliseconds since 1970: as seconds they would lie in the year 5138."""


def stream_csv(
    path: Path,
    texts: Sequence[str],
    numbers: Sequence[str] = (),
    *,
    separator: str = ",",
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Some columns of a file of delimited text, which may be compressed (.gz, .bz2).

    Args:
        path: the file.
        texts, numbers: the columns to read.
        separator: between the columns.
        names: the columns' names, for a file without a header.
        progress: whether to show a progress bar.

    Returns:
        Texts as categoricals, numbers as float64.

    Raises:
        InputError: the file is missing, empty or damaged, or lacks a column.
    """
    wanted = [*texts, *numbers]
    types = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.float64())

    def blocks() -> Iterator[Mapping[str, pa.Array]]:
        with _opened(path, progress) as file:
            yield from pa.csv.open_csv(
                file,
                pa.csv.ReadOptions(block_size=BLOCK, column_names=names),
                pa.csv.ParseOptions(delimiter=separator),
                pa.csv.ConvertOptions(include_columns=wanted, column_types=types),
            )

    try:
        return _collected(path, blocks(), texts, numbers)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path} cannot be read ({reason}): correct that row, or get the file again.") from None
    except KeyError as error:
        raise InputError(f"{path} lacks a column ({error.args[0]}): get the file as it is published.") from None


def stream_json(
    path: Path, texts: Sequence[str], numbers: Sequence[str] = (), *, progress: bool = True
) -> pd.DataFrame:
    """Some fields of a file with a JSON object a line, which may be compressed; see `stream_csv`.

    Raises:
        InputError: the file is missing, empty or damaged, or an object lacks a field.
    """

    def blocks() -> Iterator[Mapping[str, pa.Array]]:
        kinds = [(name, pa.string()) for name in texts] + [(name, pa.float64()) for name in numbers]
        rows: dict[str, list[Any]] = {name: [] for name, _ in kinds}
        for number, record in enumerate(json_lines(path, progress), 1):
            for name in rows:
                if record.get(name) is None:
                    raise InputError(f"{path} has no {name!r} in line {number}: get the file as it is published.")
                rows[name].append(record[name])
            if number % LINES == 0:
                yield {name: pa.array(rows[name], kind) for name, kind in kinds}
                rows = {name: [] for name in rows}
        yield {name: pa.array(rows[name], kind) for name, kind in kinds}

    try:
        return _collected(path, blocks(), texts, numbers)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): get the file as it is published.") from None


def json_lines(path: Path, progress: bool = True) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line, which may be compressed.

    Raises:
        InputError: the file is missing or damaged, or a line holds no object.
    """
    with _opened(path, progress) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path} cannot be read ({one_line(error)}, in line {number}): get it again."
                ) from None
            if not isinstance(record, dict):
                raise InputError(f"{path} holds no JSON object in line {number}: get the file as it is published.")
            yield record


def first_line(path: Path) -> str:
    """The first line of a file of text, which may be compressed.

    Raises:
        InputError: the file is missing or damaged.
    """
    with _opened(path, progress=False) as file:
        return file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")


def unix_seconds(numbers: np.ndarray, column: str, path: Path) -> np.ndarray:
    """Times as numbers of seconds or milliseconds since 1970: (n,) float64 -> (n,) int64 Unix seconds, rounded down.

    Raises:
        InputError: one is missing; the sentence names its row.
    """
    missing = ~np.isfinite(numbers)
    if missing.any():
        raise InputError(f"{path} has no {column!r} in {rows_in_words(missing)}: get the file as it is published.")
    unit = 1000 if len(numbers) and np.median(numbers) >= MILLISECONDS_FROM else 1
    return np.floor(numbers / unit).astype(np.int64)


@contextmanager
def _opened(path: Path, progress: bool) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed; its damage, wherever it is met, becomes a sentence."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path.")
    with (
        open(path, "rb") as file,
        progress_bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        counted = CallbackIOWrapper(bar.update, file, "read")
        opener = COMPRESSED.get(path.suffix.lower())
        try:
            if opener is None:
                yield cast(IO[bytes], counted)
            else:
                with opener(counted, "rb") as content:
                    yield content
        except (EOFError, OSError) as error:
            raise InputError(f"{path} is damaged ({one_line(error)}): get the file again.") from None


def _collected(
    path: Path, blocks: Iterable[Mapping[str, pa.Array]], texts: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    known: dict[str, dict[str, int]] = {column: {} for column in texts}
    parts: dict[str, list[np.ndarray]] = {column: [] for column in (*texts, *numbers)}
    for block in blocks:
        for column in texts:
            parts[column].append(_numbered(block[column], known[column]))
        for column in numbers:
            parts[column].append(block[column].to_numpy(zero_copy_only=False))
    table = {column: np.concatenate(found) if found else np.empty(0) for column, found in parts.items()}
    if not any(len(found) for found in table.values()):
        raise InputError(f"{path} is empty: it has no rows.")
    coded = {
        column: pd.Categorical.from_codes(table[column].astype(np.int32), pd.Index(list(known[column]), dtype=object))
        for column in texts
    }
    return pd.DataFrame({**coded, **{column: table[column] for column in numbers}})


def _numbered(values: pa.Array, numbers: dict[str, int]) -> np.ndarray:
    """The number of each text, (n,) int32; `numbers` gives those that it does not hold the next ones."""
    encoded = values.dictionary_encode()
    codes = [numbers.setdefault(text, len(numbers)) for text in encoded.dictionary.to_pylist()]
    return np.array(codes, dtype=np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]
