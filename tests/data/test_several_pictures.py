"""Items with several pictures: by numbered names, folders and lists; their features pooled; all of them given out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shops import hm

from imgrec_lib import InputError, Request, load_dataset, train_run
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.explorer import Runs, State, answer
from imgrec_lib.features import extract_features, picture_features

__all__ = ["hm"]  # a fixture

ITEMS = ["coat", "hat", "hat_1", "11"]
COLOURS = {name: (40 * k, 250 - 20 * k, 90) for k, name in enumerate(("a", "b", "c", "d", "e", "f"))}


def write_shop(folder: Path, pictures: dict[str, str], images: list[Any] | None = None) -> Path:
    """A shop of four items; pictures by path, each of one of the colours."""
    folder.mkdir(exist_ok=True)
    rows = "".join(f"u{u},{item}\n" for u in range(3) for item in ITEMS)
    (folder / "interactions.csv").write_text("user,item\n" + rows)
    items = pd.DataFrame({"item": ITEMS} | ({} if images is None else {"images": images}))
    if images is not None and not all(isinstance(each, str) for each in images):
        items.to_parquet(folder / "items.parquet")
    else:
        items.to_csv(folder / "items.csv", index=False)
    for path, colour in pictures.items():
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), COLOURS[colour]).save(folder / "images" / path)
    return folder


def load(folder: Path) -> Dataset:
    return load_dataset("table", folder, image_size=8, min_interactions=3, progress=False)


def shown(dataset: Dataset) -> dict[str, str]:
    """The colours of each item's pictures, in order."""
    near = {colour: name for name, colour in COLOURS.items()}
    return {
        item: "".join(near[int(pixels[4, 4, 0]), int(pixels[4, 4, 1]), 90] for pixels in dataset.pictures_of(row))
        for row, item in enumerate(dataset.items["item"])
    }


def test_numbered_names_and_folders(tmp_path: Path) -> None:
    # "hat_1.png" is the picture of the item of that name, and none of the hat's.
    pictures = {"coat.png": "a", "coat_10.png": "d", "coat-2.png": "c", "deep/coat_1.png": "b", "hat_1.png": "e"}
    with pytest.warns(UserWarning, match="3 further pictures of 1 items"):
        dataset = load(write_shop(tmp_path, pictures | {"hat/front.png": "f", "11.png": "a"}))
    assert shown(dataset) == {"11": "a", "coat": "abcd", "hat": "f", "hat_1": "e"}


def test_a_folder_an_item_whose_pictures_are_numbers(tmp_path: Path) -> None:
    pictures = {f"{item}/{n}.png": colour for item, n, colour in [
        ("coat", 2, "b"), ("coat", 11, "c"), ("coat", 1, "a"), ("11", 1, "d"), ("11", 11, "e"), ("hat", 1, "f"),
    ]}  # fmt: skip
    with pytest.warns(UserWarning):
        dataset = load(write_shop(tmp_path, pictures))
    assert shown(dataset) == {"11": "de", "coat": "abc", "hat": "f", "hat_1": ""}
    # Folders that are no items' tell nothing: then two pictures of one name are one too many.
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "coat" / "hat.png")
    (tmp_path / "images" / "sale").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "sale" / "hat.png")
    with pytest.raises(InputError, match="named after item"):
        load(tmp_path)


SHOTS = ["x.png", "y.png", "z.png"]


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(SHOTS),
        str(SHOTS),
        "x.png|y.png|z.png",
        "x.png; y.png; z.png",
        SHOTS,
        np.array(SHOTS),
        json.dumps([f"https://shop.example/{name}?w=80" for name in SHOTS]),
        " | ".join(f"https://shop.example/{name}" for name in SHOTS),
        # As in Amazon's metadata: each picture in several sizes.
        json.dumps([{"thumb": f"https://a.example/t-{n}", "large": f"https://a.example/{n}"} for n in SHOTS]),
    ],
)
def test_a_column_of_lists(tmp_path: Path, cell: Any) -> None:
    lists = not isinstance(cell, str)
    images = [cell, ["x.png"] if lists else "x.png", [] if lists else "", ["y.png"] if lists else "y.png"]
    pictures = {"x.png": "a", "y.png": "b", "z.png": "c", "t-w.png": "d"}
    with pytest.warns(UserWarning, match="2 further pictures of 1 items"):
        dataset = load(write_shop(tmp_path, pictures, images))
    assert shown(dataset) == {"coat": "abc", "hat": "a", "hat_1": "", "11": "b"}


def test_addresses_beside_pictures_named_by_item(tmp_path: Path) -> None:
    images = [f'["https://shop.example/{k}.jpg", "https://shop.example/{k}b.jpg"]' for k in range(4)]
    pictures = {"coat.png": "a", "coat_2.png": "b", "hat.png": "c"}
    with pytest.warns(UserWarning, match="addresses of pictures.* for 4 items: 2 of these have"):
        dataset = load(write_shop(tmp_path, pictures, images))
    assert shown(dataset) == {"coat": "ab", "hat": "c", "hat_1": "", "11": ""}


def test_features_of_several_pictures_are_pooled(tmp_path: Path) -> None:
    pictures = {"coat.png": "a", "coat_1.png": "b", "coat_2.png": "c", "hat_2.png": "d"}
    shop = write_shop(tmp_path, pictures | {"hat/1.png": "f"})
    (shop / "images" / "coat_3.png").write_bytes(b"no picture")
    (shop / "images" / "11.png").write_bytes(b"no picture")
    (shop / "images" / "11_1.png").write_bytes(b"no picture")
    (shop / "images" / "hat.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning):
        dataset = load(shop)
    # Of "11" nothing can be shown: it keeps what stands for a missing picture. Of the hat the first cannot.
    options: dict[str, Any] = {"weights": "random", "size": 32, "progress": False}
    assert dataset.images is not None and dataset.further_pictures is not None
    first = extract_features(dataset.images, **options)
    more = extract_features(dataset.further_pictures.images, **options).values
    by_item = {"11": first.values[:1], "coat": np.vstack([first.values[1], more[1:3]]), "hat": more[4:6]}
    rows = dataset.items["item"].tolist()
    mean = picture_features(dataset, **options)
    largest = picture_features(dataset, several_pictures="max", **options)
    for item, values in by_item.items():
        assert mean.values[rows.index(item)] == pytest.approx(values.mean(0), rel=1e-5), item
        assert largest.values[rows.index(item)] == pytest.approx(values.max(0), rel=1e-5), item
    assert mean.description["several_pictures"] == "mean"
    assert len({each.fingerprint for each in (first, mean, largest)}) == 3
    assert picture_features(dataset, several_pictures="first", **options).fingerprint == first.fingerprint


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hm_articles_with_several_photographs(hm: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ids, images = [f"01{i:08}" for i in range(6)], hm / "images"
    for path, grey in {
        f"010/{ids[0]}_10.jpg": 30, f"010/{ids[0]}-2.png": 20, f"{ids[0]}_1.jpg": 10, f"{ids[1]}/back.png": 40,
        f"{ids[5]}/front.png": 50,
    }.items():  # fmt: skip
        (images / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 9), (grey,) * 3).save(images / path)
    options = {"image_size": 8, "min_interactions": 3, "progress": False}
    request = Request("visrank", dataset="hm", root=str(hm), dataset_options=options, feature_options={"size": 32})
    dataset, features = request.load(progress=False)
    blues = {
        item: [round(int(pixels[4, 4, 2]) / 10) for pixels in dataset.pictures_of(row)]
        for row, item in enumerate(dataset.items["item"])
    }
    # Article 5 has a picture in its folder alone; the fixture's are without blue.
    assert blues == {ids[0]: [0, 1, 2, 3], ids[1]: [0, 4], ids[2]: [0], ids[3]: [0], ids[5]: [5]}
    assert features is not None and dataset.images is not None and dataset.further_pictures is not None
    parts = [
        extract_features(store, size=32, progress=False).values
        for store in (dataset.images, dataset.further_pictures.images)
    ]
    assert features.values[0] == pytest.approx(np.vstack([parts[0][:1], parts[1][:3]]).mean(0), rel=1e-4, abs=1e-6)
    assert features.values[2] == pytest.approx(parts[0][2])
    runs = tmp_path_factory.mktemp("runs")
    train_run(dataset, request, runs / "run", features=features, progress=False)
    card = answer(Runs(runs), State(item=ids[0])).html.partition('<div class="pictures">')[2].partition("</div>")[0]
    assert len(set(re.findall(r'src="([^"]+)"', card))) == 4 and 'alt="prod_name 0, picture 4"' in card
    # A column that lists them says which are whose, and in which order.
    articles = pd.read_csv(hm / "articles.csv", dtype=str)
    lists = [[f"010/{ids[0]}-2.png", f"010/{ids[0]}.jpg"], *([f"010/{item}.jpg"] for item in ids[1:])]
    articles.assign(images=[json.dumps(each) for each in lists]).to_csv(hm / "articles.csv", index=False)
    listed = load_dataset("hm", hm, **options)
    assert [round(int(pixels[4, 4, 2]) / 10) for pixels in listed.pictures_of(0)] == [2, 0]
    assert ids[5] not in set(listed.items["item"])
