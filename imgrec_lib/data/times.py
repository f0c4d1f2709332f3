"""Times as people write them: each value is read by its own form where that is certain, else a sentence asks.

Certain are, between 1980 and 2100: Unix times in seconds, milliseconds, microseconds or nanoseconds, whose numbers are
that far apart; dates in one number (20200913, 20200913122640); ISO 8601, also with "UTC" behind it as BigQuery writes
it; dates with the month's name; and Amazon's "09 13, 2020". Dates such as 13/09/2020 are read where the column proves
which number is the day. A column in which no value is certain is one of days of a spreadsheet where all its numbers can
be that, else one of seconds, and a warning says so. Times without a zone are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from imgrec_lib.data.columns import distinct_values, rows_in_words
from imgrec_lib.errors import InputError, one_line, shown, tell, unknown_name

EARLIEST, LATEST = 315_532_800, 4_102_444_800
"""1980 and 2100 in Unix seconds: between them a number tells its unit."""
END = 253_402_300_800
"""The end of the year 9999 in Unix seconds: what lies beyond it is no time."""
SPREADSHEET_EPOCH, DAY = -2_209_161_600, 86_400
"""Day 0 of a spreadsheet, 30 December 1899, in Unix seconds; and the seconds of a day."""
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Units of Unix times, and how many of them are a second."""

CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?"
NUMBERED_MONTH = rf"(\d{{1,2}})[/.-](\d{{1,2}})[/.-](\d{{4}})(?:,? +({CLOCK}))?"
MONTH_NAMED = [
    *(
        day + clock
        for day in ("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y")
        for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
    ),
    "%a, %d %b %Y %H:%M:%S",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
]

Reader = Callable[[pd.Series], np.ndarray]
"""(n,) texts -> (n,) float64 Unix seconds, NaN for what has not the reader's form."""


def read_times(values: pd.Series, column: str, path: Path, forms: str | Sequence[str] | None = None) -> np.ndarray:
    """Read a column of times.

    Args:
        values: (n,) numbers, texts, dates or datetimes, or a categorical of them.
        column, path: what the sentences call the column, and the file that it comes from.
        forms: see `check_forms`; a value that several can read is read by the first of them.

    Returns:
        (n,) int64 Unix seconds, rounded down.

    Raises:
        InputError: a time is missing or has no form that is certain; the sentence names the rows.

    Unless forms were asked for, warns when the column spans several, when no value's form was certain, and when times
    lie before 1980 or after 2100.
    """
    asked = check_forms(forms)
    values = values.reset_index(drop=True)
    missing = values.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{path} has no {column!r} in {rows_in_words(missing)}: fill it in, or remove what has no time."
        )
    # A column has fewer different times than rows, in particular of days: of these, once, by `codes`.
    codes, seconds, kinds, names = None, np.full(1, np.nan), np.zeros(len(values), "i1"), ["datetimes"]
    if pd.api.types.is_datetime64_any_dtype(values):
        seconds = _seconds(pd.to_datetime(values, utc=True))
    elif pd.api.types.is_numeric_dtype(values) and not asked:  # most tables: no text is made of millions of numbers
        names = list(UNITS)
        seconds, kinds = _first_of([_CERTAIN[unit] for unit in UNITS], values)
    if np.isnan(seconds).any():
        codes, distinct = distinct_values(values)
        seconds, kinds, names = _read_by_form(distinct.astype(str).str.strip(), asked)
    unread = np.isnan(seconds)
    if unread.any():
        unread = unread if codes is None else unread[codes]
        raise InputError(
            f"{path} has {shown(values.tolist()[int(unread.argmax())])} as {column!r} in "
            f"{rows_in_words(unread)}: {_remedy(values[unread].astype(str).str.strip(), asked)}"
        )
    if not asked:
        _tell_what_is_odd(seconds, kinds, names, f"{column!r} of {path}", codes)
    whole = np.floor(seconds).astype(np.int64)
    return whole if codes is None else whole[codes]


def check_forms(forms: str | Sequence[str] | None) -> list[str]:
    """The forms of times that somebody asks for, as a list.

    Args:
        forms: one or several of "seconds", "milliseconds", "microseconds", "nanoseconds", "spreadsheet" (its days),
            "day first", "month first", and formats of `strptime` such as "%d.%m.%Y"; None for those that are certain.

    Raises:
        InputError: one is none of them.
    """
    listed = [] if forms is None else [forms] if isinstance(forms, str) else list(forms)
    for form in listed:
        if form not in _NAMED and not (isinstance(form, str) and "%" in form):
            raise unknown_name("form of times (time_format)", form, [*_NAMED, "a format such as %d.%m.%Y"])
    return listed


def are_clock_times(values: pd.Series) -> bool:
    """Whether all values are times of a day, such as 12:26:40, that do not say which."""
    return bool(values.astype(str).str.fullmatch(rf" *{CLOCK} *").all())


def _read_by_form(texts: pd.Series, asked: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read different values.

    Returns:
        (n,) Unix seconds, NaN where none of the forms fits; (n,) index of the form that did; and the forms' names.
    """
    readers = {form: _NAMED.get(form) or _format(form) for form in asked} or _CERTAIN
    seconds, kinds = _first_of(list(readers.values()), texts)
    if not asked and np.isnan(seconds).all():
        days, early = (reader(texts) for reader in _OF_A_WHOLE_COLUMN.values())
        index = int(np.isnan(days).any())
        return (days, early)[index], np.full(len(texts), index, "i1"), list(_OF_A_WHOLE_COLUMN)
    return seconds, kinds, list(readers)


def _remedy(texts: pd.Series, asked: Sequence[str]) -> str:
    """What to do about values that were not read."""
    if asked:
        return f"it has not the form {' or '.join(map(repr, asked))}; add its own to time_format."
    if are_clock_times(texts):
        return "this is a time without a day; name the column of the days with time_column."
    parts = texts.str.extract(rf"^{NUMBERED_MONTH}$")
    if all((_numbers(parts[k]) <= 12).all() for k in (0, 1)):
        return "which number is the day cannot be told; say time_format='day first' or time_format='month first'."
    if not np.isnan(_numbers(texts)).any():
        return (
            "such a number does not say by itself what it is; correct it, remove the row, or name the unit of all "
            f"times by time_format={', '.join(map(repr, UNITS))} or 'spreadsheet'."
        )
    return (
        "times are Unix seconds, milliseconds or ISO dates such as 2020-09-16; correct it, or say its form, such as "
        "time_format='%d.%m.%y'."
    )


def _tell_what_is_odd(
    seconds: np.ndarray, kinds: np.ndarray, names: Sequence[str], column: str, codes: np.ndarray | None
) -> None:
    """Warn of times, of all rows or of the different ones whose `codes` say which row has which."""

    def rows(chosen: np.ndarray) -> np.ndarray:
        return chosen if codes is None else chosen[codes]

    used = [names[kind] for kind in np.unique(kinds)]
    if len(used) > 1:
        found = {name: rows(kinds == names.index(name)) for name in used}
        commonest_first = sorted(used, key=lambda name: -found[name].sum())
        listed = "; ".join(f"{name} in {rows_in_words(found[name])}" for name in commonest_first)
        tell(f"the times in {column} have several forms, and each was read by its own: {listed}.")
    odd = (seconds < EARLIEST) | (seconds >= LATEST)
    if odd.all() or not _OF_A_WHOLE_COLUMN.keys().isdisjoint(used):
        tell(
            f"the times in {column} were read as {' and '.join(used)}: from {_day(seconds.min())} to "
            f"{_day(seconds.max())}. If they are something else, say what with time_format; a split by time needs only "
            "their order."
        )
    elif odd.any():
        tell(
            f"the times in {column} that stand in {rows_in_words(rows(odd))} lie before 1980 or after 2100 (the first "
            f"is {_day(seconds[odd][0])}): if that cannot be, correct them or remove the rows."
        )


def _day(seconds: float) -> str:
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))


# The forms


def _first_of(readers: Sequence[Reader], texts: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Unix seconds by the first reader that can read a value, and that reader's index."""
    seconds, kinds = np.full(len(texts), np.nan), np.zeros(len(texts), "i1")
    for index, reader in enumerate(readers):
        left = np.flatnonzero(np.isnan(seconds))
        if len(left):
            seconds[left], kinds[left] = reader(texts.iloc[left]), index
    return seconds, kinds


def _any_of(readers: Sequence[Reader]) -> Reader:
    return lambda texts: _first_of(readers, texts)[0]


def _matching(pattern: str, reader: Reader, replaced: str = "") -> Reader:
    """A reader of the texts that match a pattern, for which it is given what `replaced` makes of them."""

    def read(texts: pd.Series) -> np.ndarray:
        found = np.full(len(texts), np.nan)
        fits = texts.str.fullmatch(pattern).to_numpy(bool)
        if fits.any():
            plain = texts[fits].str.replace(rf"^{pattern}$", replaced, regex=True) if replaced else texts[fits]
            found[fits] = reader(plain)
        return found

    return read


def _format(written: str) -> Reader:
    """A reader by a format of `strptime`, or by pandas' "ISO8601"."""

    def read(texts: pd.Series) -> np.ndarray:
        try:
            # Whatever the format, pandas takes the words "now" and "today" for times.
            dated = texts.where(texts.str.contains(r"\d"))
            return _seconds(pd.to_datetime(dated, format=written, utc=True, errors="coerce"))
        except ValueError as error:
            raise InputError(f"the form of times {written!r} cannot be used ({one_line(error)}): correct it.") from None

    return read


def _seconds(times: pd.Series) -> np.ndarray:
    """Unix seconds of datetimes, NaN for what is none."""
    plain = times.dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.where(np.isnat(plain), np.nan, plain.astype(np.int64) / 10**6)


def _numbers(texts: pd.Series) -> np.ndarray:
    """(n,) float64, NaN for what is no finite number."""
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _unit(name: str, first: int = -END, end: int = END) -> Reader:
    return lambda texts: _between(_numbers(texts) / UNITS[name], first, end)


def _spreadsheet(first: int = -END, end: int = END) -> Reader:
    # A spreadsheet's day has as many decimals as it takes to tell milliseconds apart.
    return lambda texts: _between(np.round(SPREADSHEET_EPOCH + DAY * _numbers(texts), 3), first, end)


def _between(seconds: np.ndarray, first: int, end: int) -> np.ndarray:
    return np.where((seconds >= first) & (seconds < end), seconds, np.nan)


def _numbered_month(day_first: bool | None) -> Reader:
    """A reader of dates such as 13/09/2020 and 9/13/2020 1:05 PM.

    Args:
        day_first: whether the day stands before the month; None where the values are to prove it: a number above 12 is
            a day, and where all such stand on one side, the others are like them.
    """

    def read(texts: pd.Series) -> np.ndarray:
        parts = texts.str.extract(rf"^{NUMBERED_MONTH}$")
        first, second = (pd.to_numeric(parts[k]).to_numpy(np.float64) for k in (0, 1))
        if day_first is None:
            before, after = first > 12, second > 12
            before, after = before | (before.any() and not after.any()), after | (after.any() and not before.any())
        else:
            before, after = np.full(len(texts), day_first), np.full(len(texts), not day_first)
        found = np.full(len(texts), np.nan)
        for chosen, day, month in ((before, 0, 1), (after, 1, 0)):
            rows = chosen & parts[2].notna().to_numpy() & np.isnan(found)
            if rows.any():
                clock = parts[3][rows].fillna("00:00").str.zfill(5)
                found[rows] = _YEAR_FIRST(
                    parts[2][rows] + "-" + parts[month][rows] + "-" + parts[day][rows] + " " + clock
                )
        return found

    return read


_YEAR_FIRST = _any_of([_format("ISO8601"), *map(_format, ("%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p"))])

_CERTAIN: dict[str, Reader] = {
    **{name: _unit(name, EARLIEST, LATEST) for name in UNITS},
    "dates in one number": _any_of(
        [
            _matching(rf"((?:19|20)\d{{{digits}}})(?:\.0+)?", _format(written), r"\1")
            for digits, written in ((6, "%Y%m%d"), (10, "%Y%m%d%H%M"), (12, "%Y%m%d%H%M%S"))
        ]
    ),
    "ISO dates": _matching(r"(\d{4}\D\d.*?|\d{8}T.*?) *(?:UTC|GMT)?", _format("ISO8601"), r"\1"),
    "Amazon's dates": _matching(r"\d{1,2} \d{1,2}, \d{4}", _format("%m %d, %Y")),
    "dates with the month's name": _matching(
        r"(.*?[A-Za-z]{3}.*?) *(?:UTC|GMT)?", _any_of(list(map(_format, MONTH_NAMED))), r"\1"
    ),
    "dates such as 13/09/2020": _numbered_month(None),
}
"""Forms that a value says by itself, the commonest first; no value has two of them."""

_OF_A_WHOLE_COLUMN: dict[str, Reader] = {
    "days of a spreadsheet": _spreadsheet(EARLIEST, LATEST),
    "seconds since 1970": _unit("seconds", -EARLIEST, EARLIEST),
}

_NAMED: dict[str, Reader] = {
    **{name: _unit(name) for name in UNITS},
    "spreadsheet": _spreadsheet(),
    "day first": _numbered_month(True),
    "month first": _numbered_month(False),
}
