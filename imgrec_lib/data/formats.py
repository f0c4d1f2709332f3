"""Files that tables come in: delimited text, JSON lines, and Parquet; compressed or not, in whatever encoding."""

from __future__ import annotations

import bz2
import codecs
import csv
import errno
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
from tqdm.utils import CallbackIOWrapper

from imgrec_lib.errors import InputError, one_line, tell
from imgrec_lib.progress import progress_bar

JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
RECBOLE_ENDINGS = (".inter", ".item")
"""RecBole's atomic files: tabs between the columns, and a header that says their types ("user_id:token")."""
TABLE_ENDINGS = (".csv", ".parquet", ".tsv", *JSON_ENDINGS)
COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ZIP = ".zip"
SEPARATORS = ",;\t|"
HEAD = 1 << 16
"""Bytes in which the encoding, the comments and the header are looked for."""

NOTHING = "{path} is empty: it needs a header line and rows."

Read = TypeVar("Read")


class TextForm(NamedTuple):
    """How a file of delimited text is written.

    Attributes:
        encoding: as Python calls it.
        skipped: how many lines stand before the header: comments, and the line "sep=;".
        separator: between the columns.
        header: the columns' names as they are written.
    """

    encoding: str
    skipped: int
    separator: str
    header: list[str]

    @property
    def names(self) -> list[str]:
        """The columns' names, without the types that RecBole writes behind them."""
        typed = all(re.fullmatch(r".+:(token|token_seq|float|float_seq)", name) for name in self.header)
        return [name.rpartition(":")[0] if typed else name for name in self.header]


class EmptyTable(InputError):
    """A file that holds no rows, which is fine where nothing is needed."""


def find_table(folder: Path, *names: str, recbole: str | None = None) -> Path | None:
    """The table of a folder that has one of some names.

    Args:
        folder: where to look.
        names: names without their ending, the one that is preferred first; upper and lower case are one.
        recbole: how the name of RecBole's file ends that holds the same, such as ".inter"; None where there is none.

    Returns:
        The file, or the folder of Parquet files; None where there is none.

    Raises:
        InputError: several of RecBole's files could be meant.

    Warns when there are several tables of the same name.
    """
    entries = sorted(folder.iterdir())
    for name in names:
        endings = {f"{name}{ending}{packed}".lower(): rank for rank, (ending, packed) in enumerate(_ENDINGS)}
        found = sorted(
            (entry for entry in entries if entry.name.lower() in endings), key=lambda e: endings[e.name.lower()]
        )
        found += [entry for entry in entries if entry.name.lower() == name.lower() and _is_parquet_folder(entry)]
        if len(found) > 1:
            tell(f"{found[0]} is read, and not {', '.join(str(path.name) for path in found[1:])} beside it.")
        if found:
            return found[0]
    if recbole is None:
        return None
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
    kind = table_kind(path)
    if kind == ".parquet":
        with damage_told(path, Exception):  # pandas and PyArrow raise many kinds of exception on a damaged file
            table = pd.read_parquet(path)
        if table.index.name is not None:
            table = table.reset_index()
    elif kind in JSON_ENDINGS:
        table = _read_json(path)
    else:
        table = read_text(path, encoding, lambda form: _parse(path, form))
    refuse_repeated([str(name) for name in table.columns], path)
    if table.empty:
        raise EmptyTable(f"{path} is empty: it has no rows.")
    return table


_ENDINGS = [(ending, packed) for ending in TABLE_ENDINGS for packed in ("", *COMPRESSED, ZIP)]


def table_stem(name: str) -> str | None:
    """The name of a table's file without the ending that says its kind; None where the file is no table."""
    endings = [f"{ending}{packed}" for ending, packed in _ENDINGS]
    return next((name[: -len(ending)] for ending in endings if name.lower().endswith(ending)), None)


def _is_parquet_folder(path: Path) -> bool:
    return path.is_dir() and any(part.suffix.lower() == ".parquet" for part in path.iterdir())


def table_kind(path: Path) -> str:
    """The ending that says what a table's file is, in lower case: one of `TABLE_ENDINGS` or `RECBOLE_ENDINGS`.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}: check the path.")
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


def refuse_repeated(names: Sequence[str], path: Path) -> None:
    """Refuse two columns of one name.

    Raises:
        InputError: as it says.
    """
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path} has two columns named {repeated!r}: rename one.")


def columns_of(path: Path, encoding: str | None = None) -> list[str]:
    """The names of a table's columns; see `read_table`.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    kind = table_kind(path)
    if kind == ".parquet":
        with damage_told(path, pa.ArrowException):
            names = list(map(str, pyarrow.dataset.dataset(path).schema.names))
    elif kind in JSON_ENDINGS:
        names = list(next(json_records(path, progress=False), {}))
    else:
        names = read_text(path, encoding, lambda form: form.names, told=False)
    if not names:
        raise EmptyTable(NOTHING.format(path=path))
    return names


@contextmanager
def opened(path: Path, progress: bool = False) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed.

    Raises:
        InputError: there is no such file; or it is damaged, wherever that is met.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path.")
    ending = path.suffix.lower()
    with (
        damage_told(path),
        open(path, "rb") as file,
        progress_bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        counted = cast(IO[bytes], CallbackIOWrapper(bar.update, file, "read")) if progress else file
        if ending == ZIP:
            with _only_member(path, counted) as content:
                yield content
        elif ending in COMPRESSED:
            with COMPRESSED[ending](counted, "rb") as content:
                yield content
        else:
            yield counted


def _only_member(path: Path, file: IO[bytes]) -> IO[bytes]:
    """The content of the one table in a zip archive."""
    try:
        archive = zipfile.ZipFile(file)
        members = [member for member in archive.namelist() if not member.endswith("/")]
        members = [member for member in members if not member.startswith("__MACOSX/")]
        if len(members) != 1:
            raise InputError(f"{path} holds {len(members)} files: leave the one that is the table in it.")
        return archive.open(members[0])
    # By it zipfile says that a file is encrypted, and by NotImplementedError, which is one, that it is packed by a
    # method that Python does not have.
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be read ({one_line(error)}): unpack it with the program that made it."
        ) from None


@contextmanager
def damage_told(path: Path, *more: type[Exception]) -> Iterator[None]:
    """What is raised where a file is damaged, or may not be read, becomes a sentence.

    Args:
        path: the file.
        more: the exceptions that say so of what the block reads with beside the libraries of compression.

    Raises:
        InputError: as it says. Other failures, of the memory or the system, stay the exceptions that they are.
    """
    damage: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, *more)
    try:
        yield
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): ask for the permission to read it.") from None
    except damage as error:
        # An OSError with a number is the system's, one without a library's; by EINVAL the system refuses to seek where
        # damaged content says.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise InputError(f"{path} cannot be read ({one_line(error)}): correct it, or get the file again.") from None


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


def read_text(path: Path, encoding: str | None, read: Callable[[TextForm], Read], *, told: bool = True) -> Read:
    """What is read from delimited text, in the first encoding that fits.

    Args:
        path: the file.
        encoding: its encoding; None where the text is UTF-8, UTF-16 or Windows-1252, whichever it is.
        read: reads the text by its form, and raises UnicodeError where the encoding is another.
        told: whether to warn of an encoding that was guessed.

    Raises:
        InputError: no encoding fits.
    """
    with opened(path) as file:
        head = file.read(HEAD)
    proven = encoding or _encoding_by_its_marks(head)
    for chosen in [proven] if proven else ["utf-8-sig", "cp1252"]:
        try:
            found = read(_form_of(path, head, chosen))
        except UnicodeError:
            continue
        if told and encoding is None and chosen != "utf-8-sig":
            tell(
                f"{path} is not UTF-8 text and was read as {'Windows-1252' if chosen == 'cp1252' else 'UTF-16'}: if "
                "letters are wrong, name its encoding with the option encoding, or save it as UTF-8."
            )
        return found
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


def _form_of(path: Path, head: bytes, encoding: str) -> TextForm:
    """How the text is written that begins with `head`."""
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
    separator = separator or ("\t" if table_kind(path) in RECBOLE_ENDINGS else max(SEPARATORS, key=header.count))
    return TextForm(encoding, skipped, separator, next(csv.reader([header], delimiter=separator), []))


def _parse(path: Path, form: TextForm) -> pd.DataFrame:
    """Read delimited text of a known form."""
    refuse_repeated(form.names, path)  # which pandas would rename
    # Without `index_col` a row with more cells than the header has names would shift them all by one.
    with (
        warnings.catch_warnings(action="error", category=pd.errors.ParserWarning),
        damage_told(path, pd.errors.ParserError),
        opened(path) as file,
        io.TextIOWrapper(file, form.encoding, newline="") as text,
    ):
        for _ in range(form.skipped):
            text.readline()
        try:
            table = pd.read_csv(
                text, sep=form.separator, dtype=str, keep_default_na=False, na_values=[""], quoting=csv.QUOTE_MINIMAL,
                index_col=False,
            )  # fmt: skip
        except pd.errors.EmptyDataError:
            raise EmptyTable(NOTHING.format(path=path)) from None
        except pd.errors.ParserWarning:
            raise InputError(
                f"{path} has rows with more cells than its header has names: give every row as many."
            ) from None
    table = table.rename(columns=dict(zip(form.header, form.names, strict=True)))
    _tell_of_swallowed_rows(table, path, form.separator)
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
    """Objects as rows; what is nested in them becomes text."""
    table = pd.DataFrame(list(json_records(path, progress=False)), dtype=object)
    nested = table.map(lambda value: isinstance(value, dict | list))
    table = table.mask(nested, table.where(nested).map(json.dumps, na_action="ignore"))
    return table.mask(table.isna() | (table == ""), np.nan)


def records_of(path: Path, progress: bool = True) -> Iterator[dict[str, Any]]:
    """The rows of JSON lines or of Parquet, what is nested in them included.

    Raises:
        InputError: see `json_records`; or the file is of another kind.
    """
    kind = table_kind(path)
    if kind == ".parquet":
        with damage_told(path, pa.ArrowException, UnicodeError):
            for batch in pyarrow.dataset.dataset(path).to_batches():
                yield from batch.to_pylist()
    elif kind in JSON_ENDINGS:
        yield from json_records(path, progress)
    else:
        raise InputError(f"{path} is neither JSON lines nor Parquet: save it as one of these.")


def json_records(path: Path, progress: bool = True) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line or all in one list; the file may be compressed.

    Raises:
        InputError: the file is missing or damaged, is neither UTF-8 nor UTF-16, or holds what is no object.
    """
    with opened(path) as file:
        encoding = _encoding_by_its_marks(file.read(HEAD)) or "utf-8-sig"
    with opened(path, progress) as file, io.TextIOWrapper(file, encoding) as text:
        number = 0
        try:
            for number, line in enumerate(text, 1):
                if not line.strip():
                    continue
                listed = number == 1 and line.lstrip().startswith("[")
                records = json.loads(line + text.read()) if listed else [json.loads(line)]
                if not all(isinstance(record, dict) for record in records):
                    raise InputError(
                        f"{path} holds JSON values that are no objects, in line {number}: write one object a row, with "
                        "the columns' names."
                    )
                yield from records
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path} cannot be read ({one_line(error)}, in line {number}): write one JSON object a line, or get "
                "the file again."
            ) from None
