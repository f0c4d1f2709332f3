"""What counts as a purchase: by option, or told; what is left out of a dataset is counted aloud."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from shops import hm, load, owned

from imgrec_lib.errors import InputError, InputWarning

__all__ = ["hm"]  # a fixture

ITEMS = "abcde"


def shop(folder: Path, **columns: Any) -> Path:
    """Three users who each bought five items in order; the last one is no purchase by the columns given."""
    rows = [(u, i, 1_600_000_000 + 1000 * n + k) for n, u in enumerate(("u0", "u1", "u2")) for k, i in enumerate(ITEMS)]
    table = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    for name, (good, bad) in columns.items():
        table[name] = [bad if item == "e" else good for item in table["item"]]
    table.to_csv(folder / "interactions.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("column", "good", "bad", "options", "told"),
    [
        ("rating", 5.0, 1.0, {"weight_column": "rating", "min_weight": 3.0}, r"'rating' \(from 1 to 5, 3 rows below"),
        ("overall", 5, 2, {"min_weight": 3}, r"'overall' \(from 2 to 5, 3 rows below the middle\): .* min_weight=4\."),
        ("quantity", 1, -1, {"weight_column": "quantity", "min_weight": 1}, r"'quantity' \(3 rows have 0 or less"),
        ("quantity", 2, 0, {"weight_column": "quantity", "min_weight": 1}, r"'quantity' \(3 rows have 0 or less"),
        ("price", 9.5, -9.5, {"weight_column": "price", "min_weight": 0}, r"'price' \(3 rows have 0 or less"),
        (
            "review",
            "five stars",
            "one star",
            {"where": {"review": "five stars"}},
            r"'review' \('five stars' in 12 rows",
        ),
        ("state", "paid", "returned", {"where": {"state": ["paid"]}}, r"'state' \('paid' in 12 rows, 'returned' in 3"),
        ("cancelled", False, True, {"where": {"cancelled": False}}, r"'cancelled' \('False' in 12 rows, 'True' in 3"),
        ("event", "buy", "look", {"where": {"event": "buy"}}, r"'event' \('buy' in 12 rows, 'look' in 3 rows\)"),
    ],
)
def test_a_column_that_says_no_purchase_is_noticed_and_obeyed_by_option(
    tmp_path: Path, column: str, good: Any, bad: Any, options: dict[str, Any], told: str
) -> None:
    shop(tmp_path, **{column: (good, bad)})
    with pytest.warns(InputWarning, match=rf"every row of .* was counted as a purchase, whatever its {told}"):
        everything = load("table", tmp_path, split="time")
    assert owned(everything)["u0"] == set(ITEMS) and everything.test.items.tolist() == [4, 4, 4]
    with pytest.warns(InputWarning, match=r"^12 of 15 rows in .* count as interactions\.$"):
        chosen = load("table", tmp_path, split="time", **options)
    assert owned(chosen)["u0"] == set("abcd") and chosen.test.items.tolist() == [3, 3, 3]


def test_plain_purchases_are_not_talked_about(tmp_path: Path) -> None:
    shop(tmp_path, rating=(5, 5), quantity=(1, 3), price=(2.5, 9.0), shop=("Turin", "Paris"))
    with warnings.catch_warnings(action="error"):
        load("table", tmp_path)


def test_what_a_repeated_pair_is_worth(tmp_path: Path) -> None:
    rows = [
        ("u", "a", 1, 1), ("u", "a", 2, -1),  # bought and returned
        ("u", "b", 1, 1), ("u", "b", 2, -1), ("u", "b", 3, 1),  # bought again
        ("u", "c", 5, 1), ("u", "c", 4, -1),  # the file is not in the order of time
        ("u", "d", 1, 2), ("u", "d", 2, -1),  # one of two returned
        ("u", "e", 1, 1), ("u", "f", 1, 1), ("u", "g", 1, 1),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user", "item", "time", "quantity"])
    table["time"] += 1_600_000_000
    table.to_csv(tmp_path / "interactions.csv", index=False)
    weights = {"weight_column": "quantity", "min_weight": 1}
    expected = {"first": "abdefg", "last": "bcefg", "sum": "bdefg"}
    for repeated, items in expected.items():
        dataset = load("table", tmp_path, repeated=repeated, **weights)
        assert owned(dataset)["u"] == set(items), repeated
    # Without weights it says which row's time counts.
    for repeated, last in (("first", ["c"]), ("last", ["c"])):
        dataset = load("table", tmp_path, repeated=repeated, split="time")
        assert [dataset.items["item"][i] for i in dataset.test.items] == last


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weight_column": "rating"}, "weight_column needs min_weight too"),
        ({"repeated": "sum"}, "repeated='sum' adds up weights: name their column with weight_column"),
        ({"repeated": "sums"}, "unknown repeated 'sums': did you mean 'sum'"),
        ({"weight_column": "ratin", "min_weight": 1}, "unknown column of .* 'ratin': did you mean 'rating'"),
        ({"where": {"stat": "paid"}}, "unknown column of .* 'stat': did you mean 'state'"),
        ({"where": {"state": "payd"}}, "unknown value of 'state' in .* 'payd': did you mean 'paid'"),
        (
            {"weight_column": "state", "min_weight": 1},
            "has 'paid' as 'state' in rows 1, 2, 3 and 12 others: a",
        ),
        ({"weight_column": "rating", "min_weight": 6}, "no row of .* is an interaction by where, weight_column and"),
        ({"where": "paid"}, "option 'where' of dataset table must be dict or None, not 'paid'"),
        ({"min_weight": "3"}, "option 'min_weight' of dataset table must be float or None, not '3'"),
    ],
)
def test_sentences_about_what_counts(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    shop(tmp_path, rating=(5, 1), state=("paid", "returned"))
    with pytest.raises(InputError, match=sentence), warnings.catch_warnings(action="ignore"):
        load("table", tmp_path, **options)


def test_a_threshold_without_a_column_asks_which(tmp_path: Path) -> None:
    shop(tmp_path)
    with pytest.raises(InputError, match=r"has no weight column .* name it with weight_column"):
        load("table", tmp_path, min_weight=3)


def test_several_columns_that_could_be_the_item(tmp_path: Path) -> None:
    table = pd.DataFrame({"user_id": list("uuuu"), "asin": list("abcd"), "parent_asin": list("xxyz")})
    table.to_csv(tmp_path / "interactions.csv", index=False)
    with pytest.warns(InputWarning, match="could be the item: 'asin' was taken, and not 'parent_asin'"):
        assert owned(load("table", tmp_path))["u"] == set("abcd")
    with warnings.catch_warnings(action="error"):
        assert owned(load("table", tmp_path, item_column="parent_asin"))["u"] == set("xyz")
    table.drop(columns="asin").to_csv(tmp_path / "interactions.csv", index=False)
    assert owned(load("table", tmp_path))["u"] == set("xyz")


# What is left out is counted


def test_users_dropped_by_the_minimum_are_counted(tmp_path: Path) -> None:
    rows = [(f"u{u}", i) for u in range(10) for i in ITEMS[: 5 if u < 3 else 2]]
    pd.DataFrame(rows, columns=["user", "item"]).to_csv(tmp_path / "interactions.csv", index=False)
    with pytest.warns(
        InputWarning,
        match=r"table: 7 of 10 users have fewer than 5 different items and are left out, and with them 14 of 29 inter",
    ):
        assert load("table", tmp_path, min_interactions=5).n_users == 3


def columns_of_rows(folder: Path, names: list[str], **more: Any) -> pd.DataFrame:
    """The shop's rows under other names, with items 1 to 5; the last item of each user is no purchase."""
    shop(folder, **more)
    table = pd.read_csv(folder / "interactions.csv").rename(columns=dict(zip(TABLE, names, strict=True)))
    (folder / "interactions.csv").unlink()
    table[names[1]] = table[names[1]].map(lambda item: f"000000000{ITEMS.index(item)}")
    return table


TABLE = ["user", "item", "timestamp"]


def test_covers_and_hm_notice_and_obey_what_is_no_purchase(tmp_path: Path, hm: Path) -> None:
    folder = tmp_path / "covers shop"
    (folder / "covers").mkdir(parents=True)
    for item in range(5):
        Image.new("RGB", (4, 4)).save(folder / "covers" / f"000000000{item}.png")
    columns_of_rows(folder, TABLE, stars=(5, 1)).to_csv(folder / "log.csv", index=False)
    with pytest.warns(
        InputWarning, match=r"every row of .*log\.csv was counted as a purchase, whatever its 'stars' \(from"
    ):
        assert len(owned(load("covers", folder))["u0"]) == 5
    assert len(owned(load("covers", folder, min_weight=3, weight_column="stars"))["u0"]) == 4
    purchases = pd.read_csv(hm / "transactions_train.csv", dtype=str)
    again = purchases.iloc[[0]].assign(quantity="-1")
    pd.concat([purchases.assign(quantity="1"), again]).to_csv(hm / "transactions_train.csv", index=False)
    with pytest.warns(InputWarning, match=r"whatever its 'quantity' \(1 rows have 0 or less"):
        assert len(owned(load("hm", hm))["ann"]) == 3
    kept = load("hm", hm, weight_column="quantity", min_weight=1, repeated="sum", min_interactions=None, split="date",
                test_from="2020-09-18")  # fmt: skip
    assert len(owned(kept)["ann"]) == 2  # the first was returned
    with pytest.raises(InputError, match="weight_column needs min_weight too"):
        load("hm", hm, weight_column="quantity")


def test_hm_counts_customers_and_articles_that_it_leaves_out(hm: Path) -> None:
    with pytest.warns() as told:
        load("hm", hm)
    sentences = "\n".join(str(warning.message) for warning in told)
    assert "1 of 6 items have no picture and are left out, and their 2 interactions" in sentences
    assert (
        "hm: 1 of 3 users have fewer than 3 different items and are left out, and with them 2 of 9 inter" in sentences
    )


def test_gaps_in_categories_are_counted(tmp_path: Path, hm: Path) -> None:
    folder = tmp_path / "gaps"
    folder.mkdir()
    shop(folder)
    pd.DataFrame({"item": list(ITEMS), "category": ["x", "", " ", "y", "x"]}).to_csv(folder / "items.csv", index=False)
    with pytest.warns(InputWarning, match=r"2 of 5 items in .* have no 'category' \(rows 2, 3\)"):
        assert load("table", folder).items["category"].tolist() == ["x", "unknown", "unknown", "y", "x"]
    articles = pd.read_csv(hm / "articles.csv", dtype=str)
    articles.loc[1, "product_type_name"] = None
    articles.to_csv(hm / "articles.csv", index=False)
    with pytest.warns(InputWarning, match=r"1 of 6 items in .*articles.csv have no 'product_type_name' \(row 2\)"):
        assert load("hm", hm).items["category"].tolist()[1] == "unknown"


def test_a_table_beside_a_given_split_is_told(tmp_path: Path) -> None:
    shop(tmp_path)
    table = pd.read_csv(tmp_path / "interactions.csv")
    parts = {
        "train": table[table["item"] < "d"],
        "valid": table[table["item"] == "d"],
        "test": table[table["item"] == "e"],
    }
    for name, part in parts.items():
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.warns(
        InputWarning, match=r"interactions.csv is read and split, and the split that lies beside it \(train"
    ):
        assert load("table", tmp_path).split["kind"] == "random"  # type: ignore[index]
    paths = {"train": tmp_path / "train.csv", "validation": tmp_path / "valid.csv", "test": tmp_path / "test.csv"}
    with pytest.warns(InputWarning, match=r"the split of train\.csv, .* is used, and .* beside it is not"):
        assert load("table", tmp_path, **paths).split == {"kind": "given"}


def test_only_items_with_pictures_by_option(tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "images").mkdir()
    for item in "abcd":
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{item}.png")
    with pytest.warns(InputWarning, match="1 of 5 items have no picture and are left out, and their 3 interactions"):
        dataset = load("table", tmp_path, require_image=True)
    assert dataset.items["item"].tolist() == list("abcd") and owned(dataset)["u0"] == set("abcd")
    assert dataset.images is not None and dataset.images.present.all()
    for item in "abcd":
        (tmp_path / "images" / f"{item}.png").unlink()
    (tmp_path / "images").rmdir()
    with pytest.raises(InputError, match="require_image keeps only items with a picture, and there is none"):
        load("table", tmp_path, require_image=True)
