"""Ids of users and items: text, digit by digit, in one spelling; what a program did to them on the way is told."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import distinct_values, rows_in_words
from imgrec_lib.errors import InputError, shown, tell

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Characters without width, which stay where text was copied from a page."""

EXACT = 2**53
"""Below it whole numbers stay apart as floats."""

AS_TEXT = "save that column as text (in pandas, read it with dtype=str; in a spreadsheet, format its cells as text)"


def plain_id(text: str) -> str:
    """An id without blanks around it, in composed Unicode (NFC): files that look alike may differ in both."""
    return unicodedata.normalize("NFC", text).strip().strip(INVISIBLE).strip()


def read_ids(values: pd.Series, column: str, path: Path) -> pd.Series:
    """Read a column of ids.

    Args:
        values: (n,) texts, or numbers as Parquet files and JSON have them, or a categorical of them.
        column, path: what the sentences call the column, and the file that it comes from.

    Returns:
        (n,) texts as `plain_id` gives them, of dtype object, or a categorical where `values` is one. Whole numbers that
        became floats are whole again.

    Raises:
        InputError: an id is missing, spans lines, or lost digits: as a float beyond the whole numbers that floats tell
            apart, or in the scientific notation of a spreadsheet.

    Warns when ids were changed, and when two ids differ as text but not as numbers.
    """
    what = f"{column!r} of {path}"
    codes, distinct = distinct_values(values.reset_index(drop=True))
    if (codes < 0).any():
        raise InputError(f"{path} has no {column!r} in {rows_in_words(codes < 0)}: fill it in or remove the row.")
    written = _texts(distinct, what)
    plain = written.map(plain_id)
    empty = (plain == "").to_numpy()
    if empty.any():
        raise InputError(f"{path} has no {column!r} in {rows_in_words(empty[codes])}: fill it in or remove the row.")
    broken = plain.str.contains("\n", regex=False).to_numpy(bool)
    if broken.any():
        raise InputError(
            f"{what} spans several lines in {rows_in_words(broken[codes])}: a quotation mark before it is not closed; "
            "close it, or take it away."
        )
    scientific = plain.str.fullmatch(r"\d(\.\d+)?[eE]\+\d{2,}").to_numpy(bool)
    if scientific.any():
        raise InputError(
            f"{what} has {shown(plain[int(scientific.argmax())])} in {rows_in_words(scientific[codes])}: a spreadsheet "
            f"shortened these ids, and their digits are lost; take them from the source again and {AS_TEXT}."
        )
    changed = (plain != written).to_numpy()
    if changed.any():
        equal = len(plain) - plain.nunique()
        tell(
            f"the ids in {what} had blanks around them or another Unicode form in {rows_in_words(changed[codes])}: "
            f"these were taken away{f', by which {equal:,} ids became equal to others' if equal else ''}."
        )
    if len(plain) and plain.str.fullmatch(r"-?\d+\.0+").all():
        _refuse_lost_digits(pd.to_numeric(plain).to_numpy(np.float64), EXACT, what)
        tell(f"the ids in {what} are whole numbers with a decimal point, such as {plain[0]}: the point was left out.")
        plain = plain.str.replace(r"\.0+$", "", regex=True)
    _tell_of_equal_numbers(plain, what)
    if isinstance(values.dtype, pd.CategoricalDtype):
        index, categories = pd.factorize(plain)
        if len(categories) < len(plain):
            codes = index[codes]
        return pd.Series(pd.Categorical.from_codes(codes, pd.Index(categories, dtype=object)))
    return pd.Series(plain.to_numpy(dtype=object)[codes], dtype=object)


def how_ids_differ(ids: Iterable[str], others: Iterable[str]) -> str:
    """What the ids of one file seem to have lost or gained against those of another; empty where nothing is seen.

    Args:
        ids: ids that the other file does not have.
        others: the ids of the other file.
    """
    ids, others = list(ids), list(others)
    for (reason, remedy), alike in _LIKENESSES.items():
        there = {alike(other): other for other in others}
        found = [(one, there[alike(one)]) for one in ids if alike(one) in there]
        if found:
            one, other = found[0]
            return f"{len(found):,} of them {reason} ({one!r} here is {other!r} there): {remedy}"
    return ""


_LIKENESSES: dict[tuple[str, str], Callable[[str], str]] = {
    ("differ by leading zeros alone, which programs drop from numbers", AS_TEXT): lambda text: text.lstrip("0"),
    ("differ by a decimal point alone, which programs add to numbers", AS_TEXT): lambda text: text.removesuffix(".0"),
    ("differ by upper and lower case alone", "write them alike"): str.casefold,
}


def _texts(distinct: pd.Series, what: str) -> pd.Series:
    """Different ids as text."""
    if pd.api.types.is_float_dtype(distinct):
        numbers = distinct.to_numpy(np.float64)
        if (numbers % 1 != 0).any():
            raise InputError(f"{what} holds numbers with decimals, such as {numbers[numbers % 1 != 0][0]}: {AS_TEXT}.")
        _refuse_lost_digits(numbers, 2**24 if distinct.dtype == np.float32 else EXACT, what)
        return distinct.astype(np.int64).astype(str).astype(object)
    return distinct.map(
        lambda value: value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    ).astype(object)


def _refuse_lost_digits(numbers: np.ndarray, largest: int, what: str) -> None:
    lost = np.abs(numbers) >= largest
    if lost.any():
        raise InputError(
            f"{what} holds {lost.sum():,} numbers of {largest:,} or more that were floats, among which neighbouring "
            f"ids are the same: take them from the source again and {AS_TEXT}."
        )


def _tell_of_equal_numbers(ids: pd.Series, what: str) -> None:
    numbers = pd.to_numeric(ids.where(ids.str.fullmatch(r"-?\d+(\.\d*)?([eE]\+?\d+)?"), np.nan), errors="coerce")
    alike = numbers.duplicated(keep=False) & numbers.notna() & (numbers.abs() < EXACT)
    if alike.any():
        first, second, *_ = ids[numbers == numbers[alike].iloc[0]]
        tell(
            f"{int(alike.sum()):,} ids in {what} are the same number as another one, such as {first!r} and {second!r}: "
            "they were kept apart. If they are one, write them alike."
        )
