"""Table 1, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.statistics import dataset_table


def test_table_1_by_hand() -> None:
    train = Interactions.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), n_users=2, n_items=5)
    images = ImageStore.from_array(np.zeros((5, 2, 2, 3), np.uint8), np.array([True, True, False, True, True]))
    dataset = Dataset(
        "hand", np.array(["a", "b"]), pd.DataFrame({"item": list("abcde")}), train,
        validation=HeldOut(np.array([2, -1])), test=HeldOut(np.array([3, 0])), images=images,
    )  # fmt: skip
    assert dataset_table(dataset).iloc[0].to_dict() == {
        "dataset": "hand",
        "users": 2,
        "items": 5,
        "interactions": 6,
        "density": 0.6,
        "training interactions per user": 1.5,
        "training interactions per item": 0.6,
        "cold items": 3,
        "cold items, share": 0.6,
        "held-out interactions on cold items, share": pytest.approx(2 / 3),
        "items without a picture": 1,
    }
