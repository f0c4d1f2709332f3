"""One changed picture costs one picture: the store takes all others over, and of one catalogue the last store stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgrec_lib.data import load_dataset, storing
from imgrec_lib.data.decoding import decode_and_repair
from imgrec_lib.data.images import ImageStore


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9), (shade, shade, 60)).save(path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rows = [f"u{u},i{(u + k) % 6},{1_600_000_000 + k}" for u in range(6) for k in range(5)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    for i in range(6):
        paint(tmp_path / "images" / f"i{i}.png", 20 * i)
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []

    def noted(source: Any, *rest: Any) -> Any:
        names.append(Path(source).name)
        return decode_and_repair(source, *rest)

    monkeypatch.setattr(storing, "decode_and_repair", noted)
    return names


def load(shop: Path, **options: Any) -> ImageStore:
    dataset = load_dataset("table", shop, image_size=4, progress=False, cache=shop / "cache", **options)
    assert dataset.images is not None
    return dataset.images


def stores(shop: Path) -> Iterator[Path]:
    return (path for path in (shop / "cache" / "images").iterdir() if path.is_dir())


def shades(store: ImageStore) -> list[int]:
    return [int(shade) for shade in store.pixels[:, 0, 0, 0]]


def test_one_changed_picture(shop: Path, decoded: list[str]) -> None:
    first = load(shop)
    assert len(decoded) == 6 and shades(first) == [0, 20, 40, 60, 80, 100]
    decoded.clear()
    paint(shop / "images" / "i2.png", 200)
    with pytest.warns(UserWarning, match=r"1 of 6 pictures are new or have changed .* item i2\); 5 have not changed"):
        second = load(shop)
    assert decoded == ["i2.png"] and shades(second) == [0, 20, 200, 60, 80, 100]
    assert len(list(stores(shop))) == 1, "the earlier store is removed"
    assert second.fingerprint == ImageStore.from_array(np.array(second.pixels)).fingerprint
    [earlier] = second.earlier
    assert earlier.fingerprint == first.fingerprint and earlier.replaced
    assert earlier.rows.tolist() == [0, 1, -1, 3, 4, 5]
    decoded.clear()
    assert load(shop).fingerprint == second.fingerprint and decoded == []


def test_one_new_item_and_one_that_is_gone(shop: Path, decoded: list[str]) -> None:
    load(shop)
    decoded.clear()
    paint(shop / "images" / "i10.png", 210)
    text = (shop / "interactions.csv").read_text().replace(",i5,", ",i10,")
    (shop / "interactions.csv").write_text(text)
    with pytest.warns(UserWarning, match="1 of 6 pictures are new"):
        store = load(shop)
    # Alphabetical order puts the new item in between: all rows behind it move.
    assert decoded == ["i10.png"] and shades(store) == [0, 20, 210, 40, 60, 80]
    assert store.earlier[0].rows.tolist() == [0, 1, -1, 2, 3, 4] and len(list(stores(shop))) == 1


def test_rows_are_followed_through_several_changes(shop: Path) -> None:
    first = load(shop)
    for shade, name in ((150, "i1"), (160, "i4")):
        paint(shop / "images" / f"{name}.png", shade)
        with pytest.warns(UserWarning, match="1 of 6"):
            last = load(shop)
    assert [store.rows.tolist() for store in last.earlier] == [[0, 1, 2, 3, -1, 5], [0, -1, 2, 3, -1, 5]]
    assert last.earlier[1].fingerprint == first.fingerprint


def test_a_corrected_name_a_new_user_and_another_seed_cost_nothing(shop: Path, decoded: list[str]) -> None:
    (shop / "items.csv").write_text("item,name\n" + "\n".join(f"i{i},Shirt {i}" for i in range(6)))
    first = load(shop)
    decoded.clear()
    (shop / "items.csv").write_text((shop / "items.csv").read_text().replace("Shirt 3", "Blouse 3"))
    with open(shop / "interactions.csv", "a") as file:
        file.writelines(f"\nnew,i{i},1600000099" for i in range(5))
    assert load(shop, seed=1).fingerprint == first.fingerprint and decoded == []
    assert len(list(stores(shop))) == 1


def test_catalogues_of_other_options_stay_and_share_what_is_decoded(shop: Path, decoded: list[str]) -> None:
    load(shop)
    decoded.clear()
    part = load(shop, where={"user": ["u0"]})
    assert decoded == [] and len(part) == 5 and not part.earlier[0].replaced
    assert len(list(stores(shop))) == 2 and part.earlier[0].rows.tolist() == [0, 1, 2, 3, 4]


def test_another_size_or_fit_is_decoded_from_the_files(shop: Path, decoded: list[str]) -> None:
    load(shop)
    decoded.clear()
    load(shop, image_fit="pad")
    assert len(decoded) == 6


def test_a_damaged_earlier_store_is_no_obstacle(shop: Path, decoded: list[str]) -> None:
    load(shop)
    [folder] = stores(shop)
    (folder / "pixels.npy").write_bytes(b"damaged")
    decoded.clear()
    paint(shop / "images" / "i0.png", 99)
    assert shades(load(shop))[0] == 99 and len(decoded) == 6


def test_a_touched_file_is_looked_at_again(shop: Path, decoded: list[str]) -> None:
    first = load(shop)
    decoded.clear()
    os.utime(shop / "images" / "i3.png", (1, 1))
    with pytest.warns(UserWarning, match="1 of 6"):
        assert load(shop).fingerprint == first.fingerprint
    assert decoded == ["i3.png"] and len(list(stores(shop))) == 1
