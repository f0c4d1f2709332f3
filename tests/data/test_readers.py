"""The registry, and the readers of H&M's layout and of a user's own tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from narrow import not_none
from paths import ROOT
from PIL import Image
from shops import hm, load, owned

from imgrec_lib.data import list_datasets, load_dataset
from imgrec_lib.data.decoding import decode
from imgrec_lib.errors import InputError

__all__ = ["hm"]  # a fixture


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path_factory.mktemp("cache")))


# The registry


def test_a_tilde_is_home_in_roots_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [f"u{u},i{(u + k) % 9}" for u in range(12) for k in range(5)]
    (tmp_path / "my shop").mkdir()
    (tmp_path / "my shop" / "interactions.csv").write_text("\n".join(["user,item", *pairs]) + "\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = load("table", Path("~/my shop"))
    assert dataset.n_users == 12
    assert load("table", None, interactions="~/my shop/interactions.csv").fingerprint == dataset.fingerprint


def test_registry_lists_the_readers() -> None:
    cards = list_datasets()
    assert list(cards) == ["wardrobe", "hm", "dvbpr", "amazon2023", "covers", "table"]
    assert all(card.name == name and card.title for name, card in cards.items())
    assert cards["wardrobe"].root == "" and all(cards[name].root for name in ("hm", "dvbpr", "table"))
    assert cards["hm"].options["min_interactions"].default == 5


@pytest.mark.parametrize(
    ("name", "root", "options", "message"),
    [
        ("hmm", None, {}, "unknown dataset 'hmm': did you mean 'hm'"),
        ("hm", ".", {"splitt": "time"}, "unknown option of dataset hm 'splitt': did you mean 'split'"),
        ("hm", None, {}, r"dataset 'hm' needs a root: the folder with transactions_train.csv"),
        ("dvbpr", None, {}, r"needs a root: the published \.npy file"),
        ("table", None, {}, r"needs a root: the folder with interactions\.csv"),
    ],
)  # fmt: skip
def test_registry_sentences(name: str, root: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(name, root, **options)


# H&M


def test_hm(hm: Path) -> None:
    dataset = load("hm", hm, split="time")
    a = [f"01{i:08}" for i in range(6)]
    assert owned(dataset) == {"ann": {a[0], a[1], a[2]}, "bob": {a[1], a[2], a[3]}}
    assert dataset.items.item.tolist() == a[:4]  # 4 is never bought, 5 has no photograph
    assert dataset.items.category.tolist() == ["product_type_name 0", "product_type_name 1"] * 2
    assert dataset.items.name[1] == "prod_name 1"
    assert "product_group_name" in dataset.attribute_columns and "product_type_name" not in dataset.attribute_columns
    assert dataset.items.group.tolist() == ["0100000"] * 4  # the id without its last three digits
    assert not_none(dataset.groups).tolist() == [0] * 4 and "group" not in dataset.attribute_columns
    assert dataset.test.items.tolist() == [2, 3] and dataset.validation.items.tolist() == [0, 2]
    day = pd.Timestamp("2020-09-16", tz="UTC").timestamp()
    assert not_none(dataset.train.times).tolist() == [day, day] and not_none(dataset.test.times).tolist() == [
        day + 2 * 86400,
        day + 3 * 86400,
    ]
    assert not_none(dataset.images).present.all()
    for i in range(4):
        photograph = hm / "images" / "010" / f"{a[i]}.jpg"
        np.testing.assert_array_equal(not_none(dataset.images).pixels[i], decode(photograph, 8))


def test_hm_options(hm: Path) -> None:
    with pytest.warns(UserWarning, match="1 of 5 items have no usable picture"):
        dataset = load("hm", hm, require_image=False, category_column="section_name")
    assert set(owned(dataset)) == {"ann", "bob", "eve"} and dataset.items.category[0] == "section_name 0"
    assert not_none(dataset.images).present.tolist() == [True, True, True, True, False]
    assert load("hm", hm, keep_unused_items=True).n_items == 5
    assert set(owned(load("hm", hm, until="2020-09-18"))) == {"ann"}
    variants = load("hm", hm, group_column="prod_name")
    assert (
        variants.items.group.tolist() == ["prod_name 0", "prod_name 1"] * 2
        and not_none(variants.groups).tolist() == [0, 1] * 2
    )
    with pytest.raises(InputError, match="split is empty: no user has 3 different items"):
        load("hm", hm, since="2020-09-18")
    with pytest.raises(InputError, match=r"no purchases .* between the days"):
        load("hm", hm, since="2021-01-01")
    with pytest.raises(InputError, match="'next week' is not a day"):
        load("hm", hm, since="next week")


@pytest.mark.parametrize("form", ["%Y-%m-%d 00:00:00", "%Y%m%d", "%d/%m/%Y", "%Y-%m-%dT10:00:00Z"])
def test_hm_days_in_other_forms(hm: Path, form: str) -> None:
    purchases = pd.read_csv(hm / "transactions_train.csv", dtype=str)
    expected = load("hm", hm, split="time", since="2020-09-16", until="2020-09-20").fingerprint
    purchases["t_dat"] = pd.to_datetime(purchases["t_dat"]).dt.strftime(form)
    purchases.to_csv(hm / "transactions_train.csv", index=False)
    assert load("hm", hm, split="time", since="2020-09-16", until="2020-09-20").fingerprint == expected


def test_hm_sentences(hm: Path, tmp_path: Path) -> None:
    purchases = hm / "transactions_train.csv"
    content = purchases.read_text()
    for old, new, message in [
        ("0100000003", "0199999999", "1 items in .* have no row in .*articles.csv: '0199999999'"),
        ("2020-09-19", "19th of September", r"transactions_train.csv has '19th of September' as 't_dat' in row 7"),
        ("2020-09-19", "", "has no 't_dat' in row 7: fill it in"),
        ("customer_id", "customer", "customer_id"),
    ]:
        purchases.write_text(content.replace(old, new))
        with pytest.raises(InputError, match=message):
            load("hm", hm)
    purchases.unlink()
    with pytest.raises(InputError, match=r"there is no file .*transactions_train.csv"):
        load("hm", hm)
    articles = pd.read_csv(hm / "articles.csv", dtype=str)
    articles.assign(product_code=pd.Series(["1", None, *"1111"], index=articles.index)).to_csv(
        hm / "articles.csv", index=False
    )
    with pytest.raises(InputError, match=r"articles.csv has no 'product_code' in row 2: give every item a group"):
        load("hm", hm, group_column="product_code")
    with pytest.raises(
        InputError, match=r"unknown column of .*articles.csv 'product_cod'.*did you mean 'product_code'"
    ):
        load("hm", hm, group_column="product_cod")
    articles.drop(columns="section_name").to_csv(hm / "articles.csv", index=False)
    with pytest.raises(InputError, match=r"unknown column of .*articles.csv 'section_name'"):
        load("hm", hm)
    for path in (hm / "images" / "010").iterdir():
        path.unlink()
    articles.to_csv(hm / "articles.csv", index=False)
    purchases.write_text(content)
    with pytest.raises(InputError, match="there are no pictures at all"):
        load("hm", hm)


BESIDE = ROOT.parent / "shared" / "data" / "hm-week"
HM_WEEK = Path(os.environ.get("IMGREC_HM_WEEK", BESIDE))


@pytest.mark.skipif(not HM_WEEK.is_dir(), reason="H&M's real data is not at hand (IMGREC_HM_WEEK names its folder)")
def test_hm_real_week() -> None:
    dataset = load_dataset("hm", HM_WEEK, image_size=8, progress=False)
    n_pairs = len(dataset.train) + 2 * dataset.n_users
    assert (dataset.n_users, dataset.n_items, n_pairs) == (11_737, 8_709, 86_981)
    assert not_none(dataset.images).present.all() and dataset.train.history_lengths.min() >= 3


# A user's own catalogue

ROWS = [("u1", "007"), ("u1", "b"), ("u1", "c"), ("u2", "007"), ("u2", "c"), ("u2", "d"), ("u3", "b")]
TIMES = [1_600_000_000 + 86_400 * i for i in range(len(ROWS))]
USERS = {"u1": {"007", "b", "c"}, "u2": {"007", "c", "d"}}


def interactions(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=["user", "item"]).assign(**columns)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    interactions(timestamp=TIMES).to_csv(tmp_path / "interactions.csv", index=False)
    pd.DataFrame(
        {
            "item": ["d", "c", "b", "007", "never bought"],
            "category": ["hat", "shoe", "", "hat", "shoe"],
            "name": ["D", "C", "B", "Bond", "N"],
            "colour": ["red", "", "blue", "black", "red"],
        }
    ).to_csv(tmp_path / "items.csv", index=False)
    (tmp_path / "images" / "deep").mkdir(parents=True)
    Image.new("RGB", (5, 5), (10, 20, 30)).save(tmp_path / "images" / "007.png")
    Image.new("RGB", (5, 5), (200, 20, 30)).save(tmp_path / "images" / "deep" / "b.JPG", "JPEG")
    for name in ("c", "d", "never bought"):
        Image.new("RGB", (5, 5)).save(tmp_path / "images" / f"{name}.webp")
    return tmp_path


def test_table(shop: Path) -> None:
    dataset = load("table", shop, split="time")
    assert dataset.name == "table" and owned(dataset) == USERS
    assert dataset.items.item.tolist() == ["007", "b", "c", "d", "never bought"]
    assert dataset.items.category.tolist() == ["hat", "unknown", "shoe", "hat", "shoe"]
    assert dataset.items.name[0] == "Bond" and dataset.attribute_columns == ["colour"]
    assert dataset.items.colour.tolist() == ["black", "blue", "", "red", "red"]
    assert dataset.test.items.tolist() == [2, 3] and not_none(dataset.test.times).tolist() == [TIMES[2], TIMES[5]]
    assert not_none(dataset.images).present.all()
    np.testing.assert_array_equal(not_none(dataset.images).pixels[0, 0, 0], [10, 20, 30])
    np.testing.assert_allclose(not_none(dataset.images).pixels[1, 4, 4], [200, 20, 30], atol=3)
    assert load("table", shop, keep_unused_items=False).n_items == 4


@pytest.mark.parametrize(
    "columns",
    [
        ("reviewerID", "productId", "unixReviewTime"),
        ("customer_id", "article_id", "t_dat"),
        ("User ID", "ASIN", "Date"),
    ],
)
def test_usual_column_names_are_recognised(shop: Path, columns: tuple[str, ...]) -> None:
    interactions(timestamp=TIMES).set_axis(list(columns), axis=1).to_csv(shop / "interactions.csv", index=False)
    dataset = load("table", shop)
    assert owned(dataset) == USERS and dataset.train.times is not None


def test_columns_can_be_named(shop: Path) -> None:
    table = interactions(timestamp=TIMES).set_axis(["who", "what", "when"], axis=1)
    table.to_csv(shop / "interactions.csv", index=False)
    with pytest.raises(InputError, match=r"interactions.csv has no user column \(found: who, what, when\)"):
        load("table", shop)
    with pytest.raises(InputError, match="'wo': did you mean 'who'"):
        load("table", shop, user_column="wo")
    dataset = load("table", shop, user_column="who", item_column="what", time_column="when", category_column="colour")
    assert owned(dataset) == USERS and dataset.train.times is not None
    assert dataset.items.category.tolist() == ["black", "blue", "unknown", "red", "red"]
    assert dataset.attribute_columns == ["category_attribute"]


@pytest.mark.parametrize("column", ["group", "item_group_id", "Product Code", "parent_asin"])
def test_variants_of_a_product_are_a_group(shop: Path, column: str) -> None:
    items = pd.read_csv(shop / "items.csv", dtype=str)
    assert load("table", shop).groups is None
    items.assign(**{column: ["hats", "shoes", "hats", "7", "7"]}).to_csv(shop / "items.csv", index=False)
    dataset = load("table", shop)
    assert dataset.items.group.tolist() == ["7", "hats", "shoes", "hats", "7"]
    assert not_none(dataset.groups).tolist() == not_none(dataset.training_data().groups).tolist() == [0, 1, 2, 1, 0]
    assert dataset.attribute_columns == ["colour"]
    named = load("table", shop, group_column="name", keep_unused_items=False)
    assert named.items.group.tolist() == ["Bond", "B", "C", "D"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "semicolon", "parquet", "parquet of numbers"])
def test_file_kinds(tmp_path: Path, suffix: str) -> None:
    table = interactions(timestamp=TIMES)
    users = USERS
    if suffix == "parquet of numbers":
        table["item"] = table["item"].map({"007": 7, "b": 11, "c": 12, "d": 13}).astype("float64")
        users = {"u1": {"7", "11", "12"}, "u2": {"7", "12", "13"}}
    if suffix.startswith("parquet"):
        table.to_parquet(tmp_path / "interactions.parquet")
    else:
        separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}[suffix]
        name = "interactions.tsv" if suffix == "tsv" else "interactions.csv"
        table.to_csv(tmp_path / name, sep=separator, index=False, encoding="utf-8-sig")
    dataset = load("table", tmp_path)
    assert owned(dataset) == users and dataset.images is None
    parts = (dataset.train, dataset.validation, dataset.test)
    assert {time for part in parts for time in not_none(part.times)} == set(TIMES[:6])


@pytest.mark.parametrize(
    "times",
    [
        TIMES,
        [t * 1000 for t in TIMES],
        [float(t) for t in TIMES],
        [pd.Timestamp(t, unit="s").isoformat() for t in TIMES],
        [pd.Timestamp(t, unit="s", tz="UTC").tz_convert("Asia/Tokyo").isoformat() for t in TIMES],
        [pd.Timestamp(t, unit="s").strftime("%Y-%m-%d") for t in TIMES],
        pd.to_datetime(TIMES, unit="s"),
    ],
    ids=["seconds", "milliseconds", "floats", "iso", "zone", "day", "datetime"],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_times(tmp_path: Path, times: Any, suffix: str) -> None:
    table = interactions(timestamp=times)
    path = tmp_path / f"interactions.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    dataset = load("table", tmp_path, split="time")
    expected = [TIMES[0], TIMES[3]]
    if isinstance(times[0], str) and len(times[0]) == 10:
        expected = [t // 86_400 * 86_400 for t in expected]
    assert not_none(dataset.train.times).tolist() == expected


def test_given_split_of_imgrec(shop: Path) -> None:
    parts = {"train": ROWS[:1] + ROWS[3:4] + ROWS[6:], "valid": ROWS[1:2] + ROWS[4:5], "test": ROWS[2:3] + ROWS[5:6]}
    (shop / "interactions.csv").unlink()
    for name, rows in parts.items():
        pd.DataFrame(rows, columns=["reviewerID", "productId"]).to_csv(shop / f"{name}.csv", index=False)
    dataset = load("table", shop)
    assert dataset.user_ids.tolist() == ["u1", "u2", "u3"]
    assert dataset.train.items.tolist() == [0, 0, 1] and dataset.split == {"kind": "given"}
    assert dataset.validation.items.tolist() == [1, 2, -1] and dataset.test.items.tolist() == [2, 3, -1]
    assert load("table", shop, keep_unused_items=False).n_items == 4
    paths = {"train": shop / "train.csv", "validation": shop / "valid.csv", "test": shop / "test.csv"}
    assert load("table", None, **paths).validation.items.tolist() == [1, 2, -1]
    (shop / "valid.csv").unlink()
    with pytest.warns(UserWarning, match="there is no validation file: nothing is chosen by validation"):
        unvalidated = load("table", shop)
    assert len(unvalidated.validation) == 0 and unvalidated.test.items.tolist() == [2, 3, -1]
    (shop / "test.csv").rename(shop / "tests.csv")
    with pytest.raises(InputError, match="split is incomplete: there is no validation and no test file"):
        load("table", shop)
    (shop / "tests.csv").rename(shop / "test.csv")
    pd.DataFrame(columns=["reviewerID", "productId"]).to_csv(shop / "valid.csv", index=False)
    with pytest.warns(UserWarning):
        assert load("table", shop).fingerprint == unvalidated.fingerprint  # an empty file is none


def test_image_column(shop: Path) -> None:
    items = pd.read_csv(shop / "items.csv", dtype=str)
    items["image"] = ["d.webp", "c.webp", r"deep\b.JPG", "007.png", None]
    items.to_csv(shop / "items.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 5 items have no usable picture"):
        dataset = load("table", shop)
    assert not_none(dataset.images).present.tolist() == [True, True, True, True, False]
    assert dataset.attribute_columns == ["colour"]
    np.testing.assert_allclose(not_none(dataset.images).pixels[1, 4, 4], [200, 20, 30], atol=3)
    for path in ("../interactions.csv", "deep/../../x.png", r"..\x.png", "/etc/passwd", r"C:\x.png", r"\\host\x.png"):
        items.loc[0, "image"] = path
        items.to_csv(shop / "items.csv", index=False)
        with pytest.raises(InputError, match="of item 'd' lies outside the image folder"):
            load("table", shop)
    items["image"] = "elsewhere.png"
    items.to_csv(shop / "items.csv", index=False)
    with pytest.raises(InputError, match="no picture named in the item table is in"):
        load("table", shop)
    with pytest.raises(InputError, match="there is no image folder"):
        load("table", shop, images=shop / "nowhere")


def test_images_that_do_not_match(shop: Path) -> None:
    (shop / "images" / "deep" / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match="named after item 'b': keep one"):
        load("table", shop)
    (shop / "other").mkdir()
    with pytest.raises(InputError, match="there are no pictures at all, while the first item is '007'"):
        load("table", shop, images=shop / "other")
    Image.new("RGB", (2, 2)).save(shop / "other" / "IMG_1.png")
    with pytest.raises(InputError, match=r"no picture .* is named after an item \('IMG_1.png', for example"):
        load("table", shop, images=shop / "other")
    Image.new("RGB", (2, 2)).save(shop / "other" / "c.png")
    (shop / "other" / "d.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="4 of 5 items have no usable picture"):
        dataset = load("table", shop, images=shop / "other")
    assert {item for item, _ in not_none(dataset.images).problems} == {"007", "b", "d", "never bought"}
    assert "broken" in dict(not_none(dataset.images).problems)["d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it needs a header"),
        ("user,item\n", "is empty: it has no rows"),
        ("user,thing\na,b\n", r"no item column \(found: user, thing\)"),
        ("user,item\na,\n", "no 'item' in row 1"),
        ("user,item\na,b\n,b\n", "no 'user' in row 2"),
        ("user,item,time\na,b,1\na,c,soon\n", "'soon' as 'time' in row 2"),
        ("user,item,time\na,b,1\na,c,\n", "has no 'time' in row 2"),
        ("user,item,time\na,b,2020-01-01\na,c,2020-13-01\n", "'2020-13-01' as 'time' in row 2"),
        ("user,item,time\na,b,1\na,c,inf\n", "'inf' as 'time' in row 2"),
        ("user,item\na,b\na,b,c,d,e\n", "cannot be read"),
        ("user,item\na,b\na,c\n", "no user has 3 different items"),
    ],
)
def test_bad_interactions_get_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "interactions.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load("table", tmp_path)


def test_other_bad_input_gets_a_sentence(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="user u3 has 1 different items, too few"):
        load("table", shop, min_interactions=None)
    with pytest.raises(InputError, match="no user has 4 different items"):
        load("table", shop, min_interactions=4)
    with pytest.raises(InputError, match="there is no folder"):
        load("table", shop / "nowhere")
    with pytest.raises(InputError, match="there are no interactions in"):
        load("table", shop / "images")
    with pytest.raises(InputError, match=r"there is no file .*gone\.csv"):
        load("table", shop, interactions=shop / "gone.csv")
    with pytest.raises(InputError, match=r"neither \.csv nor"):
        load("table", shop, interactions=shop / "images" / "007.png")
    (shop / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read"):
        load("table", shop, interactions=shop / "bad.parquet")
    (shop / "gbk.csv").write_bytes(b"user,item\n\x81\x81,b\n")  # no character of Windows-1252
    with pytest.raises(InputError, match=r"gbk\.csv is not UTF-8"):
        load("table", shop, interactions=shop / "gbk.csv")

    items = pd.read_csv(shop / "items.csv", dtype=str)
    items.iloc[[0, 1, 2, 3, 1]].to_csv(shop / "items.csv", index=False)
    with pytest.raises(InputError, match=r"items\.csv lists item 'c' twice \(again in row 5\)"):
        load("table", shop)
    items.iloc[[0, 1]].to_csv(shop / "items.csv", index=False)
    with pytest.raises(InputError, match=r"2 items in .* have no row in .*items.csv: '007', 'b' \(first in row 1\)"):
        load("table", shop)


def test_picture_settings_reach_the_store(shop: Path) -> None:
    Image.fromarray(np.arange(12 * 6 * 3, dtype=np.uint8).reshape(12, 6, 3)).save(shop / "images" / "007.png")
    stores = [
        not_none(load("table", shop, image_fit=f, image_resample=r).images)
        for f in ("squash", "pad")
        for r in ("bicubic", "nearest")
    ]
    assert len({store.fingerprint for store in stores}) == 4
    np.testing.assert_array_equal(stores[3].pixels[0], decode(shop / "images" / "007.png", 8, "pad", "nearest"))
