"""What the sentences about tables and pictures advise is done, and the data are read."""

from __future__ import annotations

import ast
import gzip
import io
import itertools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shops import load

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.readers.hm import ATTRIBUTES
from imgrec_lib.errors import InputError, InputWarning

DAY = 86_400
PURCHASES = pd.DataFrame(
    [(f"u{u}", f"i{(u + k) % 8}", 1_599_000_000 + (u + 4 * k) * DAY) for u in range(6) for k in range(5)],
    columns=["user", "item", "timestamp"],
)  # from the first of September 2020 on
ITEMS = pd.DataFrame({"item": [f"i{i}" for i in range(8)], "category": ["hat", "shoe"] * 4})
TIMES = pd.to_datetime(PURCHASES["timestamp"], unit="s")
KIND = ["view", "buy", "buy", "buy", "buy"] * 6
RATING = [1, 5, 5, 4, 5] * 6

File = pd.DataFrame | str | bytes | None
OUT = object()
"""In place of a value: the option is left out."""


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, "PNG")
    return file.getvalue()


def pictures(name: str, folder: str = "images") -> dict[str, File]:
    return {f"{folder}/{name.format(i)}.png": picture() for i in range(8)}


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, PURCHASES.to_csv(index=False))
    return file.getvalue()


SHOP: dict[str, dict[str, File]] = {
    "table": {"interactions.csv": PURCHASES, "items.csv": ITEMS},
    "covers": {"pairs.csv": PURCHASES, **pictures("i{}", "covers")},
    "amazon2023": {
        "Hats.csv": PURCHASES.set_axis(["user_id", "parent_asin", "timestamp"], axis=1).assign(rating=5),
    },
    "hm": {
        "articles.csv": pd.DataFrame(
            {"article_id": ITEMS["item"], "prod_name": "p", **dict.fromkeys(ATTRIBUTES, "x"), "detail_desc": "d"}
        ),
        "transactions_train.csv": pd.DataFrame(
            {"t_dat": TIMES.dt.strftime("%Y-%m-%d"), "customer_id": PURCHASES["user"], "article_id": PURCHASES["item"]}
        ),
        **pictures("i{}"),
    },
}


@dataclass(frozen=True)
class Fault:
    """What is wrong, what is said of it, and one way to mend it.

    Attributes:
        sentence: a regular expression.
        options: of the reader.
        files: in place of the shop's, None for one that is not there.
        remedy: options, which the sentence must name; where it writes them out as name=value, they are taken from it.
        mended: files in place of those before.
        reader: the dataset.
    """

    sentence: str
    options: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    remedy: dict[str, Any] = field(default_factory=dict)
    mended: Mapping[str, File] = field(default_factory=dict)
    reader: str = "table"


def csv(**columns: Any) -> dict[str, File]:
    return {"interactions.csv": PURCHASES.assign(**columns)}


def items(**columns: Any) -> dict[str, File]:
    return {"items.csv": ITEMS.assign(**columns)}


def renamed(**names: str) -> dict[str, File]:
    return {"interactions.csv": PURCHASES.rename(columns=names)}


def hm(name: str, **columns: Any) -> dict[str, File]:
    return {f"{name}.csv": table_of("hm", f"{name}.csv").assign(**columns)}


def ratings(**columns: Any) -> dict[str, File]:
    return {"Hats.csv": table_of("amazon2023", "Hats.csv").assign(**columns)}


def table_of(reader: str, name: str) -> pd.DataFrame:
    table = SHOP[reader][name]
    assert isinstance(table, pd.DataFrame)
    return table


def in_gbk(table: pd.DataFrame, user: str) -> bytes:
    """The table with Chinese users, in an encoding that is not guessed."""
    return table.assign(**{user: "\u5ba2" + table[user]}).to_csv(index=False).encode("gbk")


UNTIMED = {"interactions.csv": PURCHASES.drop(columns="timestamp")}
PARTS: dict[str, File] = {
    "train.csv": PURCHASES[:18], "validation.csv": PURCHASES[18:24], "test.csv": PURCHASES[24:],
}  # fmt: skip
FRENCH = PURCHASES.assign(user="\xe9" + PURCHASES["user"]).to_csv(index=False).encode("cp1252")
CHINESE = in_gbk(PURCHASES, "user")
CLOCK = pd.Series(["12:30:00"] * 30)

FAULTS = [
    # columns
    Fault("no user column", files=renamed(user="who"), remedy={"user_column": "who"}),
    Fault("rename one to 'item'", files=renamed(item="what"), remedy={"item_column": "what"}),
    Fault("rename one to 'item'", files=renamed(item="what"), mended=csv()),
    Fault("several columns that could be the item", files=csv(asin="i0"), remedy={"item_column": "item"}),
    Fault("unknown column", {"item_column": "itme"}),
    Fault("two columns named 'item'", files={"items.csv": "item,item\ni0,a\n"}, mended=items()),
    Fault("lists item 'i0' twice", files={"items.csv": pd.concat([ITEMS, ITEMS[:1]])}, mended=items()),
    Fault("no 'user' in row 1", files=csv(user=[None, *PURCHASES["user"][1:]]), mended=csv()),
    # times
    Fault("which number is the day", files=csv(timestamp=TIMES.dt.strftime("0%w/0%w/2020"))),
    Fault("say its form", files=csv(timestamp=TIMES.dt.strftime("%d.%m.%y"))),
    Fault(
        "not the form", {"time_format": "%d.%m.%Y"}, csv(timestamp=TIMES.dt.strftime("%Y-%m-%d")),
        {"time_format": ["%d.%m.%Y", "%Y-%m-%d"]},
    ),
    Fault(
        "such a number", files=csv(timestamp=[17, *PURCHASES["timestamp"][1:]]), remedy={"time_format": "seconds"}
    ),
    Fault("unknown form of times", {"time_format": "secnods"}),
    Fault("a time without a day", files=csv(timestamp=CLOCK, wann=TIMES.dt.strftime("%Y-%m-%d")),
          remedy={"time_column": "wann"}),
    Fault("were read as", files=csv(timestamp=range(30)), remedy={"time_format": "spreadsheet"}),
    Fault("has no 'timestamp' in row", files=csv(timestamp=[None, *TIMES[1:]]), mended=csv()),
    # splits
    Fault("needs timestamps", {"split": "time"}, UNTIMED),
    Fault("needs timestamps", {"split": "time"}, renamed(timestamp="wann"), {"time_column": "wann"}),
    Fault("needs test_from", {"split": "date"}, remedy={"test_from": "2020-09-16"}),
    Fault("are options of split='date'", {"test_from": "2020-09-16"}),
    Fault("are options of split='date'", {"test_from": "2020-09-16"}, remedy={"test_from": OUT}),
    Fault("options of the splits", {"split": "date", "test_from": "2020-09-16", "held_out": 2}, {}, {"held_out": OUT}),
    Fault("is not a day", {"split": "date", "test_from": "16/9"}),
    Fault("choose other days", {"split": "date", "test_from": "2021-01-01"}, remedy={"test_from": "2020-09-16"}),
    Fault(
        "must come before", {"split": "date", "test_from": "2020-09-10", "validate_from": "2020-09-12"},
        remedy={"validate_from": OUT},
    ),
    Fault("unknown split", {"split": "tim"}),
    Fault("must be at least 3", {"min_interactions": 2}, remedy={"min_interactions": 3}),
    Fault("no user has 50 different items", {"min_interactions": 50}, remedy={"min_interactions": 5}),
    Fault("have fewer than 5 different", {"min_interactions": 5}, {"interactions.csv": PURCHASES[:-1]},
          {"min_interactions": 4}),
    Fault("too few to hold out", {"min_interactions": None}, {"interactions.csv": PURCHASES[:-3]},
          {"min_interactions": 3}),
    Fault("too few to hold out", {"min_interactions": None, "held_out": 3}, remedy={"held_out": 2}),
    Fault("there is no validation and no test file", files={"interactions.csv": None, "train.csv": PURCHASES},
          mended=PARTS),
    Fault("to use that, give the paths", files=PARTS, remedy={
        "train": "{root}/train.csv", "validation": "{root}/validation.csv", "test": "{root}/test.csv"}),
    # what counts
    Fault("whatever its 'rating'", files=csv(rating=RATING)),
    Fault("whatever its 'quantity'", files=csv(quantity=[-1, 2, 1, 1, 1] * 6)),
    Fault("whatever its 'event'", files=csv(event=KIND), remedy={"where": {"event": ["buy"]}}),
    Fault("unknown value of 'event'", {"where": {"event": "by"}}, csv(event=KIND)),
    Fault("weight_column needs min_weight", {"weight_column": "rating"}, csv(rating=RATING), {"min_weight": 4}),
    Fault("adds up weights", {"repeated": "sum"}, csv(rating=RATING), {"weight_column": "rating", "min_weight": 1}),
    Fault("no row of", {"min_weight": 9}, csv(rating=RATING), {"min_weight": 4}),
    Fault("no weight column", {"min_weight": 4}, csv(note=RATING), {"weight_column": "note"}),
    Fault("a rating or a quantity is a number", {"min_weight": 4}, csv(rating=["*"] * 30), mended=csv(rating=RATING)),
    # items
    Fault("have no row in .*say unlisted_items", files={"items.csv": ITEMS[:-2]}, options={"min_interactions": None,
          "validate": False}),
    Fault("give every item a group", files=items(product_code=["a", *[""] * 7], style="s"),
          remedy={"group_column": "style"}),
    Fault("give every item a group", files=items(product_code=["a", *[""] * 7]), mended=items(product_code="a")),
    Fault("shortened these ids", files=csv(item="1.08E+08"), mended=csv()),
    Fault("zero", files={"items.csv": ITEMS.assign(item=[f"{i:03}" for i in range(8)]),
          **csv(item=PURCHASES["item"].str[1:])},
          mended=csv(item="00" + PURCHASES["item"].str[1:])),
    # files
    Fault("there is no file", {"interactions": "{root}/nowhere.csv"}, mended={"nowhere.csv": PURCHASES}),
    Fault("was read as Windows-1252", files={"interactions.csv": FRENCH}, remedy={"encoding": "cp1252"}),
    Fault("option encoding", files={"interactions.csv": CHINESE}, remedy={"encoding": "gbk"}),
    Fault("option encoding", files={"interactions.csv": CHINESE}, mended={"interactions.csv": CHINESE.decode("gbk")}),
    Fault("there is no encoding", {"encoding": "utf-88"}, remedy={"encoding": "utf-8"}),
    Fault("holds 2 files", files={"interactions.csv": None, "interactions.csv.zip": zipped("a.csv", "b.csv")},
          mended={"interactions.csv.zip": zipped("a.csv")}),
    Fault("get the file again", files={"interactions.csv": None, "interactions.csv.gz": gzip.compress(b"user")[:-9]},
          mended={"interactions.csv.gz": gzip.compress(PURCHASES.to_csv(index=False).encode())}),
    Fault("EOF inside string", files={"interactions.csv": PURCHASES.to_csv(index=False).replace("u3", '"u3', 1)},
          mended=csv()),
    Fault("more cells than its header", files={"interactions.csv": "user,item\n" + "u,i0,3\n" * 9}, mended=csv()),
    # pictures
    Fault("give their paths in an 'image' column", files=pictures("front-{}"), mended=items(
        image=[f"front-{i}.png" for i in range(8)])),
    Fault("name them <item>.jpg", files=pictures("front-{}"), mended=pictures("i{}")),
    Fault("are named after item", files=pictures("i{}") | {"images/more/i0.png": picture()},
          mended={"images/more/i0.png": None}),
    Fault("are named after item", files=pictures("i{}") | {"images/more/i0.png": picture()}, mended=items(
        image=[f"i{i}.png" for i in range(8)])),
    Fault("paths are relative to", files=pictures("i{}") | items(image="../i0.png"), mended=items(image="i0.png")),
    Fault("give `images` its path", {"image_column": "image"}, pictures("i{}", "photos") | items(image="i0.png"),
          {"images": "{root}/photos"}),
    Fault("read without pictures", files=pictures("i{}", "photos") | items(image="i0.png"),
          remedy={"images": "{root}/photos"}),
    Fault("require_image", {"require_image": True}, pictures("i{}", "photos"), {"images": "{root}/photos"}),
    Fault("unknown image_fit", {"image_fit": "squach"}, pictures("i{}")),
    # other readers
    Fault("name one with the option covers", files={"images/a.png": picture()}, reader="covers",
          remedy={"covers": "covers"}),
    Fault("name one with the option interactions", files={"pairs.csv": None, "a.csv": PURCHASES, "b.csv": PURCHASES},
          remedy={"interactions": "a.csv"}, reader="covers"),
    Fault("give their paths in an 'image' column", {"items": "items.csv", "covers": "photos"},
          pictures("front-{}", "photos") | items(), reader="covers",
          mended=items(image=[f"front-{i}.png" for i in range(8)])),
    Fault("leave where, min_weight", {"time_column": "t"}, {"pairs.csv": "u0\ti0 i1 i2\nu1\ti1 i2 i3 i4\n"},
          {"time_column": OUT}, reader="covers"),
    Fault("option encoding", files={"pairs.csv": CHINESE}, reader="covers", remedy={"encoding": "gbk"}),
    Fault("option encoding", files={"Hats.csv": in_gbk(table_of("amazon2023", "Hats.csv"), "user_id")},
          reader="amazon2023", remedy={"encoding": "gbk"}),
    Fault("to count only good ones", files=ratings(rating=RATING), reader="amazon2023"),
    Fault("lower min_rating", {"min_rating": 6}, reader="amazon2023", remedy={"min_rating": 5}),
    Fault("lower core", {"core": 90}, reader="amazon2023", remedy={"core": 2}),
    Fault("option category", files={"Shoes.csv": PURCHASES}, reader="amazon2023", remedy={"category": "Hats"}),
    Fault("leave core out", {"core": 2, "split": "given"}, {
        f"Hats.{part}.csv": ratings()["Hats.csv"] for part in ("train", "valid", "test")}, {"core": OUT},
        reader="amazon2023"),
    Fault("widen since and until", {"since": "2030-01-01"}, reader="hm", remedy={"since": "2020-09-01"}),
    Fault("is not a day", {"since": "yesterday"}, reader="hm"),
    Fault("unknown column of", {"category_column": "product_typ_name"}, reader="hm"),
    Fault("whatever its 'quantity'", {"require_image": False}, hm("transactions_train", quantity=[-1, 2, 1, 1, 1] * 6),
          reader="hm"),
    Fault("option encoding", files={
        "transactions_train.csv": in_gbk(table_of("hm", "transactions_train.csv"), "customer_id")},
        reader="hm", remedy={"encoding": "gbk"}),
    Fault("say unlisted_items", files={"articles.csv": table_of("hm", "articles.csv")[:-1]}, reader="hm"),
    Fault("give every item a group", {"group_column": "code"}, hm("articles", code="", style="s"), reader="hm",
          remedy={"group_column": "style"}),
    Fault("give their paths in an 'image' column", reader="hm", files={
        **{name: None for name in pictures("i{}")}, **pictures("front-{}")},
        mended=hm("articles", image=[f"front-{i}.png" for i in range(8)])),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.reader}: {fault.sentence}")
def test_what_is_advised_helps(fault: Fault, tmp_path: Path) -> None:
    write(tmp_path, {**SHOP[fault.reader], **fault.files})
    said = told(fault, fault.options, tmp_path)
    sentence = next((each for each in said if re.search(fault.sentence, each)), None)
    assert sentence is not None, said
    write(tmp_path, fault.mended)
    for name in fault.remedy:
        assert re.search(rf"\b{name}\b", sentence), f"{sentence} does not name {name}"
    for changed in [fault.remedy] if fault.remedy or fault.mended else list(advised(sentence, fault.options)):
        options = {name: value for name, value in (fault.options | changed).items() if value is not OUT}
        assert not [each for each in told(fault, options, tmp_path) if re.search(fault.sentence, each)], changed


def write(folder: Path, files: Mapping[str, File]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
        elif isinstance(content, pd.DataFrame):
            content.to_csv(path, index=False)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def told(fault: Fault, options: Mapping[str, Any], root: Path) -> list[str]:
    """What is said when the data are read: the error, or the warnings of data that were read."""
    placed = {name: value.format(root=root) if isinstance(value, str) else value for name, value in options.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            dataset = load(fault.reader, root, **placed)
        except InputError as error:
            return [str(error)]
    assert isinstance(dataset, Dataset) and dataset.n_users and np.isfinite(len(dataset.train))
    return [str(each.message) for each in caught]


def advised(sentence: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each way that a sentence writes out: the name that it suggests in place of another, or options with values."""
    meant = re.search(r"'([^']+)': did you mean '(.+)'\?", sentence)
    day = re.search(r"^'(.+)' is not a day: write it as (\S+)\.$", sentence)
    if found := meant or day:
        text = repr(dict(options)).replace(repr(found[1]), repr(found[2]))
        assert text != repr(dict(options)), sentence
        yield ast.literal_eval(text)
        return
    written: dict[str, list[Any]] = {}
    value = r"(?:'[^']*'|\d+(?:\.\d+)?)"
    for name, values in re.findall(rf"\b([a-z_]+)=({value}(?:(?:, | or ){value})*)", sentence):
        written.setdefault(name, []).extend(ast.literal_eval(each) for each in re.findall(value, values))
    assert written, f"nothing can be followed in: {sentence}"
    for values in itertools.product(*written.values()):
        yield dict(zip(written, values, strict=True))
