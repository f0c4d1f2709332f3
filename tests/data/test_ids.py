"""Ids stay what they are, digit by digit: what is changed is told with a count, what lost digits is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shops import hm, load, owned

from imgrec_lib.data.ids import how_ids_differ, read_ids
from imgrec_lib.errors import InputError, InputWarning

__all__ = ["hm"]  # a fixture


def read(*values: Any, dtype: Any = None) -> list[str]:
    return read_ids(pd.Series(list(values), dtype=dtype), "item", Path("t.csv")).tolist()


def silently(*values: Any, dtype: Any = None) -> list[str]:
    with warnings.catch_warnings(action="error"):
        return read(*values, dtype=dtype)


def test_what_pandas_takes_for_missing_or_for_numbers_stays_text() -> None:
    ids = ["NULL", "None", "nan", "NA", "N/A", "true", "-1", "1e5", "0x1", "007", "u9", "1.5", "9007199254740993"]
    assert silently(*ids) == ids
    assert silently(*ids, dtype="category") == ids


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float64", "category", object])
def test_whole_numbers_of_any_type_are_written_plainly(dtype: Any) -> None:
    assert silently(7, 10, 7, dtype=dtype) == ["7", "10", "7"]
    assert silently(10**18, 10**18 + 1, dtype="int64") == ["1000000000000000000", "1000000000000000001"]


def test_blanks_and_unicode_forms_are_made_alike_and_told() -> None:
    composed, decomposed = "é", "e\u0301"
    assert composed != decomposed
    with pytest.warns(InputWarning, match=r"'item' of t\.csv had blanks .* in rows 2, 3, 5: .* 3 ids became equal"):
        assert read("a", "a ", "\u00a0a", composed, decomposed) == ["a", "a", "a", composed, composed]
    with pytest.warns(InputWarning, match=r"in row 1: these were taken away\.$"):
        assert read("\ufeffa", "b") == ["a", "b"]


def test_a_decimal_point_behind_all_ids_is_left_out_and_told() -> None:
    with pytest.warns(InputWarning, match=r"whole numbers with a decimal point, such as 6\.0: the point was left out"):
        assert read("6.0", "7.0", "-1.00") == ["6", "7", "-1"]


@pytest.mark.parametrize(("one", "other"), [("0", "00"), ("1", "1.0"), ("100000", "1e5"), ("7", "007")])
def test_equal_numbers_in_two_spellings_are_kept_apart_and_told(one: str, other: str) -> None:
    with pytest.warns(InputWarning, match=f"2 ids in 'item' of t.csv are the same number .*'{one}' and '{other}'"):
        assert read(one, other, "u9") == [one, other, "u9"]


@pytest.mark.parametrize(
    ("values", "dtype", "sentence"),
    [
        ([1.0, float(2**53)], "float64", r"holds 1 numbers of 9,007,199,254,740,992 or more that were floats"),
        ([float(2**53 + 2 * i) for i in range(3)], "category", r"holds 3 numbers of 9,007,199,254,740,992 or more"),
        ([1.0, 2.0**24], "float32", r"holds 1 numbers of 16,777,216 or more that were floats"),
        (["9007199254740992.0", "5.0"], None, r"holds 1 numbers of 9,007"),
        ([6.5, 7.0], "float64", r"holds numbers with decimals, such as 6\.5"),
        (
            ["x", "1.08775E+08", "1.08775E+08"],
            None,
            r"has '1\.08775E\+08' in rows 2, 3: a spreadsheet shortened these ids",
        ),
        (["9.007199254740992e+15"], None, "a spreadsheet shortened"),
        (["a", None, " "], None, r"t\.csv has no 'item' in row 2: fill it in or remove the row"),
        (["a", " "], None, r"t\.csv has no 'item' in row 2: fill it in or remove the row"),
        (["a", "b,1\nu2,c"], None, "spans several lines in row 2: a quotation mark before it is not closed"),
    ],
)
def test_ids_that_lost_something_are_refused(values: list[Any], dtype: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(*values, dtype=dtype)


def test_how_ids_differ() -> None:
    assert "1 of them differ by leading zeros alone" in how_ids_differ(["108775", "x"], ["0108775", "y"])
    assert "('0108775' here is '108775' there)" in how_ids_differ(["0108775"], ["108775"])
    assert "1 of them differ by upper and lower case alone" in how_ids_differ(["SKU-1"], ["sku-1"])
    assert how_ids_differ(["a"], ["b"]) == ""


# In the readers

PAIRS = [(u, i) for u in ("u1", "u2", "u3") for i in ("0108775015", "0108775044", "0110065001")]


def shop(folder: Path, interactions: Any = None, items: Any = None) -> Path:
    table = pd.DataFrame(PAIRS, columns=["user", "item"])
    pd.DataFrame({"item": table["item"].unique(), "name": ["A", "B", "C"]}).to_csv(folder / "items.csv", index=False)
    table.to_csv(folder / "interactions.csv", index=False)
    for name, change in (("interactions", interactions), ("items", items)):
        if change is not None:
            change(pd.read_csv(folder / f"{name}.csv", dtype=str)).to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_the_sentence_about_leading_zeros_and_its_remedy(tmp_path: Path) -> None:
    numbers = lambda table: table.assign(item=table["item"].astype(int))  # noqa: E731
    right = load("table", shop(tmp_path)).fingerprint
    for lost in ({"interactions": numbers}, {"items": numbers}):
        with pytest.raises(InputError, match=r"3 of them differ by leading zeros alone, .*dtype=str") as caught:
            load("table", shop(tmp_path, **lost))
        assert "'108775015'" in str(caught.value) and "'0108775015'" in str(caught.value)
    with pytest.raises(InputError, match="3 of them differ by upper and lower case alone"):
        load(
            "table",
            shop(
                tmp_path,
                items=lambda t: t.assign(item="X" + t["item"]),
                interactions=lambda t: t.assign(item="x" + t["item"]),
            ),
        )
    # The remedy: the column read and saved as text.
    assert load("table", shop(tmp_path, interactions=lambda table: table)).fingerprint == right


def test_blanks_in_one_file_do_not_part_it_from_the_other(tmp_path: Path) -> None:
    right = load("table", shop(tmp_path)).fingerprint
    blank = lambda table: table.assign(item=" " + table["item"], user=table["user"] + "\t")  # noqa: E731
    with pytest.warns(InputWarning, match="'user' of .* had blanks around them"):
        assert load("table", shop(tmp_path, interactions=blank)).fingerprint == right


def test_hm_articles_that_lost_their_zero(hm: Path) -> None:
    right = load("hm", hm).fingerprint
    texts = {name: (hm / name).read_text() for name in ("articles.csv", "transactions_train.csv")}
    for name in texts:
        pd.read_csv(hm / name).to_csv(hm / name, index=False)
        with pytest.raises(InputError, match=r"of them differ by leading zeros alone"):
            load("hm", hm)
        (hm / name).write_text(texts[name])
    for name in texts:
        pd.read_csv(hm / name).to_csv(hm / name, index=False)
    with pytest.raises(
        InputError, match=r"no picture .* differ by leading zeros alone.*'100000000' here is '0100000000' there"
    ):
        load("hm", hm)
    for name in texts:
        (hm / name).write_text(texts[name].replace(",ann,", ", ann,"))
    with pytest.warns(InputWarning, match="'customer_id' of .* had blanks around them .* in rows 1, 2, 3 and 1 others"):
        assert load("hm", hm).fingerprint == right


def test_items_without_a_row_are_refused_kept_or_dropped(tmp_path: Path, hm: Path) -> None:
    four = [("u1", "x"), ("u2", "x")]
    add = lambda table: pd.concat([table, pd.DataFrame(four, columns=["user", "item"])])  # noqa: E731
    folder = tmp_path / "shop"
    folder.mkdir()
    shop(folder, interactions=add, items=lambda t: t.assign(category="hat", product_code=["p", "p", "q"]))
    with pytest.raises(InputError, match=r"1 items .* 'x' \(first in row 10\); .* unlisted_items='keep' or 'drop'"):
        load("table", folder)
    with pytest.warns(
        InputWarning, match="1 items in .* no row in .*: they are kept as items of which nothing is known"
    ):
        kept = load("table", folder, unlisted_items="keep")
    assert owned(kept)["u1"] == {i for _, i in PAIRS} | {"x"}
    assert kept.items.iloc[-1].to_dict() == {"item": "x", "name": "", "category": "unknown", "group": "x"}
    with pytest.warns(InputWarning, match="they are left out, and their 2 interactions"):
        assert owned(load("table", folder, unlisted_items="drop"))["u1"] == {i for _, i in PAIRS}
    with pytest.raises(InputError, match="unknown unlisted_items 'dropp': did you mean 'drop'"):
        load("table", folder, unlisted_items="dropp")

    articles = pd.read_csv(hm / "articles.csv", dtype=str)
    articles.iloc[1:].to_csv(hm / "articles.csv", index=False)
    with pytest.warns(InputWarning, match="they are left out, and their 2 interactions"):
        dropped = load("hm", hm, unlisted_items="drop")
    assert owned(dropped) == {"bob": {"0100000001", "0100000002", "0100000003"}}
    with pytest.warns(InputWarning, match="they are kept"):
        kept = load("hm", hm, unlisted_items="keep")
    assert "0100000000" in owned(kept)["ann"] and kept.images is not None and kept.images.present.all()


def test_ids_of_numbers_in_parquet_and_float_ids_that_merged(tmp_path: Path) -> None:
    table = pd.DataFrame({"user": np.repeat([1, 2, 3], 4), "item": np.tile(2**53 + np.arange(4), 3)})
    table.to_parquet(tmp_path / "interactions.parquet")
    assert load("table", tmp_path).n_items == 4
    table.astype(float).to_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(
        InputError, match=r"'item' of .* holds 3 numbers of 9,007,199,254,740,992 or more that were floats"
    ):
        load("table", tmp_path)
    table["item"] -= 2**53
    table.astype(float).to_parquet(tmp_path / "interactions.parquet")
    assert load("table", tmp_path).items["item"].tolist() == ["0", "1", "2", "3"]
