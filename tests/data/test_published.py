"""Amazon Reviews 2023 and the data sets of covers, from files in the published form."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgrec_lib import InputError, load_dataset
from imgrec_lib.data.dataset import Dataset

SHIRT, SKIRT, SHOE, HAT = "B00SHIRT00", "B00SKIRT00", "B00SHOE000", "B00HAT0000"
RATINGS = [
    ("AE1", SHIRT, 5.0, 1588687728923), ("AE1", SKIRT, 4.0, 1588687729000), ("AE1", SHOE, 1.0, 1588687731999),
    ("AE2", SHOE, 3.0, 1588687730000), ("AE2", SHIRT, 5.0, 1588687740000), ("AE2", SKIRT, 5.0, 1588687750000),
    ("AE2", SHOE, 5.0, 1588687760000), ("AE3", HAT, 5.0, 1588687730000),
]  # fmt: skip
IMAGE = "https://m.example/images/I/"


def record(asin: str, **more: Any) -> dict[str, Any]:
    """A line of metadata, its keys as published."""
    return {
        "main_category": "AMAZON FASHION", "title": f"Title of {asin}", "average_rating": 4.5, "rating_number": 10,
        "features": ["Cotton", "Pull on"], "description": ["Soft."], "price": None, "images": [], "videos": [],
        "store": "Some Store", "categories": [], "details": {"Package": "1"}, "parent_asin": asin,
        "bought_together": None,
    } | more  # fmt: skip


def image(name: str, variant: str) -> dict[str, Any]:
    hi_res = f"{IMAGE}{name}._SL1500_.jpg" if variant == "MAIN" else None
    return {"thumb": f"{IMAGE}{name}._US40_.jpg", "large": f"{IMAGE}{name}.jpg", "variant": variant, "hi_res": hi_res}


META = [
    record(
        SKIRT, price=19.99, categories=["Clothing", "Women", "Skirts"],
        images=[image("b", "PT01"), image("a", "MAIN")],
    ),
    record("B00UNKNOWN"),
    record(SHIRT, price="from 7.50", images={
        "hi_res": [None, f"{IMAGE}s._SL1500_.jpg"], "large": [f"{IMAGE}t.jpg", f"{IMAGE}s.jpg"],
        "thumb": [f"{IMAGE}t._US40_.jpg", f"{IMAGE}s._US40_.jpg"], "variant": ["PT01", "MAIN"],
    }),
    record(SHOE, description=[], features=[]),
]  # fmt: skip


def compressed(path: Path, text: str) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rows = "".join(f"{user},{item},{rating},{time}\n" for user, item, rating, time in RATINGS)
    compressed(tmp_path / "Amazon_Fashion.csv.gz", "user_id,parent_asin,rating,timestamp\n" + rows)
    compressed(tmp_path / "meta_Amazon_Fashion.jsonl.gz", "".join(json.dumps(each) + "\n" for each in META))
    return tmp_path


def amazon(root: Path, **options: Any) -> Dataset:
    return load_dataset("amazon2023", root, min_interactions=3, image_size=8, progress=False, **options)


def bought(dataset: Dataset) -> dict[str, set[str]]:
    ids = dataset.items["item"]
    return {user: set(ids[dataset.undivided().train.of(row)]) for row, user in enumerate(dataset.user_ids)}


def test_ratings_and_metadata(fashion: Path) -> None:
    with pytest.warns(UserWarning, match="1 of 3 users have fewer than 3 different items"):
        dataset = amazon(fashion, split="time")
    assert bought(dataset) == {user: {SHIRT, SKIRT, SHOE} for user in ("AE1", "AE2")}
    # Milliseconds became seconds; of AE2's two ratings of the shoe the first counts.
    whole = dataset.undivided().train
    assert whole.times is not None and whole.times.tolist() == [
        1588687728, 1588687731, 1588687729, 1588687740, 1588687730, 1588687750,
    ]  # fmt: skip
    assert dataset.items["item"].iloc[dataset.test.items].tolist() == [SHOE, SKIRT]
    items = dataset.items.set_index("item")
    assert items.loc[SKIRT].to_dict() == {
        "category": "Skirts", "name": f"Title of {SKIRT}", "description": "Cotton Pull on Soft.",
        "main_category": "AMAZON FASHION", "store": "Some Store", "price": "19.99",
    }  # fmt: skip
    assert items.loc[SHIRT, "price"] == "7.50" and items.loc[SHOE, "category"] == "AMAZON FASHION"
    # MAIN comes first, in the largest size, from both forms of the field.
    assert dict(dataset.picture_addresses) == {
        SKIRT: [f"{IMAGE}a._SL1500_.jpg", f"{IMAGE}b.jpg"], SHIRT: [f"{IMAGE}s._SL1500_.jpg", f"{IMAGE}t.jpg"],
    }  # fmt: skip
    assert dataset.images is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pictures_by_item_or_by_the_names_of_their_addresses(fashion: Path) -> None:
    (fashion / "images").mkdir()
    colours = {f"{SKIRT}.png": 10, f"{SKIRT}_2.png": 20, "t.jpg": 30, "s._SL1500_.jpg": 40}
    for name, grey in colours.items():
        Image.new("RGB", (8, 8), (grey,) * 3).save(fashion / "images" / name)
    dataset = amazon(fashion)
    greys = {
        item: [int(pixels.mean()) for pixels in dataset.pictures_of(row)]
        for row, item in enumerate(dataset.items["item"])
    }
    assert greys == {SKIRT: [10, 20], SHIRT: [40, 30], SHOE: []}


def test_reviews_cores_and_the_published_split(fashion: Path) -> None:
    reviews = [
        {"rating": rating, "title": "t", "text": "x\n,", "images": [], "asin": "B0VARIANT0", "parent_asin": item,
         "user_id": user, "timestamp": time, "helpful_vote": 0, "verified_purchase": True}
        for user, item, rating, time in RATINGS
    ]  # fmt: skip
    expected = amazon(fashion).fingerprint
    compressed(fashion / "Amazon_Fashion.jsonl.gz", "".join(json.dumps(each) + "\n" for each in reviews))
    (fashion / "Amazon_Fashion.csv.gz").rename(fashion / "ratings")
    assert amazon(fashion).fingerprint == expected
    # AE2 rated the shoe twice, and liked it at last.
    with pytest.warns(UserWarning, match=r"2 of 8 ratings in .* are below 3\.5"):
        assert bought(amazon(fashion, min_rating=3.5)) == {"AE2": {SHIRT, SKIRT, SHOE}}
    # By twos AE3 goes for want of items, then the hat for want of users.
    assert bought(amazon(fashion, core=2)) == {user: {SHIRT, SKIRT, SHOE} for user in ("AE1", "AE2")}
    with pytest.raises(InputError, match="no user and item have 4 interactions among themselves: lower core"):
        amazon(fashion, core=4)
    (fashion / "Amazon_Fashion.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"lacks Amazon_Fashion.csv \(ratings\) or Amazon_Fashion.jsonl"):
        amazon(fashion)
    header = "user_id,parent_asin,rating,timestamp,history\n"
    parts = {
        "train": [f"AE1,{SHIRT},5.0,1588687728923,", f"AE2,{SHOE},3.0,1588687730000,"],
        "valid": [f"AE1,{SKIRT},4.0,1588687729000,{SHIRT}", f"AE2,{SHIRT},5.0,1588687740000,{SHOE}"],
        "test": [f"AE1,{SHOE},1.0,1588687731999,{SHIRT} {SKIRT}", f"AE2,{SKIRT},5.0,1588687750000,{SHOE} {SHIRT}"],
    }
    for part, rows in parts.items():
        compressed(fashion / f"Amazon_Fashion.{part}.csv.gz", header + "\n".join(rows) + "\n")
    with pytest.warns(UserWarning, match="the split is kept"):
        given = amazon(fashion)
    ids = given.items["item"]
    assert given.split == {"kind": "given"}
    assert [ids.iloc[part.items].tolist() for part in (given.validation, given.test)] == [[SKIRT, SHIRT], [SHOE, SKIRT]]
    with pytest.raises(InputError, match="the published split is kept as it is: leave core out"):
        amazon(fashion, split="given", core=5)


def test_times_of_any_form_and_poor_ratings_are_told(fashion: Path) -> None:
    told = r"2 of 8 ratings in .* are below 3, and each was counted as a purchase: .* min_rating=3"
    rows: list[list[Any]] = [list(row) for row in RATINGS]
    with pytest.warns(UserWarning, match=told.replace("2 of 8", "1 of 8")):
        expected = amazon(fashion, split="time").fingerprint
    rows[0][3] //= 1000  # a row in seconds, and one that is a date
    rows[1][3] = "2020-05-05 14:08:49"
    rows[3][2] = 2.0
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    compressed(fashion / "Amazon_Fashion.csv.gz", "user_id,parent_asin,rating,timestamp\n" + text)
    with pytest.warns(UserWarning) as notes:
        assert amazon(fashion, split="time").fingerprint == expected
    sentences = "\n".join(str(note.message) for note in notes)
    assert "several forms, and each was read by its own: milliseconds in rows 3, 4, 5" in sentences
    assert re.search(told, sentences)
    with pytest.warns(UserWarning):
        last = amazon(fashion, repeated="last", split="time")
    assert last.items["item"].iloc[last.test.items].tolist() == [SHOE, SHOE]
    with pytest.raises(InputError, match=r"unknown form of times .* 'days'"):
        amazon(fashion, time_format="days")


def test_damaged_files_get_a_sentence(fashion: Path) -> None:
    path = fashion / "Amazon_Fashion.csv.gz"
    whole = path.read_bytes()
    for content, sentence in (
        (whole[: len(whole) // 2], "cannot be read"),
        (gzip.compress(b"user_id,parent_asin,rating\na,b,5\n"), "unknown column of .* 'timestamp'"),
        (gzip.compress(b"user_id,parent_asin,rating,timestamp\na,b,5,soon\n"), "has 'soon' as 'timestamp' in row 1"),
        (gzip.compress(b"user_id,parent_asin,rating,timestamp\na,b,5,\n"), "has no 'timestamp' in row 1"),
        (gzip.compress(b"user_id,parent_asin,rating,timestamp\n"), "is empty: it has no rows"),
        (b"no gzip", "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            amazon(fashion)
    path.write_bytes(whole)
    compressed(fashion / "meta_Amazon_Fashion.jsonl.gz", '{"parent_asin": "x"}\n{"parent_asin"\n')
    with pytest.raises(InputError, match=r"cannot be read .*in line 2"):
        amazon(fashion)
    compressed(fashion / "Other.csv.gz", "")
    with pytest.raises(InputError, match=r"files of 2 categories \(Amazon_Fashion, Other\): name one"):
        amazon(fashion)


PAIRS = [("u1", "i1", 5), ("u1", "i2", 3), ("u1", "i3", 9), ("u2", "i2", 4), ("u2", "i1", 1), ("u2", "i3", 2)]


def covers(root: Path, **options: Any) -> Dataset:
    return load_dataset("covers", root, min_interactions=3, image_size=8, progress=False, **options)


def write_covers(root: Path, folder: str, names: list[str]) -> None:
    for k, name in enumerate(names):
        (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (40 * k, 0, 0)).save(root / folder / name)


def test_pixelrec_and_microlens(tmp_path: Path) -> None:
    pixel, lens = tmp_path / "pixel", tmp_path / "lens"
    for root in (pixel, lens):
        root.mkdir()
        write_covers(root, "images" if root == pixel else "MicroLens-100k_covers", ["i1.jpg", "i2.jpg", "i3.jpg"])
    (pixel / "Pixel200K.csv").write_text(
        "item_id,user_id,timestamp\n" + "".join(f"{i},{u},{1640995200 + t}\n" for u, i, t in PAIRS)
    )
    (pixel / "item_info.csv").write_text('item_id,tag,title,description\ni1,life,A title,"Long, text"\ni3,game,T,\n')
    rows = "".join(f"{u},{i},{1000 * (1640995200 + t) + 7}\n" for u, i, t in PAIRS)
    (lens / "MicroLens-100k_pairs.csv").write_text("user,item,timestamp\n" + rows)
    (lens / "MicroLens-100k_pairs.tsv.bak").write_text("")
    one, other = covers(pixel, split="time"), covers(lens, split="time")
    assert one.fingerprint == other.fingerprint
    assert one.items["item"].iloc[one.test.items].tolist() == ["i3", "i2"]
    assert one.train.times is not None and one.train.times.tolist() == [1640995203, 1640995201]
    assert one.images is not None and one.images.pixels[:, 4, 4, 0].tolist() == pytest.approx([0, 40, 80], abs=3)
    with pytest.warns(UserWarning, match="1 of 3 items have no row in"):
        described = covers(pixel, items="item_info.csv")
    assert described.items["description"].tolist() == ["Long, text", "", ""]
    assert described.items["tag"].tolist() == ["life", "", "game"]


def test_ninerec_sequences(tmp_path: Path) -> None:
    write_covers(tmp_path, "QB_cover", ["v10.jpg", "v2.jpg", "v7.jpg", "v8.jpg"])
    (tmp_path / "QB_behaviour.tsv").write_text("u9\tv7 v2 v10 v8\nu1\tv2 v10 v7\nu2\tv7\n")
    (tmp_path / "QB_item.csv").write_text("v7,title\n")
    with pytest.warns(UserWarning, match="1 of 3 users"):
        dataset = covers(tmp_path, split="time")
    ids = dataset.items["item"].to_numpy()
    assert dataset.user_ids.tolist() == ["u1", "u9"] and dataset.train.times is None and dataset.test.times is None
    assert ids[dataset.test.items].tolist() == ["v7", "v8"] and ids[dataset.validation.items].tolist() == ["v10", "v10"]
    assert sorted(ids[dataset.train.of(1)]) == ["v2", "v7"]
    with pytest.raises(InputError, match="leave where, min_weight, repeated, time_column and time_format out"):
        covers(tmp_path, time_column="when")


def test_covers_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id\nu,1\n")
    with pytest.raises(InputError, match="has 0 folders that could hold the covers"):
        covers(tmp_path)
    write_covers(tmp_path, "covers", ["0001.jpg"])
    with pytest.raises(InputError, match="differ by leading zeros alone"):
        covers(tmp_path)
    (tmp_path / "b.csv").write_text("user_id,item_id\nu,1\n")
    with pytest.raises(InputError, match=r"2 tables that could be the interactions \(a\.csv, b\.csv\)"):
        covers(tmp_path)
    (tmp_path / "b.csv").write_text("who,what,when\nu,1,2\n")
    with pytest.raises(InputError, match=r"has no user column \(found: who, what, when\): .* name it with user_column"):
        covers(tmp_path, interactions="b.csv")
    with pytest.raises(InputError, match="differ by leading zeros alone"):
        covers(tmp_path, interactions="b.csv", user_column="who", item_column="what")
    rng = np.random.default_rng(0)
    rows = "".join(f"u{u},{i}\n" for u in range(5) for i in rng.permutation(6)[:4])
    (tmp_path / "b.csv").write_text("user_id,item_id\n" + rows)
    write_covers(tmp_path, "covers", [f"{i}.png" for i in range(5)])
    with pytest.warns(UserWarning, match="1 of 6 items have no picture and are left out"):
        assert covers(tmp_path, interactions="b.csv").n_items <= 5


def test_covers_read_each_time_by_its_own_form(tmp_path: Path) -> None:
    write_covers(tmp_path, "covers", ["i1.jpg", "i2.jpg", "i3.jpg"])
    times = [1640995205, "2022-01-01 00:00:03", 1640995209000, 1640995204, 1640995201, 1640995202]
    rows = "".join(f"{u},{i},{t}\n" for (u, i, _), t in zip(PAIRS, times, strict=True))
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + rows)
    with pytest.warns(UserWarning, match="have several forms, and each was read by its own"):
        dataset = covers(tmp_path, split="time")
    assert dataset.items["item"].iloc[dataset.test.items].tolist() == ["i3", "i2"]
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + rows.replace("2022-01-01 00:00:03", "3"))
    with pytest.raises(InputError, match=r"has 3\.0 as 'timestamp' in row 2: such a number does not say by itself"):
        covers(tmp_path)
