"""Times are read by the form of each value, against Python's own datetime; what is uncertain is asked or told."""

from __future__ import annotations

import calendar
import datetime
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgrec_lib.data import load_dataset
from imgrec_lib.data.times import EARLIEST, LATEST, check_forms, read_times
from imgrec_lib.errors import InputError, InputWarning

UTC = datetime.UTC
moment = lambda seconds: datetime.datetime.fromtimestamp(seconds, UTC)  # noqa: E731


def read(*values: Any, forms: Any = None) -> list[int]:
    return read_times(pd.Series(list(values)), "time", Path("t.csv"), forms).tolist()


def silently(*values: Any, forms: Any = None) -> list[int]:
    with warnings.catch_warnings(action="error"):
        return read(*values, forms=forms)


# Each form as a function of the second, and how many seconds it rounds down to.
FORMS: dict[str, tuple[Callable[[int], Any], int]] = {
    "seconds": (str, 1),
    "seconds as numbers": (int, 1),
    "seconds as floats": (float, 1),
    "milliseconds": (lambda s: str(1000 * s + 999), 1),
    "microseconds": (lambda s: str(10**6 * s + 1), 1),
    "nanoseconds": (lambda s: 10**9 * s, 1),
    "date in one number": (lambda s: moment(s).strftime("%Y%m%d"), 86_400),
    "date in one float": (lambda s: float(moment(s).strftime("%Y%m%d")), 86_400),
    "minute in one number": (lambda s: moment(s).strftime("%Y%m%d%H%M"), 60),
    "second in one number": (lambda s: moment(s).strftime("%Y%m%d%H%M%S"), 1),
    "ISO day": (lambda s: moment(s).strftime("%Y-%m-%d"), 86_400),
    "ISO": (lambda s: moment(s).isoformat(), 1),
    "ISO in Tokyo": (lambda s: moment(s).astimezone(datetime.timezone(datetime.timedelta(hours=9))).isoformat(), 1),
    "ISO with fraction": (lambda s: moment(s).strftime("%Y-%m-%dT%H:%M:%S.987Z"), 1),
    "BigQuery": (lambda s: moment(s).strftime("%Y-%m-%d %H:%M:%S UTC"), 1),
    "BigQuery with fraction": (lambda s: moment(s).strftime("%Y-%m-%d %H:%M:%S.123456 UTC"), 1),
    "PostgreSQL": (lambda s: moment(s).strftime("%Y-%m-%d %H:%M:%S+00"), 1),
    "slashes, year first": (lambda s: moment(s).strftime("%Y/%m/%d %H:%M"), 60),
    "Amazon": (lambda s: moment(s).strftime("%m %-d, %Y"), 86_400),
    "month's name": (lambda s: moment(s).strftime("%b %d, %Y"), 86_400),
    "month's name, day first": (lambda s: moment(s).strftime("%d %B %Y %H:%M:%S"), 1),
    "email": (lambda s: moment(s).strftime("%a, %d %b %Y %H:%M:%S GMT"), 1),
    "Twitter": (lambda s: moment(s).strftime("%a %b %d %H:%M:%S +0000 %Y"), 1),
    "datetime": (lambda s: moment(s), 1),
    "date": (lambda s: moment(s).date(), 86_400),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(seconds=st.lists(st.integers(EARLIEST + 86_400, LATEST - 86_400), min_size=1, max_size=4))
def test_each_form_is_read_without_a_word(form: str, seconds: list[int]) -> None:
    written, unit = FORMS[form]
    assert silently(*map(written, seconds)) == [s // unit * unit for s in seconds]


@settings(max_examples=50, deadline=None)
@given(seconds=st.lists(st.integers(EARLIEST + 86_400, LATEST - 86_400), min_size=2, max_size=6), data=st.data())
def test_a_column_of_several_forms_is_read_value_by_value_and_told(seconds: list[int], data: st.DataObject) -> None:
    chosen = [data.draw(st.sampled_from(sorted(FORMS))) for _ in seconds]
    values = [FORMS[form][0](s) for form, s in zip(chosen, seconds, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_times(pd.Series(values, dtype=object), "time", Path("t.csv")).tolist()
    assert found == [s // FORMS[form][1] * FORMS[form][1] for form, s in zip(chosen, seconds, strict=True)]


def test_one_row_of_another_unit_is_named() -> None:
    with pytest.warns(
        InputWarning, match=r"'time' of t\.csv have several forms, .* seconds in rows 1, 3; milli.* row 2"
    ):
        assert read("1600000000", "1600000000686", "1600000005") == [1_600_000_000, 1_600_000_000, 1_600_000_005]


DAY_FIRST = ["13/09/2020 12:26", "01/02/2020 1:05", "3.4.2020", "04-03-2020 23:59:59"]


def test_days_and_months_are_read_where_the_column_proves_their_order() -> None:
    stamp = lambda *parts: calendar.timegm((*parts, 0, 0, 0)[:6])  # noqa: E731
    expected = [stamp(2020, 9, 13, 12, 26), stamp(2020, 2, 1, 1, 5), stamp(2020, 4, 3), stamp(2020, 3, 4, 23, 59, 59)]
    assert silently(*DAY_FIRST) == expected
    assert silently("9/13/2020 1:05 PM", "9/1/2020 12:05 am", "2/3/2020 12:00:30 pm") == [
        stamp(2020, 9, 13, 13, 5), stamp(2020, 9, 1, 0, 5), stamp(2020, 2, 3, 12, 0, 30),
    ]  # fmt: skip
    assert silently("01/02/2020", forms="day first") == [stamp(2020, 2, 1)]
    assert silently("01/02/2020", forms="month first") == [stamp(2020, 1, 2)]
    for values, rows in ((["01/02/2020"], "row 1"), (["13/09/2020", "9/13/2020", "1/2/2020"], "row 3")):
        with pytest.raises(
            InputError, match=rf"in {rows}: which number is the day cannot be told; say time_format='day"
        ):
            read(*values)
    with pytest.raises(InputError, match="in row 2: it has not the form 'day first'"):
        read("13/09/2020", "9/13/2020", forms="day first")


def test_days_of_a_spreadsheet_are_told() -> None:
    with pytest.warns(InputWarning, match="were read as days of a spreadsheet: from 2020-09-13 to 2020-09-14"):
        assert read("44087.51852", "44088") == [1_600_000_000, 1_600_041_600]
    assert silently(44087, 44088.5, forms="spreadsheet") == [1_599_955_200, 1_600_084_800]
    assert silently(44087, forms="seconds") == [44087]


@pytest.mark.parametrize("values", [[0, 0], ["1", "2"], ["-3600", "5"], ["1970-01-01", "1970-01-02"], [20_209_999]])
def test_a_table_in_1970_is_told(values: list[Any]) -> None:
    with pytest.warns(InputWarning, match=r"were read as .*: from 19(69|70).* If they are something else, say what"):
        read(*values)


def test_single_times_long_ago_are_told() -> None:
    with pytest.warns(InputWarning, match=r"stand in row 2 lie before 1980 or after 2100 \(the first is 1970-01-01\)"):
        assert read("2020-09-13", "1970-01-01") == [1_599_955_200, 0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1_600_000_000, 0], "has 0 as 'time' in row 2: such a number does not say by itself what it is"),
        ([1_600_000_000_000, -3_600_000], "has -3600000 as 'time' in row 2: such a number"),
        (["1600000000", "44087"], "'44087' as 'time' in row 2: such a number"),
        (["now"], "'now' as 'time' in row 1: times are Unix seconds"),
        (["1600000000", "x", "y", "z", "u", "v"], "'x' as 'time' in rows 2, 3, 4 and 2 others"),
        (["12:26:40", "1:05"], "a time without a day; name the column of the days with time_column"),
        (["2020-02-30"], "'2020-02-30' as 'time' in row 1: times are"),
        ([1e300], "1e[+]300 as 'time' in row 1"),
        ([True], "True as 'time'"),
        (["2020-09-13", None], r"no 'time' in row 2: fill it in"),
    ],
)
def test_what_is_uncertain_gets_a_sentence(values: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_times(pd.Series(values, dtype=object), "time", Path("t.csv"))


def test_the_remedy_for_an_uncertain_number_works() -> None:
    assert silently(1_600_000_000_000, -3_600_000, forms="milliseconds") == [1_600_000_000, -3600]
    assert silently("13.09.20", "1600000000", forms=["%d.%m.%y", "seconds"]) == [1_599_955_200, 1_600_000_000]


@pytest.mark.parametrize(
    ("forms", "sentence"),
    [("second", "unknown form of times .* did you mean 'seconds'"), ([7], "unknown form of times"), ("iso", "unknown")],
)
def test_unknown_forms(forms: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_forms(forms)


def test_a_format_that_pandas_does_not_know() -> None:
    with pytest.raises(InputError, match=r"the form of times '%Q' cannot be used"):
        read("1", forms="%Q")


# In the readers


def shop(folder: Path, **columns: Any) -> pd.DataFrame:
    """Twenty users with five of eight items each, bought at random moments of September 2020."""
    rng = np.random.default_rng(0)
    pairs = [(f"u{u}", f"i{i}") for u in range(20) for i in rng.permutation(8)[:5]]
    table = pd.DataFrame(pairs, columns=["user", "item"])
    table["timestamp"] = 1_600_000_000 + rng.permutation(200_000)[: len(table)]
    folder.mkdir(exist_ok=True)
    return table


def test_one_row_in_milliseconds_moves_no_test_item(tmp_path: Path) -> None:
    table = shop(tmp_path / "seconds")
    table.to_csv(tmp_path / "seconds" / "interactions.csv", index=False)
    table["timestamp"] *= np.where(table.index == 7, 1000, 1)
    shop(tmp_path / "mixed")
    table.to_csv(tmp_path / "mixed" / "interactions.csv", index=False)
    right = load_dataset("table", tmp_path / "seconds", split="time", progress=False)
    with pytest.warns(InputWarning, match="seconds in rows 1, 2, 3 and 96 others; milliseconds in row 8"):
        mixed = load_dataset("table", tmp_path / "mixed", split="time", progress=False)
    assert mixed.fingerprint == right.fingerprint


def test_a_day_and_a_clock_in_two_columns(tmp_path: Path) -> None:
    table = shop(tmp_path)
    times = pd.to_datetime(table.pop("timestamp"), unit="s")
    table.assign(date=times.dt.strftime("%Y-%m-%d"), time=times.dt.strftime("%H:%M:%S")).to_csv(
        tmp_path / "interactions.csv", index=False
    )
    dataset = load_dataset("table", tmp_path, split="time", progress=False)
    table["timestamp"] = times
    table.to_parquet(tmp_path / "whole.parquet")
    whole = load_dataset("table", interactions=tmp_path / "whole.parquet", split="time", progress=False)
    assert dataset.fingerprint == whole.fingerprint


def test_the_form_can_be_given_to_every_reader_with_times(tmp_path: Path) -> None:
    table = shop(tmp_path)
    days = pd.to_datetime(table["timestamp"], unit="s").dt
    table.assign(timestamp=days.strftime("%d.%m.%y %H:%M:%S")).to_csv(tmp_path / "interactions.csv", index=False)
    with pytest.raises(InputError, match=r"or say its form, such as time_format='%d\.%m\.%y'"):
        load_dataset("table", tmp_path, progress=False)
    given = load_dataset("table", tmp_path, time_format="%d.%m.%y %H:%M:%S", progress=False)
    table.to_csv(tmp_path / "interactions.csv", index=False)
    assert given.fingerprint == load_dataset("table", tmp_path, progress=False).fingerprint
    with pytest.raises(InputError, match=r"unknown form of times .* 'days'"):
        load_dataset("table", tmp_path, time_format="days")
    for reader in ("hm", "dvbpr"):
        with pytest.raises(InputError, match=r"unknown form of times .* 'days'"):
            load_dataset(reader, tmp_path, time_format=["days"])
