"""What further training changed in the items' space, against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.figures import item_movement, movement_by_popularity, movement_gallery


def circle(degrees: list[float]) -> torch.Tensor:
    angles = torch.tensor(degrees) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_movement_is_the_angle_and_the_share_of_neighbours_that_stay(small_wardrobe: Dataset) -> None:
    n = small_wardrobe.n_items
    before = circle([3.0 * i for i in range(n)])
    after = 2.5 * before.clone()
    after[0] = circle([180.0])[0]  # from among 1 and 2 to the items about number 60
    movement = item_movement(small_wardrobe, before, after, k=2)
    assert movement["moved"][0] == pytest.approx(2, abs=1e-5)
    assert movement["moved"][1:].abs().max() < 1e-5
    assert movement["neighbours_kept"][0] == 0
    assert movement["neighbours_kept"][30] == 1
    assert movement["neighbours_kept"][1] == 0.5
    np.testing.assert_array_equal(movement["popularity"], small_wardrobe.train.popularity)


def test_bands_hold_every_item_once() -> None:
    popularity = [0, 0, 1, 2, 4, 5, 19, 20, 300]
    movement = pd.DataFrame({"moved": np.arange(9.0), "neighbours_kept": 1.0, "popularity": popularity})
    table = movement_by_popularity(movement)
    assert table["items"].to_dict() == {"0": 2, "1": 1, "2-4": 2, "5-9": 1, "10-19": 1, "20+": 2}
    assert table["moved"].to_dict() == {"0": 0.5, "1": 2, "2-4": 3.5, "5-9": 5, "10-19": 6, "20+": 7.5}


def test_the_gallery_shows_each_item_before_and_after(small_wardrobe: Dataset) -> None:
    before = circle([3.0 * i for i in range(small_wardrobe.n_items)])
    gallery = movement_gallery(small_wardrobe, before, before.flip(0), np.array([4, 9]), k=2, titles=("old", "new"))
    assert [row.cells[0].item for row in gallery.rows] == [4, 4, 9, 9]
    assert [row.title.rsplit(": ", 1)[1] for row in gallery.rows] == ["old", "new"] * 2
    assert [cell.item for cell in gallery.rows[0].cells[1:]] == [3, 5]
