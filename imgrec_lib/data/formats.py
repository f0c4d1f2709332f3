"""Files that tables come in: delimited text, JSON lines, and Parquet; compressed or not, in whatever encoding."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from imgrec_lib.errors import InputError, one_line, tell

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
RECBOLE_ENDINGS = (".inter", ".item")
"""RecBole's atomic files: tabs between the columns, and a header that says their types ("user_id:token")."""
TABLE_ENDINGS = (".csv", ".parquet", ".tsv", *JSON_ENDINGS)
COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ZIP = ".zip"
SEPARATORS = ",;\t|"
HEAD = 1 << 16
"""Bytes in which the encoding, the comments and the header are looked for."""


class EmptyTable(InputError):
    """A file that holds no rows, which is fine where nothing is needed."""


def find_table(folder: Path, *names: str, recbole: str) -> Path | None:
    """The table of a folder that has one of some names.

    Args:
        folder: where to look.
        names: names without their ending, the one that is preferred first; upper and lower case are one.
        recbole: how the name of RecBole's file ends that holds the same, such as ".inter".

    Returns:
        The file, or the folder of Parquet files; None where there is none.

    Raises:
        InputError: several of RecBole's files could be meant.

    Warns when there are several tables of the same name.
    """
    entries = sorted(folder.iterdir())
    for name in names:
        endings = {f"{name}{ending}{packed}": rank for rank, (ending, packed) in enumerate(_ENDINGS)}
        found = sorted(
            (entry for entry in entries if entry.name.lower() in endings), key=lambda e: endings[e.name.lower()]
        )
        found += [entry for entry in entries if entry.name.lower() == name and _is_parquet_folder(entry)]
        if len(found) > 1:
            tell(f"{found[0]} is read, and not {', '.join(str(path.name) for path in found[1:])} beside it.")
        if found:
            return found[0]
    pattern = re.compile(rf"[^.]+{re.escape(recbole)}(\.gz|\.bz2|\.xz|\.zip)?", re.IGNORECASE)
    atomic = [entry for entry in entries if pattern.fullmatch(entry.name)]
    if len(atomic) > 1:
        raise InputError(f"{folder} has several files {recbole} ({atomic[0].name}, {atomic[1].name}): name one.")
    return atomic[0] if atomic else None


def read_table(path: Path, encoding: str | None = None) -> pd.DataFrame:
    """Read a file of delimited text, JSON lines or Parquet, or a folder of Parquet files.

    Text is UTF-8, UTF-16 or else Windows-1252, of which a warning tells; before its header there may be comments (lines
    that begin with "#") and the line "sep=;" of a spreadsheet. Its cells stay text, as written; empty ones are NaN.

    Args:
        path: the file; its ending says what it is, in upper or lower case, with .gz, .bz2, .xz or .zip behind it.
        encoding: of text, where it is another.

    Raises:
        InputError: the file is missing, empty, unreadable or of another kind.

    Warns when a cell holds what looks like further rows, as an open quotation mark makes it.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}: check the path.")
    kind = _kind(path)
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path)
            if table.index.name is not None:
                table = table.reset_index()
        elif kind in JSON_ENDINGS:
            table = _read_json(path)
        else:
            table = _read_text(path, encoding)
    except InputError:
        raise
    except pd.errors.EmptyDataError:
        raise EmptyTable(f"{path} is empty: it needs a header line and rows.") from None
    except pd.errors.ParserWarning:
        raise InputError(
            f"{path} has rows with more cells than its header has names: give every row as many."
        ) from None
    # The engines of pandas raise many kinds of exception on damaged files.
    except Exception as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): save it again as plain CSV or Parquet.") from None
    names = [str(name) for name in table.columns]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has two columns named {repeated[0]!r}: rename one.")
    if table.empty:
        raise EmptyTable(f"{path} is empty: it has no rows.")
    return table


_ENDINGS = [(ending, packed) for ending in TABLE_ENDINGS for packed in ("", *COMPRESSED, ZIP)]


def _is_parquet_folder(path: Path) -> bool:
    return path.is_dir() and any(part.suffix.lower() == ".parquet" for part in path.iterdir())


def _kind(path: Path) -> str:
    """The ending that says what a file is, in lower case."""
    if _is_parquet_folder(path):
        return ".parquet"
    endings = [suffix.lower() for suffix in path.suffixes]
    if endings and endings[-1] in (*COMPRESSED, ZIP):
        endings.pop()
    kind = endings[-1] if endings else ""
    if path.is_dir() or kind not in (*TABLE_ENDINGS, *RECBOLE_ENDINGS):
        raise InputError(
            f"{path} is neither {' nor '.join((*TABLE_ENDINGS, *RECBOLE_ENDINGS))}, nor one of them with .gz, .bz2, "
            ".xz or .zip behind it: convert it to one of them."
        )
    return kind


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed."""
    ending = path.suffix.lower()
    if ending == ZIP:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if not member.endswith("/")]
            members = [member for member in members if not member.startswith("__MACOSX/")]
            if len(members) != 1:
                raise InputError(f"{path} holds {len(members)} files: leave the one that is the table in it.")
            with archive.open(members[0]) as file:
                yield file
    else:
        with COMPRESSED.get(ending, open)(path, "rb") as file:
            yield file


# Text


def check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that Python does not know.

    Raises:
        InputError: as it says.
    """
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        raise InputError(f"there is no encoding {encoding!r}: name one such as 'utf-8', 'cp1252' or 'gbk'.") from None


def _read_text(path: Path, encoding: str | None) -> pd.DataFrame:
    with _opened(path) as file:
        head = file.read(HEAD)
    proven = encoding or _encoding_by_its_marks(head)
    for chosen in [proven] if proven else ["utf-8-sig", "cp1252"]:
        try:
            table = _parse(path, head, chosen)
        except UnicodeError:
            continue
        if encoding is None and chosen != "utf-8-sig":
            tell(
                f"{path} is not UTF-8 text and was read as {'Windows-1252' if chosen == 'cp1252' else 'UTF-16'}: if "
                "letters are wrong, name its encoding with the option encoding, or save it as UTF-8."
            )
        return table
    raise InputError(
        f"{path} is not UTF-8 text"
        + (f", and not {encoding} either" if encoding else "")
        + ": save it with that encoding, or name its own with the option encoding."
    )


def _encoding_by_its_marks(head: bytes) -> str | None:
    """An encoding that the first bytes prove."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Of western text in UTF-16 every other byte is zero, of other text none is.
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 8:
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _parse(path: Path, head: bytes, encoding: str) -> pd.DataFrame:
    """Read delimited text in a known encoding."""
    # The last character of the head may be cut in two.
    lines = re.split(r"\r\n|\n|\r", codecs.getincrementaldecoder(encoding)("strict").decode(head))
    skipped, separator = 0, ""
    for line in lines:
        said = re.fullmatch(r"sep=(.)", line.strip("\"'"), re.IGNORECASE)
        if not said and line.strip() and not line.startswith("#"):
            break
        separator = said[1] if said else separator
        skipped += 1
    header = lines[skipped] if skipped < len(lines) else ""
    separator = separator or ("\t" if _kind(path) in RECBOLE_ENDINGS else max(SEPARATORS, key=header.count))
    names = next(csv.reader([header], delimiter=separator), [])
    if len(set(names)) < len(names):  # which pandas would rename
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns named {repeated!r}: rename one.")
    # Without `index_col` a row with more cells than the header has names would shift them all by one.
    with (
        warnings.catch_warnings(action="error", category=pd.errors.ParserWarning),
        _opened(path) as file,
        io.TextIOWrapper(file, encoding, newline="") as text,
    ):
        for _ in range(skipped):
            text.readline()
        table = pd.read_csv(
            text, sep=separator, dtype=str, keep_default_na=False, na_values=[""], quoting=csv.QUOTE_MINIMAL,
            index_col=False,
        )  # fmt: skip
    if all(re.fullmatch(r".+:(token|token_seq|float|float_seq)", name) for name in names):
        table = table.rename(columns=lambda name: name.rpartition(":")[0])
    _tell_of_swallowed_rows(table, path, separator)
    return table


def _tell_of_swallowed_rows(table: pd.DataFrame, path: Path, separator: str) -> None:
    for column in table:
        cells = table[column].dropna()
        cells = cells[cells.str.contains("\n", regex=False)]
        # A row that was swallowed brought its line break and its separators with it.
        breaks, separators = (cells.str.count(re.escape(sign)).to_numpy(np.int64) for sign in ("\n", separator))
        swallowed = (separators == breaks * (table.shape[1] - 1)) & (separators > 0)
        if swallowed.any():
            tell(
                f"{path} has cells in {column!r} that hold what looks like {breaks[swallowed].sum():,} further rows "
                f"(the first in row {cells.index[swallowed][0] + 1}): a quotation mark there is not closed; close it, "
                "or take it away."
            )


# JSON


def _read_json(path: Path) -> pd.DataFrame:
    """Objects, one a line or in one list; what is nested in them becomes text."""
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8-sig") as text:
        start = text.read(1)
        while start.isspace():
            start = text.read(1)
        if start == "[":
            records = json.loads(start + text.read())
        else:
            records = list(_json_lines(path, start + text.readline(), text))
    if not all(isinstance(record, dict) for record in records):
        raise InputError(
            f"{path} holds JSON values that are no objects: write one object a row, with the columns' names."
        )
    table = pd.DataFrame(records, dtype=object)
    nested = table.map(lambda value: isinstance(value, dict | list))
    table = table.mask(nested, table.where(nested).map(json.dumps, na_action="ignore"))
    return table.mask(table.isna() | (table == ""), np.nan)


def _json_lines(path: Path, first: str, rest: IO[str]) -> Iterator[Any]:
    number = 1
    for line in (first, *rest):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path} cannot be read ({one_line(error)}, in line {number}): write one JSON object a line."
                ) from None
        number += 1
